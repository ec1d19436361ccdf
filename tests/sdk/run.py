"""Calls a real `unread serve` with the vendors' own packages: Tencent's UserSig maker and Sendbird's SDK.

Usage: run.py PATH_OF_THE_BINARY. Starts the server with a configuration and a private Redis of its own on free ports,
prints one line for each check and `N passed, N failed` at the end; exit code 1 if any failed.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import sendbird_platform_sdk
import TLSSigAPIv2
from sendbird_platform_sdk.api.user_api import UserApi

SDKAPPID = 1400000001
KEY = "unread-test-key-0001-not-a-real-secret"
TOKEN = "sdk-test-api-token"
SERVER_KEY = "sdk-test-server-key"
DEADLINE = 60

CONFIG = f"""
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
drain_seconds = 0
[log]
format = "json"
[[apps]]
id = "sdk-test"
server_keys = ["{SERVER_KEY}"]
[apps.tencent]
sdkappid = {SDKAPPID}
secret_key = "{KEY}"
admins = ["administrator", "管理员"]
[apps.sendbird]
application_id = "SDK-TEST"
master_token = "sdk-test-master-token"
api_tokens = ["{TOKEN}"]
"""

# The user id needs escaping in a path: the SDK does that, the server undoes it.
ALICE = "alice/é {1}"

EVENTS = [
    {"type": "message.sent", "to": ALICE, "sender": "bob", "id": "d1", "text": "one"},
    {"type": "message.sent", "to": ALICE, "sender": "bob", "id": "d2", "text": "two"},
    {"type": "message.sent", "to": ALICE, "sender": "bob", "id": "d2", "text": "two, sent again"},
    {"type": "message.sent", "to": ALICE, "sender": "carol", "id": "d1", "text": "three"},
    {"type": "message.sent", "to": "dave", "sender": ALICE, "id": "d1", "text": "mine"},
    {"type": "room.updated", "room": "g", "kind": "group", "custom_type": "support"},
    {"type": "member.joined", "room": "g", "users": [ALICE, "bob"]},
    {"type": "message.sent", "room": "g", "sender": "bob", "id": "1", "mentions": [ALICE]},
    {"type": "message.sent", "room": "g", "sender": "bob", "id": "2"},
    {"type": "message.sent", "room": "g", "sender": "bob", "id": "3"},
    {"type": "message.sent", "room": "g", "sender": "bob", "id": "4", "silent": True},
    {"type": "room.updated", "room": "s", "kind": "supergroup", "custom_type": "news"},
    {"type": "member.joined", "room": "s", "users": [ALICE, "bob"]},
    {"type": "message.sent", "room": "s", "sender": "bob", "id": "1", "mentions": "all"},
    {"type": "room.updated", "room": "g2", "kind": "group"},
    {"type": "member.joined", "room": "g2", "user": "bob"},
    {"type": "member.invited", "room": "g2", "user": ALICE},
]

ALL_NINE = {
    "non_super_group_channel_unread_message_count": 6,
    "super_group_channel_unread_message_count": 1,
    "group_channel_unread_message_count": 7,
    "non_super_group_channel_unread_mention_count": 1,
    "super_group_channel_unread_mention_count": 1,
    "group_channel_unread_mention_count": 2,
    "non_super_group_channel_invitation_count": 1,
    "super_group_channel_invitation_count": 0,
    "group_channel_invitation_count": 1,
}


class Checks:
    """Runs checks one after the other and counts."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def equal(self, name, call, expected):
        try:
            got = call()
        except Exception as error:  # a check that breaks must not hide those after it
            got = f"{type(error).__name__}: {error}"
        if got == expected:
            self.passed += 1
            print(f"ok    {name}")
        else:
            self.failed += 1
            print(f"FAIL  {name}\n      expected {expected!r}\n      got      {got!r}")


class Server:
    """`unread serve` in a directory of its own."""

    def __init__(self, binary, directory):
        config = pathlib.Path(directory, "unread.toml")
        config.write_text(CONFIG, encoding="utf-8")
        data = str(pathlib.Path(directory, "data"))
        self.lines = []
        self.process = subprocess.Popen(
            [binary, "serve", "--config", str(config), "--data-dir", data],
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        # Read to the end, or the server would stand still when the pipe is full.
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr))
        self.reader.start()
        line = self.wait_for(self.listening)
        self.url = "http://" + line["listen"]
        self.wait_for(lambda: get_status(f"http://{line['admin_listen']}/readyz") == 200)

    def listening(self):
        for line in list(self.lines):
            if '"message":"listening"' in line:
                return json.loads(line)
        return None

    def wait_for(self, what):
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if found := what():
                return found
            time.sleep(0.05)
        self.stop()
        sys.exit("the server did not start:\n" + "".join(self.lines))

    def stop(self):
        self.process.terminate()
        code = self.process.wait(DEADLINE)
        self.reader.join()
        return code


def get_status(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def post(url, body, headers):
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.load(answer)


def tencent_checks(checks, server):
    maker = TLSSigAPIv2.TLSSigAPIv2(SDKAPPID, KEY)

    def call(body, sig=None, identifier="administrator", sdkappid=SDKAPPID):
        query = urllib.parse.urlencode(
            {
                "sdkappid": sdkappid,
                "identifier": identifier,
                "usersig": maker.gen_sig(identifier) if sig is None else sig,
                "random": 99999999,
                "contenttype": "json",
            }
        )
        url = f"{server.url}/v4/openim/get_c2c_unread_msg_num?{query}"
        status, answer = post(url, body, {})
        assert status == 200, status
        return answer

    def outcome(*args, **kwargs):
        answer = call(*args, **kwargs)
        return answer["ActionStatus"], answer["ErrorCode"]

    total = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "AllC2CUnreadMsgNum": 3}
    alice = {"To_Account": ALICE}
    checks.equal("tencent: total", lambda: call(alice), total)
    checks.equal("tencent: total, administrator with a non-ASCII name", lambda: call(alice, identifier="管理员"), total)
    checks.equal(
        "tencent: UserSig with a userbuf",
        lambda: call(alice, sig=maker.gen_sig_with_userbuf("administrator", 3600, b"room 7")),
        total,
    )

    def by_peer():
        answer = call({"To_Account": ALICE, "Peer_Account": ["carol", "bob", "dave", "nobody"]})
        numbers = [(peer["Peer_Account"], peer["C2CUnreadMsgNum"]) for peer in answer["C2CUnreadMsgNumList"]]
        errors = [(peer["Peer_Account"], peer["ErrorCode"]) for peer in answer["ErrorList"]]
        return answer["ActionStatus"], numbers, errors

    expected = ("OK", [("carol", 1), ("bob", 2), ("dave", 0)], [("nobody", 70107)])
    checks.equal("tencent: by peer", by_peer, expected)

    other_key = TLSSigAPIv2.TLSSigAPIv2(SDKAPPID, "another key").gen_sig("administrator")
    other_app = TLSSigAPIv2.TLSSigAPIv2(SDKAPPID + 1, KEY).gen_sig("administrator")
    for name, code, arguments in [
        ("unknown user", 90003, {"body": {"To_Account": "nobody"}}),
        ("no user", 90003, {"body": {}}),
        ("UserSig of another key", 70009, {"sig": other_key}),
        ("UserSig of another app", 70014, {"sig": other_app}),
        ("UserSig of another user", 70013, {"sig": maker.gen_sig("bob")}),
        ("UserSig expired", 70001, {"sig": maker.gen_sig("administrator", -10)}),
        ("UserSig garbled", 70003, {"sig": "garbled"}),
        ("not an administrator", 60010, {"identifier": "bob"}),
        ("unknown app", 70020, {"sdkappid": SDKAPPID + 1}),
    ]:
        arguments.setdefault("body", alice)
        checks.equal(f"tencent: {name}", lambda a=arguments: outcome(**a), ("FAIL", code))


def sendbird_checks(checks, server):
    configuration = sendbird_platform_sdk.Configuration(host=server.url)
    with sendbird_platform_sdk.ApiClient(configuration) as client:
        api = UserApi(client)

        def call(user=ALICE, token=TOKEN, **arguments):
            answer = api.view_number_of_unread_items(token, user, **arguments)
            return answer.to_dict()

        def error(**arguments):
            try:
                return call(**arguments)
            except sendbird_platform_sdk.ApiException as refused:
                body = json.loads(refused.body)
                return refused.status, body["error"], body["code"], body["message"] != ""

        checks.equal("sendbird: all nine", call, ALL_NINE)
        checks.equal("sendbird: master token", lambda: call(token="sdk-test-master-token"), ALL_NINE)
        two = ["super_group_channel_unread_message_count", "group_channel_unread_mention_count"]
        checks.equal(
            "sendbird: the keys asked for and no others",
            lambda: call(item_keys=",".join(two)),
            {key: ALL_NINE[key] for key in two},
        )
        key = "group_channel_unread_message_count"
        for types, count in [("support", 3), ("news", 1), ("support,news", 4), ("other", 0)]:
            checks.equal(
                f"sendbird: custom types {types}",
                lambda types=types: call(item_keys=key, custom_type=types),
                {key: count},
            )
        checks.equal("sendbird: wrong token", lambda: error(token="wrong"), (400, True, 400401, True))
        checks.equal("sendbird: unknown user", lambda: error(user="nobody"), (400, True, 400201, True))
        checks.equal("sendbird: unknown key", lambda: error(item_keys="nonsense"), (400, True, 400111, True))


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="unread-sdk-") as directory:
        server = Server(sys.argv[1], directory)
        try:
            headers = {"Authorization": f"Bearer {SERVER_KEY}", "Content-Type": "application/json"}

            def feed():
                status, answer = post(f"{server.url}/v1/events", EVENTS, headers)
                return status, answer["applied"], answer["duplicate"], answer["rejected"]

            checks.equal("events", feed, (200, len(EVENTS) - 1, 1, 0))
            tencent_checks(checks, server)
            sendbird_checks(checks, server)
        finally:
            code = server.stop()
        checks.equal("the server stops by itself", lambda: code, 0)
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(checks.failed > 0)


main()
