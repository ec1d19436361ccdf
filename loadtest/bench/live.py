"""Streams of counts: how soon a change is on the screen, what a stream takes of a pod, and what an update takes of its CPU.

The clients are one thread of this process, which shares the cores with the pod: its share of a time is in the figures.
"""

import contextlib
import json
import re
import resource
import selectors
import socket
import statistics
import threading
import time
from pathlib import Path

from bench import dataset
from bench.calls import SERVER_KEY, Request, app_toml, native
from bench.harness import BenchError, Env, Row, Server

WATCHERS = [100, 1_000]
STREAMS = 2_000
# Within this time everything is shown, whatever was lost.
PROMISE = 15
# Between two messages to all watchers, and between two to one of them.
TO_ALL, TO_ONE = 1.0, 0.05


class Stream:
    """One connection that watches one user."""

    def __init__(self, pod: Server, user: str):
        self.socket = socket.create_connection(("127.0.0.1", pod.port), timeout=30)
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {SERVER_KEY}"}
        self.socket.sendall(Request("GET", f"/v1/live?users={user}", headers).wire(pod.host))
        self.socket.setblocking(False)
        self.input = b""
        # The total that was shown last, and when each total was shown first.
        self.total = -1
        self.shown: dict[int, float] = {}

    def read(self) -> None:
        """Takes what has come."""
        data = self.socket.recv(65_536)
        now = time.monotonic()
        if not data:
            raise BenchError("a stream has ended")
        *blocks, self.input = (self.input + data).split(b"\n\n")
        for block in blocks:
            if found := re.search(rb'event: counts\n.*"messages":\{"total":(\d+)', block, re.DOTALL):
                total = int(found[1])
                for newer in range(self.total + 1, total + 1):
                    self.shown[newer] = now
                self.total = total


class Streams:
    """Streams of a pod, one for each user."""

    def __init__(self, pod: Server, users: list[str]):
        self.selector = selectors.DefaultSelector()
        self.all: list[Stream] = []
        for user in users:
            stream = Stream(pod, user)
            self.all.append(stream)
            self.selector.register(stream.socket, selectors.EVENT_READ, stream)
        self.until(0)

    def until(self, total: int) -> None:
        """Reads until every stream has shown this total."""
        deadline = time.monotonic() + PROMISE
        while any(stream.total < total for stream in self.all):
            if time.monotonic() > deadline:
                late = sum(stream.total < total for stream in self.all)
                raise BenchError(f"{late} streams have not shown {total} within {PROMISE} s")
            self.read(0.05)

    def read(self, patience: float) -> None:
        """Reads what comes, waiting for it so long at most."""
        for key, _ in self.selector.select(patience):
            key.data.read()

    def close(self) -> None:
        """Ends them."""
        for stream in self.all:
            stream.socket.close()
        self.selector.close()


def run(env: Env) -> list[Row]:
    """Times and CPU at a hundred and at a thousand watchers, then memory."""
    with contextlib.suppress(ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = []
    for count in WATCHERS:
        rows += _times(env, count)
    return [*rows, *_memory(env)]


def _times(env: Env, count: int) -> list[Row]:
    """A group of all watchers, and a direct room of each."""
    redis = env.start_redis()
    pod = env.start_pod(app_toml(), redis.url)
    users = [dataset.user(n) for n in range(count)]
    dataset.load(pod, [
        {"type": "room.updated", "room": "all", "kind": "group"},
        {"type": "member.joined", "room": "all", "users": ["writer", *users]},
    ])
    times = max(3, env.seconds * env.rounds // 2)
    unwatched = _cpu_of_messages(pod, times)
    total = times

    streams = Streams(pod, users)
    streams.until(total)
    updates, cpu = pod.metric("unread_live_updates_total"), pod.process.cpu_seconds()
    sent = _send(pod, streams, times, TO_ALL, lambda n: {"room": "all", "id": f"watched-{n}"})
    streams.until(total + times)
    updates, cpu = pod.metric("unread_live_updates_total") - updates, pod.process.cpu_seconds() - cpu
    to_all = [
        (stream.shown[total + 1 + n] - at) * 1000 for n, at in enumerate(sent) for stream in streams.all
    ]
    total += times

    ones = int(times * TO_ALL / TO_ONE)
    sent = _send(pod, streams, ones, TO_ONE, lambda n: {"to": users[n % count], "id": f"one-{n}"})
    expected = [total + len(range(n, ones, count)) for n in range(count)]
    deadline = time.monotonic() + PROMISE
    while any(stream.total < wanted for stream, wanted in zip(streams.all, expected, strict=True)):
        if time.monotonic() > deadline:
            raise BenchError("a message to one was not shown in time")
        streams.read(0.05)
    to_one = [(streams.all[n % count].shown[total + 1 + n // count] - at) * 1000 for n, at in enumerate(sent)]
    streams.close()
    env.stop(pod, redis)

    rows = []
    for what, milliseconds in (("a message to one of them", to_one), ("a message to all of them", to_all)):
        group = f"event to screen, {count:,} watchers on one pod: {what}"
        percent = statistics.quantiles(milliseconds, n=100)
        for name, value in (("p50", percent[49]), ("p99", percent[98])):
            rows.append(Row(group, name, "ms", [value], note=f"{len(milliseconds):,} times"))
            env.say(f"{group}: {name} {value:.1f} ms")
    each = (cpu - unwatched) * 1e6 / updates
    note = f"{updates:,.0f} updates; without streams the same messages took {unwatched * 1000:.0f} ms in all"
    env.say(f"{count:,} watchers: {each:.0f} µs of CPU an update; {note}")
    rows.append(Row("CPU of the pod for an update", f"{count:,} watchers", "µs", [each], note=note))
    return rows


def _message(more: dict) -> dict:
    return {"type": "message.sent", "sender": "writer"} | more


def _cpu_of_messages(pod: Server, times: int) -> float:
    """What as many messages to everybody take of the pod while nobody watches, until all have them."""
    before = pod.process.cpu_seconds()
    for n in range(times):
        dataset.load(pod, [_message({"room": "all", "id": f"unwatched-{n}"})])
    return pod.process.cpu_seconds() - before


def _send(pod: Server, streams: Streams, times: int, every: float, more) -> list[float]:
    """Sends messages while the streams are read; when each was sent."""
    sent, failures = [], []

    def sender() -> None:
        begun = time.monotonic()
        for n in range(times):
            time.sleep(max(0, begun + n * every - time.monotonic()))
            sent.append(time.monotonic())
            status, _, body = pod.ask(native("/v1/events", [_message(more(n))]))
            if status != 200 or json.loads(body)["rejected"]:
                failures.append(body[:300])

    thread = threading.Thread(target=sender)
    thread.start()
    while thread.is_alive():
        streams.read(0.02)
    thread.join()
    if failures:
        raise BenchError(f"a message was refused: {failures[0]!r}")
    return sent


def _memory(env: Env) -> list[Row]:
    """What two thousand streams take of the pod's memory: quiet ones, and those that have shown something."""
    redis = env.start_redis()
    pod = env.start_pod(app_toml(), redis.url)
    users = [dataset.user(n) for n in range(STREAMS)]
    dataset.load(pod, ({"type": "message.sent", "sender": "writer", "to": user, "id": "first"} for user in users))
    # What the pod takes for streams as such is there.
    Streams(pod, users[:10]).close()
    deadline = time.monotonic() + 10
    while pod.metric("unread_live_streams") > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    before = _resident(pod)
    streams = Streams(pod, users)
    streams.until(1)
    quiet = (_resident(pod) - before) / STREAMS
    for n in range(3):
        events = ({"type": "message.sent", "sender": "writer", "to": user, "id": f"later-{n}"} for user in users)
        dataset.load(pod, events)
        streams.until(2 + n)
    used = (_resident(pod) - before) / STREAMS
    streams.close()
    group = f"memory of the pod for a stream, {STREAMS:,} over Server-Sent Events"
    env.say(f"{group}: {quiet:,.0f} bytes, {used:,.0f} after three changes")
    return [
        Row(group, "that has shown the counts once", "bytes", [quiet], goal=f"<= {16 * 1024}"),
        Row(group, "that has shown three changes", "bytes", [used]),
    ]


def _resident(pod: Server) -> int:
    status = Path(f"/proc/{pod.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
