"""Requests in each dialect, with the credentials of the apps that a pod is configured with."""

import base64
import hashlib
import hmac
import json
import time
import zlib
from dataclasses import dataclass, field
from urllib.parse import urlencode

SERVER_KEY = "bench-server-key"
CLIENT_KEY = "bench-client-key"
JWT_SECRET = "bench-imkit-secret"
SDKAPPID = 1400000009
TENCENT_SECRET = "bench-tencent-secret"
TENCENT_ADMIN = "administrator"
API_TOKEN = "bench-api-token"
MASTER_TOKEN = "bench-master-token"

# The limiter is on, and never refuses: what it costs is part of what is measured.
LIMIT_ON = '{ per_second = 1_000_000, burst = 1_000_000, scope = "cluster" }'
LIMIT_OFF = "{ per_second = 0 }"


def own(app: str, credential: str) -> str:
    """A credential of an app: no two apps may share one."""
    return credential if app == "bench" else f"{app}-{credential}"


def app_toml(app: str = "bench", limit: str = LIMIT_ON) -> str:
    """One app of a pod's configuration."""
    return f"""
[[apps]]
id = "{app}"
server_keys = ["{own(app, SERVER_KEY)}"]
rate_limit = {limit}
[apps.imkit]
client_keys = ["{own(app, CLIENT_KEY)}"]
jwt_secret = "{own(app, JWT_SECRET)}"
[apps.tencent]
sdkappid = {sdkappid_of(app)}
secret_key = "{own(app, TENCENT_SECRET)}"
admins = ["{TENCENT_ADMIN}"]
[apps.sendbird]
application_id = "{app.upper()}"
master_token = "{own(app, MASTER_TOKEN)}"
api_tokens = ["{own(app, API_TOKEN)}"]
"""


def sdkappid_of(app: str) -> int:
    """The Tencent number of an app of `app_toml`."""
    return SDKAPPID if app == "bench" else SDKAPPID + zlib.crc32(app.encode()) % 1_000_000 + 1


@dataclass(frozen=True)
class Request:
    """An HTTP request as it is sent again and again."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def wire(self, host: str) -> bytes:
        """The bytes that go over the connection."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def native(path: str, body: object, app: str = "bench") -> Request:
    """A POST of the native API."""
    headers = {"Authorization": f"Bearer {own(app, SERVER_KEY)}", "Content-Type": "application/json"}
    return Request("POST", path, headers, json.dumps(body, separators=(",", ":")).encode())


def usersig(app: str = "bench") -> str:
    """A Tencent UserSig of the administrator, valid for a day."""
    now, expire, sdkappid = int(time.time()), 86_400, sdkappid_of(app)
    signed = f"TLS.identifier:{TENCENT_ADMIN}\nTLS.sdkappid:{sdkappid}\nTLS.time:{now}\nTLS.expire:{expire}\n"
    mac = hmac.new(own(app, TENCENT_SECRET).encode(), signed.encode(), hashlib.sha256).digest()
    document = {
        "TLS.ver": "2.0",
        "TLS.identifier": TENCENT_ADMIN,
        "TLS.sdkappid": sdkappid,
        "TLS.expire": expire,
        "TLS.time": now,
        "TLS.sig": base64.b64encode(mac).decode(),
    }
    packed = base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()
    return packed.translate(str.maketrans("+/=", "*-_"))


def imkit_token(user: str) -> str:
    """An IMKIT client token, valid for a day."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"id": user, "iat": now, "exp": now + 86_400}
    text = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
    mac = hmac.new(JWT_SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{part(mac)}"


def tencent_path(app: str = "bench") -> str:
    """Path and query of Tencent's call."""
    query = {
        "sdkappid": sdkappid_of(app),
        "identifier": TENCENT_ADMIN,
        "usersig": usersig(app),
        "random": 99999999,
        "contenttype": "json",
    }
    return f"/v4/openim/get_c2c_unread_msg_num?{urlencode(query)}"
