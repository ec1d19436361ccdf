"""Users, rooms and messages, made through a pod's own POST /v1/events, and the calls that read them."""

import json
from collections.abc import Iterable
from urllib.parse import quote

from bench.calls import API_TOKEN, CLIENT_KEY, Request, imkit_token, native, tencent_path
from bench.harness import BenchError, Server

JSON = {"Content-Type": "application/json"}
TAGS = ["work", "home", "idle", "team", "support"]
# Direct rooms of a user: with so many on either side in the ring of users.
NEIGHBOURS = 6
# Groups of ten, and how many of them a user is in.
GROUP_SIZE, GROUPS = 10, 3
EVENTS_AT_ONCE = 2_000

SENDBIRD_KEYS = ",".join(
    f"{kind}group_channel_{what}_count"
    for what in ("unread_message", "invitation", "unread_mention")
    for kind in ("non_super_", "super_", "")
)


def user(number: int) -> str:
    """A user's id."""
    return f"user-{number:06}"


def people(users: int) -> Iterable[dict]:
    """A ring of users, each with a dozen direct rooms, three tagged groups and something unread in all of them."""
    for i in range(users):
        for step in range(1, NEIGHBOURS + 1):
            a, b = user(i), user((i + step) % users)
            yield {"type": "message.sent", "sender": a, "to": b, "id": f"{a}-{b}"}
            yield {"type": "message.sent", "sender": b, "to": a, "id": f"{b}-{a}"}
    for turn in range(GROUPS):
        for first in range(0, users, GROUP_SIZE):
            room = f"group-{turn}-{first}"
            # Every round of groups mixes the users differently.
            members = [user((first + i * (1 + turn * users // 10)) % users) for i in range(GROUP_SIZE)]
            tags = [TAGS[turn], TAGS[(first // GROUP_SIZE + turn) % len(TAGS)]]
            yield {"type": "room.updated", "room": room, "kind": "group", "tags": sorted(set(tags))}
            yield {"type": "member.joined", "room": room, "users": members}
            for number in range(3):
                yield {"type": "message.sent", "room": room, "sender": members[number], "id": f"{room}-{number}"}


def load(pod: Server, events: Iterable[dict], app: str = "bench") -> None:
    """Sends events, and makes sure that none is refused."""
    chunk: list[dict] = []
    for event in events:
        chunk.append(event)
        if len(chunk) == EVENTS_AT_ONCE:
            _send(pod, chunk, app)
            chunk = []
    if chunk:
        _send(pod, chunk, app)


def _send(pod: Server, events: list[dict], app: str) -> None:
    status, _, body = pod.ask(native("/v1/events", events, app))
    if status != 200 or json.loads(body)["rejected"]:
        raise BenchError(f"events were refused: {status} {body[:500]!r}")


def tencent_total(users: int) -> list[Request]:
    """Tencent's total, once for each user."""
    path = tencent_path()
    return [Request("POST", path, JSON, _json({"To_Account": user(i)})) for i in range(users)]


def tencent_peers(users: int) -> list[Request]:
    """Tencent's counts of ten peers, once for each user."""
    path = tencent_path()
    steps = [step for step in range(-NEIGHBOURS, NEIGHBOURS + 1) if step][:10]
    return [
        Request(
            "POST", path, JSON, _json({"To_Account": user(i), "Peer_Account": [user((i + s) % users) for s in steps]})
        )
        for i in range(users)
    ]


def sendbird(users: int) -> list[Request]:
    """Sendbird's nine keys, once for each user."""
    headers = {"Api-Token": API_TOKEN}
    return [
        Request("GET", f"/v3/users/{user(i)}/unread_item_count?item_keys={quote(SENDBIRD_KEYS)}", headers)
        for i in range(users)
    ]


def imkit_badges(users: int) -> list[Request]:
    """IMKIT's badges by tags, once for each user, with the user's own token."""
    body = _json({"tags": TAGS})
    return [Request("POST", "/badges/byRoomTags", JSON | imkit_headers(user(i)), body) for i in range(users)]


def imkit_headers(name: str) -> dict[str, str]:
    """A user's credentials in IMKIT's dialect."""
    return {"IM-CLIENT-KEY": CLIENT_KEY, "IM-Authorization": imkit_token(name)}


def native_unread(users: int, at_once: int) -> list[Request]:
    """The native totals of so many users at once, beginning once with each user."""
    return [
        native("/v1/unread", {"users": [user((first + i) % users) for i in range(at_once)]}) for first in range(users)
    ]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
