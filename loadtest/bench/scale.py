"""One, two and three pods on one Redis, and one, two and three masters of a Redis Cluster.

Where all of it shares a few cores, throughput can't grow with the processes. CPU time per request can be compared all
the same: that of all pods or masters together should stay, that of the busiest should fall to a half and a third. What
the busiest could do with a core to itself is then what the whole could do on machines of its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import dataset
from bench.calls import Request, app_toml
from bench.harness import BenchError, Env, Load, Redis, Row, Server, free_port

COUNTS = [1, 2, 3]
SLOTS = 16_384
WORKLOADS: dict[str, Callable[[int], list[Request]]] = {
    "Tencent, total": dataset.tencent_total,
    "native, one user": lambda users: dataset.native_unread(users, 1),
}


@dataclass
class Scaled(Load):
    """A run, and the CPU microseconds per request of each process."""

    pods: list[float]
    redis: list[float]


def run(env: Env) -> list[Row]:
    """Pods, then masters."""
    return [*_pods(env), *_masters(env)]


def _pods(env: Env) -> list[Row]:
    users = 200 if env.quick else 1_000
    redis = env.start_redis()
    # One worker each, so that three of them leave some of four cores to Redis and the clients.
    pods = [env.start_pod(app_toml(), redis.tcp_url, server__workers=1) for _ in range(max(COUNTS))]
    dataset.load(pods[0], dataset.people(users))
    rows = []
    for title, make in WORKLOADS.items():
        trials = {
            _named(count, "pod"): _trial(env, f"{title} {count} pods", pods[:count], [redis], make(users))
            for count in COUNTS
        }
        rows += _rows("pods on one Redis", "pods", title, env.interleaved(trials))
    env.stop(*pods, redis)
    return rows


def _masters(env: Env) -> list[Row]:
    users = 200 if env.quick else 1_000
    clusters = {count: _start_cluster(env, count) for count in COUNTS}
    pods = {}
    for count, masters in clusters.items():
        hosts = ",".join(f"127.0.0.1:{master.port}" for master in masters)
        pods[count] = env.start_pod(app_toml(), f"redis+cluster://{hosts}", server__workers=env.cores)
        dataset.load(pods[count], dataset.people(users))
    rows = []
    for title, make in WORKLOADS.items():
        trials = {
            _named(count, "master"): _trial(
                env, f"{title} {count} masters", [pods[count]], clusters[count], make(users)
            )
            for count in COUNTS
        }
        rows += _rows("masters of one cluster", "masters", title, env.interleaved(trials))
    return rows


def _named(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _start_cluster(env: Env, count: int) -> list[Redis]:
    """A cluster of masters only, the slots shared out evenly."""
    options = {"cluster_enabled": "yes", "cluster_node_timeout": 5_000}
    masters = [env.start_redis(unix=False, cluster_port=free_port(), **options) for _ in range(count)]
    for number, master in enumerate(masters):
        first, last = number * SLOTS // count, (number + 1) * SLOTS // count - 1
        master.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        master.call("CLUSTER", "ADDSLOTSRANGE", first, last)
        bus = masters[0].call("CONFIG", "GET", "cluster-port")[1].decode()
        if number:
            master.call("CLUSTER", "MEET", "127.0.0.1", masters[0].port, bus)
    deadline = time.monotonic() + 30
    while not all(_agreed(master, count) for master in masters):
        if time.monotonic() > deadline:
            raise BenchError(f"a cluster of {count} masters did not come about")
        time.sleep(0.1)
    return masters


def _agreed(master: Redis, count: int) -> bool:
    state = master.call("CLUSTER", "INFO").decode()
    return (
        "cluster_state:ok" in state and f"cluster_known_nodes:{count}\r" in state and f"cluster_size:{count}\r" in state
    )


def _trial(
    env: Env, label: str, pods: list[Server], redises: list[Redis], requests: list[Request]
) -> Callable[[int], Scaled]:
    """Has a wrk for each pod at the same time, 96 connections in all."""
    callers = [env.replayer(label, pod, requests, connections=96 // len(pods), threads=1) for pod in pods]

    def trial(seconds: int) -> Scaled:
        before = _cpu(pods, redises)
        loads = env.together(*(lambda caller=caller: caller(seconds) for caller in callers))
        after = _cpu(pods, redises)
        done = sum(load.requests for load in loads)
        spent = [(b - a) * 1e6 / done for a, b in zip(before, after, strict=True)]
        return Scaled(
            per_second=sum(load.per_second for load in loads),
            p50=max(load.p50 for load in loads),
            p99=max(load.p99 for load in loads),
            requests=done,
            pods=spent[: len(pods)],
            redis=spent[len(pods) :],
        )

    return trial


def _cpu(pods: list[Server], redises: list[Redis]) -> list[float]:
    return [pod.process.cpu_seconds() for pod in pods] + [redis.cpu_seconds() for redis in redises]


def _rows(title: str, what: str, workload: str, results: dict[str, list[Scaled]]) -> list[Row]:
    """Four figures for each number of processes, each against that of one."""
    figures: dict[str, tuple[str, Callable[[Scaled], float]]] = {
        "throughput": ("requests/s", lambda run: run.per_second),
        "CPU of all pods": ("µs/request", lambda run: sum(run.pods)),
        "CPU of all Redis": ("µs/request", lambda run: sum(run.redis)),
        "CPU of the busiest": ("µs/request", lambda run: max(run.pods if what == "pods" else run.redis)),
    }
    rows = []
    for figure, (unit, value) in figures.items():
        group = f"{title}: {workload}: {figure}{f' of the {what}' if figure.endswith('busiest') else ''}"
        some = [
            Row(
                group,
                name,
                unit,
                [value(run) for run in runs],
                facts={what: count, "figure": figure, "workload": workload},
            )
            for count, (name, runs) in zip(COUNTS, results.items(), strict=True)
        ]
        rows += [some[0], *(row.compared(some[0]) for row in some[1:])]
    return rows
