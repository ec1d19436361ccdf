"""Streams of counts: how soon a change is on the screen, what an update takes of the CPU, and what a stream takes of memory. Beside
them the same of peers.

The clients are one thread of this process, and who sends is another; they share the cores with the servers: their share of a time
is in the figures.
"""

import contextlib
import functools
import random
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import dataset
from bench.harness import BenchError, Env, Missing, Row, missing
from bench.pushers import PUSHERS, Nchan, Numbers, Peer, Unread, Ws
from bench.streams import Streams

WATCHERS = [100, 1_000]
# Of ours and of the peers; and the most of ours, which the pod is then set up for.
STREAMS, MOST = 2_000, 10_000
# So many of them change at once.
AT_ONCE = 500
# A stream's share of the files that a process may have open.
SHARE = 0.75
# Between two messages to all watchers, and between two to one of them: so long on the average, from half to one and a half of it
# by chance, the same for all. At even distances messages would always meet the same moment between the beats of a server's own timers.
TO_ALL, TO_ONE = 1.0, 0.05
# Messages to all that don't count, before.
WARM = 3
PERCENTILES = {"p50": 49, "p99": 98}

# What happens, and whose numbers are what by it.
Change = tuple[dict, Numbers]


def run(env: Env) -> list[Row]:
    """Times and CPU at a hundred and at a thousand watchers, then memory."""
    files = _open_files()
    rows: list[Row] = []
    for count in WATCHERS:
        for name, start in PUSHERS.items():
            units = dict.fromkeys(_times_groups(count), "ms") | {_cpu_group(count): "µs"}
            rows += _measured(env, name, start, units, functools.partial(_times, env, count, name))
    # Whoever reads the number, a connection is the same.
    held = {
        "unread": Unread,
        "nchan": functools.partial(Nchan, reads=False),
        "Node ws": functools.partial(Ws, reads=False),
    }
    for name, start in held.items():
        units = {_memory_group(STREAMS): "bytes"}
        rows += _measured(env, name, start, units, functools.partial(_memory, env, STREAMS, name))
    rows += _most(env, files)
    # A group's rows stand together, whoever they are of.
    groups = list(dict.fromkeys(row.group for row in rows))
    return sorted(rows, key=lambda row: groups.index(row.group))


def _open_files() -> int:
    """Lets this process, and those that it starts, have as many files open as the system allows."""
    with contextlib.suppress(ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST * 2 if limit == resource.RLIM_INFINITY else limit


def _measured(
    env: Env,
    name: str,
    start: Callable[[Env], Unread | Peer],
    units: dict[str, str],
    measure: Callable[[Unread | Peer], list[Row]],
) -> list[Row]:
    """What was measured; or, in groups with these units, that a peer is not here."""
    try:
        try:
            pusher = start(env)
        except (Missing, BenchError, OSError) as why:
            if name == "unread":
                raise
            env.say(f"MISSING: {name}: {why}")
            return [missing(group, name, unit, str(why)) for group, unit in units.items()]
        return measure(pusher)
    finally:
        env.stop_all()


def _times_groups(count: int) -> list[str]:
    return [f"event to screen, {count:,} watchers: a message to {whom} of them" for whom in ("one", "all")]


def _cpu_group(count: int) -> str:
    return f"CPU of all that serves for an update, {count:,} watchers"


def _memory_group(count: int) -> str:
    return f"memory for a stream, of {count:,}"


def _times(env: Env, count: int, name: str, pusher: Unread | Peer) -> list[Row]:
    """A group of all watchers, and a direct room of each."""
    users = [dataset.user(n) for n in range(count)]
    times = max(3, env.seconds * env.rounds // 2)

    def to_all(first: int, messages: int) -> list[Change]:
        return [
            (_message({"room": "all", "id": f"to-all-{n}"}), dict.fromkeys(users, n))
            for n in range(first, first + messages)
        ]

    unwatched = (0.0, 0.0)
    if pusher.pod:
        dataset.load(
            pusher.pod,
            [
                {"type": "room.updated", "room": "all", "kind": "group"},
                {"type": "member.joined", "room": "all", "users": ["writer", *users]},
            ],
        )
        # What as many messages to everybody take while nobody watches, until all have them.
        for event, _ in to_all(1, WARM):
            dataset.load(pusher.pod, [event])
        before = _cpu(pusher)
        for event, _ in to_all(WARM + 1, times):
            dataset.load(pusher.pod, [event])
        unwatched = _since(before, pusher)
    total = WARM + times
    streams = pusher.watch(dict.fromkeys(users, total))
    _send(pusher, streams, to_all(total + 1, WARM), TO_ONE)
    total += WARM

    updates, before = streams.updates, _cpu(pusher)
    milliseconds_to_all = _send(pusher, streams, to_all(total + 1, times), TO_ALL)
    total += times
    updates = streams.updates - updates
    cpu, redis = (all_of_it - less for all_of_it, less in zip(_since(before, pusher), unwatched, strict=True))

    milliseconds_to_one = _send(
        pusher,
        streams,
        [
            (_message({"to": users[n % count], "id": f"to-one-{n}"}), {users[n % count]: total + 1 + n // count})
            for n in range(int(times * TO_ALL / TO_ONE))
        ],
        TO_ONE,
    )
    streams.close()

    rows = []
    for group, milliseconds in zip(_times_groups(count), (milliseconds_to_one, milliseconds_to_all), strict=True):
        percent = statistics.quantiles(milliseconds, n=100)
        for percentile, place in PERCENTILES.items():
            row = Row(group, f"{name}: {percentile}", "ms", [percent[place]], note=f"{len(milliseconds):,} times")
            row.facts = {"screen": name, "watchers": count, "to": group.rpartition(": ")[2], "percentile": percentile}
            rows.append(row)
        env.say(f"{group}: {name}: " + ", ".join(f"{row.name[-3:]} {row.median:.1f} ms" for row in rows[-2:]))
    each = cpu * 1e6 / updates
    note = f"{updates:,.0f} updates; beside it {redis * 1e6 / updates:.0f} µs of Redis"
    if pusher.pod:
        note += f"; not in it: the {unwatched[0] * 1000:.0f} ms in all that the same messages took without streams"
    env.say(f"{count:,} watchers: {name}: {each:.0f} µs of CPU an update; {note}")
    return [*rows, Row(_cpu_group(count), name, "µs", [each], note=note)]


def _message(more: dict) -> dict:
    return {"type": "message.sent", "sender": "writer"} | more


def _cpu(pusher: Unread | Peer) -> tuple[float, float]:
    """What all that serves has used, and what Redis has."""
    return sum(server.process.cpu_seconds() for server in pusher.servers()), pusher.redis.cpu_seconds()


def _since(before: tuple[float, float], pusher: Unread | Peer) -> tuple[float, float]:
    """The same since then."""
    serving, redis = _cpu(pusher)
    return serving - before[0], redis - before[1]


def _send(pusher: Unread | Peer, streams: Streams, changes: list[Change], every: float) -> list[float]:
    """Makes changes while the streams are read: after how many milliseconds each watcher has seen each of them."""
    sent, failures = [], []

    def sender() -> None:
        due, chance = time.monotonic(), random.Random(1)
        try:
            for event, numbers in changes:
                due += every * chance.uniform(0.5, 1.5)
                time.sleep(max(0, due - time.monotonic()))
                sent.append(time.monotonic())
                pusher.change([event], numbers)
        except Exception as why:
            failures.append(why)

    thread = threading.Thread(target=sender)
    thread.start()
    while thread.is_alive():
        streams.read(0.02)
    thread.join()
    if failures:
        raise failures[0]
    newest: Numbers = {}
    for _, numbers in changes:
        newest |= numbers
    streams.until(newest)
    return [
        (streams.of[user].shown[total] - at) * 1000
        for at, (_, numbers) in zip(sent, changes, strict=True)
        for user, total in numbers.items()
    ]


def _memory(env: Env, count: int, name: str, pusher: Unread | Peer) -> list[Row]:
    """What so many streams take of memory: quiet ones, and those that have shown something."""
    users = [dataset.user(n) for n in range(count)]

    def change(number: int) -> Numbers:
        for first in range(0, count, AT_ONCE):
            some = users[first : first + AT_ONCE]
            pusher.change(
                [_message({"to": user, "id": f"number-{number}"}) for user in some], dict.fromkeys(some, number)
            )
        return dict.fromkeys(users, number)

    numbers = change(1)
    # What it takes for streams as such is there.
    pusher.watch(dict.fromkeys(users[:10], 1)).close()
    time.sleep(1)
    before = _resident(pusher)
    streams = pusher.watch(numbers)
    quiet = (_resident(pusher) - before) / count
    for number in (2, 3, 4):
        streams.until(change(number))
    used = (_resident(pusher) - before) / count
    streams.close()
    group = _memory_group(count)
    env.say(f"{group}: {name}: {quiet:,.0f} bytes, {used:,.0f} after three changes")
    goal = f"<= {16 * 1024}" if isinstance(pusher, Unread) else ""
    rows = [
        Row(group, f"{name}: that has shown a number once", "bytes", [quiet], goal=goal),
        Row(group, f"{name}: that has shown three changes", "bytes", [used]),
    ]
    for row in rows:
        row.facts = {"held": name, "streams": count, "label": f"{name}, {count:,}: {row.name.rpartition('shown ')[2]}"}
    return rows


def _most(env: Env, files: int) -> list[Row]:
    """The memory of ten thousand streams, or of as many as there can be here."""
    count = min(MOST, int(files * SHARE))
    settings = {
        "live__max_streams": count,
        "live__max_streams_per_app": count,
        # Streams never take more than four of five connections.
        "server__max_connections": count * 5 // 4 + 10,
    }
    rows = _measured(
        env, "unread", functools.partial(Unread, **settings), {}, functools.partial(_memory, env, count, "unread")
    )
    if count < MOST:
        for row in rows:
            row.note = f"not {MOST:,}: a process may have no more than {files:,} files open here"
    return rows


def _resident(pusher: Unread | Peer) -> int:
    """The memory of what holds the streams; a page that some of its processes share counts once."""
    return sum(_of_process(pid) for pid in pusher.server.process.group())


def _of_process(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"\nPss:\s+(\d+) kB", rollup)[1]) * 1024
