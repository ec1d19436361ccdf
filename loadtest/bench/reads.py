"""The vendors' counts and the native totals against a bare actix-web handler of the same request and reply, and the
Tencent total against what somebody would use instead.
"""

import itertools
import json
from collections.abc import Callable

from bench import dataset, peers
from bench.calls import Request, app_toml
from bench.harness import (
    PEERS,
    BenchError,
    Env,
    Load,
    Missing,
    Redis,
    Row,
    Server,
    built,
    free_port,
    missing,
    rate_note,
    throughput,
)

CONNECTIONS = [64, 256]
MANY = 100
# Of these the batch is what counts; how they stand to the ceiling is only told.
WITHOUT_GOAL = ("native_one", "native_many")

# By the names of the files that the ceiling reads its replies from.
ENDPOINTS: dict[str, tuple[str, Callable[[int], list[Request]]]] = {
    "tencent_total": ("Tencent, total", dataset.tencent_total),
    "tencent_peers": ("Tencent, ten peers", dataset.tencent_peers),
    "sendbird": ("Sendbird, nine keys", dataset.sendbird),
    "imkit_badges": ("IMKIT, badges by five tags", dataset.imkit_badges),
    "native_one": ("native, one user", lambda users: dataset.native_unread(users, 1)),
    "native_many": ("native, 100 users", lambda users: dataset.native_unread(users, MANY)),
}


def run(env: Env) -> list[Row]:
    """All pairs, then the peers."""
    users = 200 if env.quick else 1_000
    redis = env.start_redis()
    pod = env.start_pod(app_toml(), redis.tcp_url, server__workers=env.cores)
    dataset.load(pod, dataset.people(users))
    requests = {name: make(users) for name, (_, make) in ENDPOINTS.items()}
    ceiling = _start_ceiling(env, pod, {name: some[0] for name, some in requests.items()})

    rows: list[Row] = []
    for name, (title, _) in ENDPOINTS.items():
        pairs = [_pair(env, title, ceiling, pod, requests[name], connections) for connections in CONNECTIONS]
        ours = pairs[0][1]
        some = [*itertools.chain.from_iterable(pairs), *_latency(env, title, ceiling, pod, requests[name], ours.median / 2)]
        if name in WITHOUT_GOAL:
            for row in some:
                row.goal = ""
        rows += some
    rows += _batch(rows)
    env.stop(ceiling)
    rows += _peers(env, pod, redis, users)
    if refused := pod.metric("unread_rate_limited_total"):
        raise BenchError(f"the limiter refused {refused:.0f} calls")
    return rows


def _start_ceiling(env: Env, pod: Server, samples: dict[str, Request]) -> Server:
    """Starts it with the replies that the pod itself gives, after a look at each."""
    replies = env.work / "replies"
    replies.mkdir()
    for name, request in samples.items():
        status, headers, body = pod.ask(request)
        said = json.loads(body)
        if status != 200 or said.get("ErrorCode") or not any(char in body.decode() for char in "123456789"):
            raise BenchError(f"{name}: not a reply with something unread: {status} {body[:300]!r}")
        (replies / name).write_bytes(body)
        # actix-web adds these by itself.
        own = {key: value for key, value in headers.items() if key not in ("content-length", "date", "connection")}
        (replies / f"{name}.headers").write_text("".join(f"{key}: {value}\n" for key, value in own.items()))
    port = free_port()
    argv = [built(PEERS / "ceiling", "ceiling"), port, env.cores, replies]
    ceiling = env.start_server(argv, port, Request("GET", "/"))
    for name, request in samples.items():
        if ceiling.ask(request)[2] != (replies / name).read_bytes():
            raise BenchError(f"{name}: the ceiling answers something else")
    return ceiling


def _pair(env: Env, title: str, ceiling: Server, pod: Server, requests: list[Request], connections: int) -> list[Row]:
    group = f"{title}, {connections} connections"
    loads = env.interleaved(
        {
            "ceiling": env.replayer(f"{title} ceiling", ceiling, requests, connections),
            "unread": env.replayer(f"{title} unread", pod, requests, connections),
        }
    )
    bare, ours = (throughput(group, name, some) for name, some in loads.items())
    for row in (bare, ours):
        row.facts = {"endpoint": title, "connections": connections}
    return [bare, ours.compared(bare, ">= 0.75")]


def _latency(env: Env, title: str, ceiling: Server, pod: Server, requests: list[Request], rate: float) -> list[Row]:
    group = f"{title}, p99 at half of the peak"
    # oha can't vary headers, and IMKIT's tokens are in one: those calls are all of one user.
    asked = [request for request in requests if request.headers == requests[0].headers]

    def at_rate(name: str, server: Server) -> Callable[[int], Load]:
        return lambda seconds: env.oha(f"{title} p99 {name}", server, asked, rate=rate, seconds=seconds)

    loads = env.interleaved({"ceiling": at_rate("ceiling", ceiling), "unread": at_rate("unread", pod)})
    bare, ours = (
        Row(group, name, "ms", [load.p99 for load in some], note=rate_note(rate, some)) for name, some in loads.items()
    )
    if len(asked) == 1:
        ours.note += ", all of one user"
    return [bare, ours.compared(bare, "<= 3")]


def _batch(rows: list[Row]) -> list[Row]:
    """One call for many users against one call each, in users per second, from what was measured already."""
    group = f"native, users per second, {CONNECTIONS[0]} connections"

    def ours(title: str) -> Row:
        return next(r for r in rows if r.name == "unread" and r.group == f"{title}, {CONNECTIONS[0]} connections")

    one = Row(group, "one user a call", "users/s", ours("native, one user").runs)
    many = [run * MANY for run in ours("native, 100 users").runs]
    return [one, Row(group, f"{MANY} users a call", "users/s", many).compared(one, ">= 5")]


def _peers(env: Env, pod: Server, redis: Redis, users: int) -> list[Row]:
    group = f"Tencent, total, against peers, {CONNECTIONS[0]} connections"
    trials = {"unread": env.replayer("peers unread", pod, dataset.tencent_total(users), CONNECTIONS[0])}
    absent: list[Row] = []
    expected = json.loads(pod.ask(dataset.tencent_total(users)[0])[2])["AllC2CUnreadMsgNum"]
    for name, start in peers.PEERS_BY_NAME.items():
        requests = peers.requests(name, users)
        try:
            server = start(env, redis)
            _same_answer(server, requests[0], expected)
        except (Missing, BenchError, OSError) as why:
            env.say(f"MISSING: {name}: {why}")
            absent.append(missing(group, name, "requests/s", str(why)))
            continue
        trials[name] = env.replayer(f"peers {name}", server, requests, CONNECTIONS[0])
    loads = env.interleaved(trials)
    rows = {name: throughput(group, name, some) for name, some in loads.items()}
    for row in [*rows.values(), *absent]:
        row.facts = {"peer": row.name}
    ours = rows.pop("unread")
    compared = [
        Row(group, f"unread against {name}", "requests/s", ours.runs).compared(peer, ">= 1")
        for name, peer in rows.items()
    ]
    return [ours, *rows.values(), *absent, *compared]


def _same_answer(server: Server, request: Request, expected: int) -> None:
    status, _, body = server.ask(request)
    said = json.loads(body) if status == 200 else {}
    # The second is webdis' form.
    if str(expected) not in (str(said.get("AllC2CUnreadMsgNum")), said.get("HGET")):
        raise BenchError(f"it answers {status} {body[:200]!r}, not {expected}")
