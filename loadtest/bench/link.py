"""The pod's own Redis link against the multiplexed connection of the `redis` crate: `make bench-link`.

Two builds of the pod, at one Redis with the same data. Calls per second are diluted by all that shares the cores: wrk, Redis and
the HTTP of the pod. The CPU time of a call is the pod's alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench import dataset
from bench.harness import ROOT, BenchError, Env, Load, Request, Row, Server, app_toml, built

CONNECTIONS = 64
# A list of many rooms is the largest reply that a pod reads.
LISTERS, ROOMS = 20, 1_000
# At least so much more CPU time for each call of the other build.
GOAL = ">= 1.2"


@dataclass
class Trial:
    """What one run came to."""

    load: Load
    microseconds: float

    def __str__(self) -> str:
        return f"{self.load.per_second:,.0f}/s, {self.microseconds:.1f} µs"


def run(env: Env) -> list[Row]:
    """Ten peers and nine keys, by which the link is judged, and a list of rooms."""
    users = 200 if env.quick else 500
    own = built(ROOT, "unread")
    redis = env.start_redis()
    binaries = {"own": own, "crate": own.with_name("unread-crate-link")}
    pods = {
        name: env.start_pod(app_toml(), redis.tcp_url, binary, server__workers=env.cores)
        for name, binary in binaries.items()
    }
    dataset.load(pods["own"], dataset.people(users))
    dataset.load(pods["own"], _rooms())
    lists = [Request("GET", "/rooms?limit=20", dataset.imkit_headers(dataset.user(n))) for n in range(LISTERS)]
    rows: list[Row] = []
    for title, requests, goal in (
        ("ten peers", dataset.tencent_peers(users), GOAL),
        ("nine keys", dataset.sendbird(users), GOAL),
        (f"list of {ROOMS:,} rooms", lists, ""),
    ):
        for pod in pods.values():
            if pod.ask(requests[0])[0] != 200:
                raise BenchError(f"{title}: {pod.ask(requests[0])}")
        trials = env.interleaved({name: _trial(env, f"{title} {name}", pod, requests) for name, pod in pods.items()})
        rows += _rows(f"Redis link, {title}, {CONNECTIONS} connections", trials, goal)
    return rows


def _rooms() -> list[dict]:
    """Rooms for the users that list them."""
    events = []
    for n in range(LISTERS):
        members = [dataset.user(n), dataset.user(n + LISTERS)]
        for number in range(ROOMS):
            room = f"list-{n}-{number}"
            events.append({"type": "room.updated", "room": room, "kind": "group", "name": f"Room {number}"})
            events.append({"type": "member.joined", "room": room, "users": members})
            events.append({"type": "message.sent", "room": room, "sender": members[1], "id": room})
    return events


def _trial(env: Env, label: str, pod: Server, requests: list[Request]) -> Callable[[int], Trial]:
    replay = env.replayer(label, pod, requests, CONNECTIONS)

    def trial(seconds: int) -> Trial:
        before = pod.process.cpu_seconds()
        load = replay(seconds)
        return Trial(load, (pod.process.cpu_seconds() - before) / load.requests * 1e6)

    return trial


def _rows(group: str, trials: dict[str, list[Trial]], goal: str) -> list[Row]:
    calls = {name: Row(group, name, "requests/s", [t.load.per_second for t in some]) for name, some in trials.items()}
    cpu = {name: Row(group, f"{name}, CPU", "µs/call", [t.microseconds for t in some]) for name, some in trials.items()}
    calls["own"].compared(calls["crate"])
    cpu["crate"].compared(cpu["own"], goal)
    return [*calls.values(), *cpu.values()]
