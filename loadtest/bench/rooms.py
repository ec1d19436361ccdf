"""IMKIT's GET /rooms: what a page of 20 costs for somebody in 50 rooms and for somebody in 2,000."""

import datetime
import json
import statistics
import time
from collections.abc import Iterable
from urllib.parse import quote

from bench import dataset
from bench.calls import Request, app_toml
from bench.harness import BenchError, Env, Load, Redis, Row, Server

SIZES = [50, 2_000]
MEMBERS, OTHERS = 4, 200
# Calls over which commands are counted, and how often Redis has read from any socket: at least once a round trip.
CALLS, READS = 20, "reads"
# Rooms that updatedAfter selects, whatever the size.
RECENT = 20
# Each room's message is a second younger than the one before.
YOUNGEST = int(time.time()) - 3_600


def run(env: Env) -> list[Row]:
    """For each form of the call: latency, throughput, and what it asks of Redis."""
    redis = env.start_redis()
    pod = env.start_pod(app_toml(), redis.tcp_url, server__workers=env.cores)
    for size in SIZES:
        dataset.load(pod, _rooms(size))
    rows = []
    for title, query in _variants().items():
        requests = {
            size: Request("GET", f"/rooms?limit=20{query}", dataset.imkit_headers(_caller(size))) for size in SIZES
        }
        found = {size: _found(pod, request) for size, request in requests.items()}
        group = f"GET /rooms, {title}"
        for connections, unit in ((1, "ms"), (16, "µs/call")):
            trials = {
                _named(size): env.replayer(f"{title} {size} rooms", pod, [request], connections)
                for size, request in requests.items()
            }
            few, many = (
                Row(f"{group}: {_asked(connections)}", name, unit, [_cost(load, connections) for load in loads])
                for name, loads in env.interleaved(trials).items()
            )
            few.note, many.note = (f"{total:,} rooms match" for total in found.values())
            rows += [few, many.compared(few, "<= 3")]
        few, many = (
            _commands(f"{group}: Redis commands", redis, pod, size, request) for size, request in requests.items()
        )
        rows += [few, many.compared(few)]
    return rows


def _variants() -> dict[str, str]:
    after = datetime.datetime.fromtimestamp(YOUNGEST - RECENT + 1, datetime.UTC).isoformat().replace("+00:00", "Z")
    return {
        "plain": "",
        "by room tag": f"&q={quote(json.dumps({'roomTags': dataset.TAGS[0]}))}",
        "sticky only": f"&pref={quote(json.dumps({'sticky': True}))}",
        "updatedAfter": f"&updatedAfter={quote(after)}",
        "unread first": "&sortUnreadFirst=1",
    }


def _caller(size: int) -> str:
    return f"in-{size}-rooms"


def _named(size: int) -> str:
    return f"in {size:,} rooms"


def _asked(connections: int) -> str:
    return "median latency of one connection" if connections == 1 else f"time per call at {connections} connections"


def _cost(load: Load, connections: int) -> float:
    return load.p50 if connections == 1 else 1e6 / load.per_second


def _rooms(size: int) -> Iterable[dict]:
    """Groups of a few members, with tags, messages and the caller's own settings."""
    caller = _caller(size)
    for i in range(OTHERS):
        yield {
            "type": "user.updated",
            "user": dataset.user(i),
            "nickname": f"User {i}",
            "avatar_url": f"https://example.org/{i}",
        }
    for i in range(size):
        room, moment = f"{caller}-{i}", (YOUNGEST - i) * 1_000
        others = [dataset.user((i * (MEMBERS - 1) + k) % OTHERS) for k in range(MEMBERS - 1)]
        tags = sorted({dataset.TAGS[i % len(dataset.TAGS)], dataset.TAGS[i // 7 % len(dataset.TAGS)]})
        yield {"type": "room.updated", "room": room, "kind": "group", "name": f"Room {i}", "tags": tags, "time": moment}
        yield {"type": "member.joined", "room": room, "users": [caller, *others], "time": moment}
        yield {
            "type": "message.sent",
            "room": room,
            "sender": others[0],
            "id": room,
            "text": f"Message {i}",
            "time": moment,
        }
        # Every third room is read. Every other one is sticky, so that a page is full for both, with tags of the caller's own.
        if i % 3 == 0:
            yield {"type": "room.read", "room": room, "user": caller}
        if i % 2 == 0:
            yield {"type": "pref.updated", "room": room, "user": caller, "sticky": True, "tags": ["mine"]}


def _found(pod: Server, request: Request) -> int:
    """How many rooms a call finds; it has to be a full page of them, or all of few."""
    status, _, body = pod.ask(request)
    result = json.loads(body)["result"] if status == 200 else {}
    if not result or len(result["data"]) != min(20, result["totalCount"]) or not result["data"]:
        raise BenchError(f"{request.path}: {status} {body[:300]!r}")
    return result["totalCount"]


def _commands(group: str, redis: Redis, pod: Server, size: int, request: Request) -> Row:
    """Redis commands per call, those inside scripts included: the median of some, as the pod also works by itself."""
    calls: list[dict[str, int]] = []
    before = _counted(redis)
    for _ in range(CALLS):
        pod.ask(request)
        after = _counted(redis)
        calls.append({name: n - before.get(name, 0) for name, n in after.items()})
        before = after
    spent = {name: statistics.median_low(call.get(name, 0) for call in calls) for name in calls[-1]}
    # Looking costs two itself.
    reads = spent.pop(READS) - 2
    most = sorted(((n, name) for name, n in spent.items() if n), reverse=True)
    note = f"{reads} reads from sockets; " + ", ".join(f"{n} {name}" for n, name in most)
    return Row(group, _named(size), "commands/call", [sum(spent.values())], note=note)


def _counted(redis: Redis) -> dict[str, int]:
    counted = redis.calls()
    del counted["info"]
    return counted | {READS: int(redis.info("stats")["total_reads_processed"])}
