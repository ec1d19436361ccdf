"""What messages cost: fan-out against a pipelined replay of the same script calls, and against bare HINCRBYs; import; supergroups."""

import hashlib
import json
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

from bench.calls import LIMIT_OFF, app_toml, native
from bench.dataset import load
from bench.harness import ROOT, BenchError, Env, Redis, Row, Server, built

SIZES = [10, 100, 1_000]
USERS = 3_000
# Messages in one request, each to another room as long as there are others.
BATCH = 50
CALLERS = 8
# Deliveries that are written down and made again, give or take.
RECORDED = 40_000
# Arguments of the script of a delivery, as its header has them.
TOLD_OF_ROOM, TOLD_OF_USER = 12, 4
DELIVER = (ROOT / "lua" / "deliver.lua").read_bytes()
DELIVER_SHA = hashlib.sha1(DELIVER).hexdigest()
SUPERGROUPS = [10, 100_000]
JOINED_AT_ONCE = 5_000
IMPORTED = 100_000


def run(env: Env) -> list[Row]:
    """Fan-out to 10, 100 and 1,000; import; supergroups."""
    rows = []
    for size in SIZES:
        rows += fan_out(env, size)
        env.stop_all()
    rows += imported(env)
    env.stop_all()
    return rows + supergroups(env)


def user(number: int) -> str:
    """A user's id."""
    return f"user-{number % USERS:05}"


class Groups:
    """Some groups of one size, and messages to them in turn."""

    def __init__(self, size: int):
        self.size, self.count = size, max(4, min(200, 40_000 // size))
        self.serial, self.lock = 0, threading.Lock()

    def members(self, room: int) -> list[str]:
        """Who is in it; the first one writes."""
        return [user(room * 37 + i) for i in range(self.size)]

    def made(self) -> list[dict]:
        """The events that make them."""
        events = []
        for room in range(self.count):
            name = f"group-{self.size}-{room}"
            events.append({"type": "room.updated", "room": name, "tags": ["work"], "custom_type": "support"})
            events.append({"type": "member.joined", "room": name, "users": self.members(room)})
        return events

    def batch(self) -> list[dict]:
        """The next messages."""
        with self.lock:
            first, self.serial = self.serial, self.serial + BATCH
        return [
            {
                "type": "message.sent",
                "room": f"group-{self.size}-{n % self.count}",
                "id": f"m{n}",
                "sender": user(n % self.count * 37),
                "text": "hello",
            }
            for n in range(first, first + BATCH)
        ]


def fan_out(env: Env, size: int) -> list[Row]:
    """The rows of one size of group."""
    redis = env.start_redis()
    redis.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    pod = env.start_pod(app_toml(limit=LIMIT_OFF), redis.url)
    groups = Groups(size)
    load(pod, groups.made())
    load(pod, groups.batch())
    copy = env.start_redis()
    rates, replays, costs, bares, pods = [], [], [], [], []
    for number in range(env.rounds):
        copied(redis, copy)
        calls, told = recorded(redis, pod, groups)
        copy.call("SCRIPT", "LOAD", DELIVER)
        seconds, _ = piped(copy, calls)
        replays.append(told / seconds)
        _, cpu = piped(copy, hincrbys(groups, told))
        bares.append(cpu / told * 1e6)
        rate, cpu, pod_cpu = posted(env, redis, pod, groups)
        rates.append(rate)
        costs.append(cpu)
        pods.append(pod_cpu)
        env.say(
            f"round {number + 1}/{env.rounds}, to {size}: {rates[-1]:,.0f} deliveries/s, replay {replays[-1]:,.0f}/s; "
            f"Redis {costs[-1]:.1f} us each, HINCRBYs {bares[-1]:.1f} us; pod {pods[-1]:.1f} us"
        )
    group = f"fan-out to {size:,}"
    replay = Row(group, "replay of its deliver calls, pipelined", "deliveries/s", replays)
    bare = Row(group, "bare HINCRBYs, pipelined", "Redis us/delivery", bares)
    return [
        replay,
        Row(group, "POST /v1/events", "deliveries/s", rates).compared(replay, ">= 0.8"),
        bare,
        Row(group, "POST /v1/events, all of it", "Redis us/delivery", costs).compared(bare, "<= 2.5"),
        Row(group, "POST /v1/events, the pod", "pod us/delivery", pods),
    ]


def copied(redis: Redis, copy: Redis) -> None:
    """Makes the one hold what the other holds."""
    copy.call("REPLICAOF", "127.0.0.1", redis.port)
    deadline = time.monotonic() + 60
    while copy.info("replication").get("master_link_status") != "up":
        if time.monotonic() > deadline:
            raise BenchError("the data can't be copied")
        time.sleep(0.05)
    redis.call("WAIT", 1, 5_000)
    copy.call("REPLICAOF", "NO", "ONE")


def posted(env: Env, redis: Redis, pod: Server, groups: Groups) -> tuple[float, float, float]:
    """Sends messages for a while: deliveries per second, and what Redis and the pod spend on each, in microseconds."""
    failed: list[str] = []
    until = time.monotonic() + env.seconds

    def caller() -> None:
        while time.monotonic() < until and not failed:
            status, _, body = pod.ask(native("/v1/events", groups.batch()))
            if status != 200 or json.loads(body)["rejected"]:
                failed.append(f"{status} {body[:300]!r}")

    told, cpu, pod_cpu, start = counted(pod), redis.cpu_seconds(), pod.process.cpu_seconds(), time.monotonic()
    callers = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    if failed:
        raise BenchError(f"messages were refused: {failed[0]}")
    seconds, told = time.monotonic() - start, counted(pod) - told
    cpu, pod_cpu = redis.cpu_seconds() - cpu, pod.process.cpu_seconds() - pod_cpu
    return told / seconds, cpu / told * 1e6, pod_cpu / told * 1e6


def counted(pod: Server) -> float:
    """Deliveries so far."""
    return pod.metric("unread_deliveries_total")


def recorded(redis: Redis, pod: Server, groups: Groups) -> tuple[bytes, int]:
    """The deliver calls of some messages, as they go over the wire, and how many users they tell."""
    told = 0
    calls = []
    with socket.create_connection(("127.0.0.1", redis.port), timeout=30) as monitor:
        monitor.sendall(b"CLIENT NO-EVICT ON\r\nMONITOR\r\n")
        lines = monitor.makefile("rb")
        while lines.readline() != b"+OK\r\n" or lines.readline() != b"+OK\r\n":
            pass
        redis.call("CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
        while told < RECORDED:
            load(pod, groups.batch())
            redis.call("ECHO", f"seen-{groups.serial}")
            while True:
                line = lines.readline()
                if f'"seen-{groups.serial}"'.encode() in line:
                    break
                if DELIVER_SHA.encode() in line and b" lua] " not in line:
                    words = [unescaped(word) for word in re.findall(rb'"((?:[^"\\]|\\.)*)"', line)]
                    # So many words are not about one user: the command, its keys and what is said of the room.
                    told += (len(words) - 3 - int(words[2]) - TOLD_OF_ROOM) // TOLD_OF_USER
                    calls.append(wire(words))
    return b"".join(calls), told


ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def unescaped(word: bytes) -> bytes:
    """A word as MONITOR shows it, as it was."""

    def one(found: re.Match) -> bytes:
        text = found[1]
        return bytes([int(text[1:], 16)]) if len(text) == 3 else ESCAPES.get(text, text)

    return re.sub(rb"\\(x[0-9a-f]{2}|.)", one, word)


def wire(words: list[bytes]) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def hincrbys(groups: Groups, told: int) -> bytes:
    """What so many deliveries come to, without any record of what has been delivered."""
    out, room = [], 0
    while len(out) < told:
        fields = [f"room:group-{groups.size}-{room}", "messages:group", "messages:group:support", "tag:work"]
        for member in groups.members(room):
            key = f"unread:v1:{{bench:u:{member}}}:counts".encode()
            out.append(b"".join(wire([b"HINCRBY", key, field.encode(), b"1"]) for field in fields))
        room = (room + 1) % groups.count
    return b"".join(out[:told])


def piped(redis: Redis, commands: bytes) -> tuple[float, float]:
    """Sends commands by `redis-cli --pipe`: seconds, and seconds of Redis' CPU; without what it takes to send nothing."""
    nothing_seconds, nothing_cpu = sent(redis, wire([b"PING"]))
    seconds, cpu = sent(redis, commands)
    return seconds - nothing_seconds, cpu - nothing_cpu


def sent(redis: Redis, commands: bytes) -> tuple[float, float]:
    """Sends commands by `redis-cli --pipe`: seconds, and seconds of Redis' CPU."""
    cpu, start = redis.cpu_seconds(), time.monotonic()
    done = subprocess.run(
        ["redis-cli", "-p", str(redis.port), "--pipe"], input=commands, capture_output=True, timeout=300, check=False
    )
    seconds = time.monotonic() - start
    if b"errors: 0" not in done.stdout:
        raise BenchError(f"redis-cli --pipe: {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
    return seconds, redis.cpu_seconds() - cpu


def imported(env: Env) -> list[Row]:
    """`unread import` of messages to groups of ten."""
    redis = env.start_redis()
    groups = Groups(10)
    count = IMPORTED // 10 if env.quick else IMPORTED
    rates = []
    notes = []
    for number in range(env.rounds):
        redis.call("FLUSHALL")
        groups.serial = 0
        file = Path(env.work) / "import.ndjson"
        with file.open("w") as out:
            for event in groups.made():
                out.write(json.dumps(event) + "\n")
            for _ in range(count // BATCH):
                for event in groups.batch():
                    out.write(json.dumps(event) + "\n")
        command = [built(ROOT, "unread"), "import", "--app", "bench", "--redis-url", redis.url, "--json", file]
        done = subprocess.run(command, capture_output=True, timeout=600, check=False)
        if done.returncode != 0:
            raise BenchError(f"import: {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
        sums = json.loads(done.stdout)
        rates.append(sums["events_per_second"])
        notes.append(f"{sums['deliveries_per_second']:,.0f}")
        env.say(f"round {number + 1}/{env.rounds}, import: {rates[-1]:,.0f} events/s, {notes[-1]} deliveries/s")
    note = f"{count:,} messages to groups of 10; {', '.join(notes)} deliveries/s"
    return [Row("import", "unread import", "events/s", rates, note=note)]


def supergroups(env: Env) -> list[Row]:
    """A message into a supergroup of 10 and of 100,000: commands, and Redis' CPU time."""
    redis = env.start_redis()
    pod = env.start_pod(app_toml(limit=LIMIT_OFF), redis.url)
    sizes = [SUPERGROUPS[0], 1_000 if env.quick else SUPERGROUPS[1]]
    messages = 200 if env.quick else 1_000
    for size in sizes:
        events = [{"type": "room.updated", "room": f"super-{size}", "kind": "supergroup"}]
        for first in range(0, size, JOINED_AT_ONCE):
            names = [f"member-{n:06}" for n in range(first, min(size, first + JOINED_AT_ONCE))]
            events.append({"type": "member.joined", "room": f"super-{size}", "users": names})
        for event in events:
            load(pod, [event])
    # While nobody calls, the pod's sweep finishes what the joinings left; its commands are not the messages'.
    time.sleep(6)
    results: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for number in range(env.rounds):
        for size in sizes:
            calls, cpu = sum(redis.calls().values()), redis.cpu_seconds()
            for n in range(messages):
                event = {
                    "type": "message.sent",
                    "room": f"super-{size}",
                    "id": f"{number}-{n}",
                    "sender": "member-000003",
                    "text": "hello",
                }
                load(pod, [event])
            spent = (redis.cpu_seconds() - cpu) / messages * 1e6
            results[size].append(((sum(redis.calls().values()) - calls) / messages, spent))
            env.say(f"round {number + 1}/{env.rounds}, supergroup of {size:,}: {results[size][-1]}")
    rows = []
    for at, (unit, goal) in enumerate([("commands/message", "<= 1.1"), ("Redis us/message", "<= 1.3")]):
        first, second = (
            Row("supergroup", f"a message to {size:,}, {unit.split('/')[0]}", unit, [one[at] for one in results[size]])
            for size in sizes
        )
        rows += [first, second.compared(first, goal)]
    return rows
