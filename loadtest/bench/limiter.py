"""What the rate limiter costs, and whether one app's flood is felt by another."""

from collections.abc import Callable

from bench import dataset
from bench.calls import LIMIT_OFF, LIMIT_ON, Request, app_toml
from bench.harness import BenchError, Env, Load, Row, Server, rate_note, throughput

# A limit as an app would have it, and ten times of it.
LIMIT, FLOOD = 200, 2_000
# The other app's rate: modest, and within its limit.
MODEST = 100
FLOODER, NEIGHBOUR = "flooder", "neighbour"


def run(env: Env) -> list[Row]:
    """Both questions."""
    return [*_cost(env), *_isolation(env)]


def _cost(env: Env) -> list[Row]:
    """Two pods on one Redis, the same but for the limit."""
    users = 200 if env.quick else 1_000
    redis = env.start_redis()
    pods = {
        "limiter off": env.start_pod(app_toml(limit=LIMIT_OFF), redis.tcp_url, server__workers=env.cores),
        "limiter on": env.start_pod(app_toml(limit=LIMIT_ON), redis.tcp_url, server__workers=env.cores),
    }
    dataset.load(pods["limiter on"], dataset.people(users))
    rows = []
    for title, requests in (
        ("Tencent, total", dataset.tencent_total(users)),
        ("Sendbird, nine keys", dataset.sendbird(users)),
    ):
        group = f"limiter's cost: {title}, 64 connections"
        loads = env.interleaved({name: env.replayer(f"{title} {name}", pod, requests) for name, pod in pods.items()})
        off, on = (throughput(group, name, some) for name, some in loads.items())
        rows += [off, on.compared(off, ">= 0.95")]
    if pods["limiter on"].metric("unread_rate_limited_total"):
        raise BenchError("the limiter refused calls that were to be within the limit")
    env.stop(*pods.values(), redis)
    return rows


def _isolation(env: Env) -> list[Row]:
    """One pod, two apps: the latency of the one, with and without the other's flood."""
    group = f"one app at {FLOOD:,}/s against its limit of {LIMIT}/s: p99 of another app"
    limit = f'{{ per_second = {LIMIT}, burst = {LIMIT}, scope = "cluster" }}'
    redis = env.start_redis()
    config = app_toml(FLOODER, limit) + app_toml(NEIGHBOUR, limit)
    pod = env.start_pod(config, redis.tcp_url, server__workers=env.cores)
    for app in (FLOODER, NEIGHBOUR):
        dataset.load(pod, [{"type": "message.sent", "sender": "bob", "to": "alice", "id": "1"}], app)
    asked = {
        app: [Request("POST", dataset.tencent_path(app), dataset.JSON, b'{"To_Account":"alice"}')]
        for app in (FLOODER, NEIGHBOUR)
    }
    calm = _caller(env, "neighbour", pod, asked[NEIGHBOUR], MODEST)
    flood = _caller(env, "flooder", pod, asked[FLOODER], FLOOD)
    refused = 0.0

    def beside_flood(seconds: int) -> Load:
        nonlocal refused
        before = pod.metric("unread_rate_limited_total")
        load, flooded = env.together(lambda: calm(seconds), lambda: flood(seconds))
        refused = (pod.metric("unread_rate_limited_total") - before) / flooded.requests
        return load

    loads = env.interleaved({"alone": calm, "beside the flood": beside_flood})
    if refused < 0.5:
        raise BenchError(f"the flood was not refused: only {refused:.0%} of its calls")
    alone, beside = (
        Row(group, name, "ms", [load.p99 for load in some], note=rate_note(MODEST, some))
        for name, some in loads.items()
    )
    beside.note += f", {refused:.0%} of the flood refused"
    return [alone, beside.compared(alone, "<= 1.5")]


def _caller(env: Env, name: str, pod: Server, requests: list[Request], rate: int) -> Callable[[int], Load]:
    return lambda seconds: env.oha(name, pod, requests, rate=rate, connections=16, seconds=seconds)
