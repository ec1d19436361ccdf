"""What the data take in Redis for each user and room, with 10, 100 and 2,000 rooms a user, and by which limits of Redis."""

import json
import subprocess
import time
from pathlib import Path

from bench.harness import ROOT, BenchError, Env, Redis, Row, built

# Rooms of a user, and users.
SHAPES = [(10, 1_000), (100, 1_000), (2_000, 100)]
ROOM_SIZE = 100
MESSAGES = 3
LIMITS = {"the limits of docs/operate.md": {}, "Redis' defaults": {"hash_max_listpack_entries": 128, "hash_max_listpack_value": 64}}
GOALS = {100: "<= 150"}


def run(env: Env) -> list[Row]:
    """Bytes by `used_memory`, and what `unread inspect --memory` says of the same."""
    rows = []
    for per_user, users in SHAPES:
        for name, options in LIMITS.items():
            redis = env.start_redis(**options)
            # What the server takes is not of the data.
            run_unread(env, redis, "import", "-", data=b"")
            before = used(redis)
            file = Path(env.work) / "memory.ndjson"
            write(file, per_user, users)
            run_unread(env, redis, "import", str(file))
            settled(redis)
            pairs = per_user * users
            taken = (used(redis) - before) / pairs
            shown = json.loads(run_unread(env, redis, "inspect", "--memory", "--json"))
            note = ", ".join(
                [f"{key} {part['bytes_per_pair']:.0f}" for key, part in shown["user_keys"].items() if part["bytes"]]
                + [f"room's members {shown['members_key']['bytes_per_pair']:.0f}"]
                + [f"rooms' own {shown['room_keys_bytes_per_room'] / ROOM_SIZE:.0f}"]
            )
            env.say(f"{per_user:,} rooms a user, {name}: {taken:.0f} bytes; {note}")
            goal = GOALS.get(per_user, "") if not options else ""
            group = f"memory, {per_user:,} rooms a user"
            rows.append(Row(group, f"used_memory, {name}", "bytes/pair", [taken], goal=goal, note=note))
            rows.append(Row(group, f"inspect --memory, {name}", "bytes/pair", [shown["bytes_per_pair"]]))
            env.stop(redis)
    return rows


def write(file: Path, per_user: int, users: int) -> None:
    """Tagged groups of a hundred with some messages in each."""
    rooms = users * per_user // ROOM_SIZE
    with file.open("w") as out:

        def event(kind: str, room: int, **fields: object) -> None:
            out.write(json.dumps({"type": kind, "room": f"room-{room:06}"} | fields) + "\n")

        for room in range(rooms):
            members = [f"user-{(room * ROOM_SIZE + i) % users:06}" for i in range(ROOM_SIZE)]
            event("room.updated", room, tags=["work" if room % 2 else "home"], custom_type="support")
            event("member.joined", room, users=members)
        for n in range(MESSAGES):
            for room in range(rooms):
                sender = f"user-{room * ROOM_SIZE % users:06}"
                event("message.sent", room, id=f"message-{n}", sender=sender, text="hello")


def run_unread(env: Env, redis: Redis, command: str, *more: str, data: bytes | None = None) -> bytes:
    """Runs a command of `unread` on this Redis."""
    argv = [built(ROOT, "unread"), command, "--app", "bench", "--redis-url", redis.url, *more]
    done = subprocess.run(argv, input=data, capture_output=True, timeout=600, check=False)
    if done.returncode != 0:
        raise BenchError(f"{command}: {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
    return done.stdout


def used(redis: Redis) -> int:
    """Bytes, without what clients' buffers and the scripts take. Redis loads a script when it is called first."""
    memory = redis.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"]) - int(memory["used_memory_scripts"])


def settled(redis: Redis) -> None:
    """Waits until tables have come to their size."""
    last, deadline = -1, time.monotonic() + 10
    while last != used(redis) and time.monotonic() < deadline:
        last = used(redis)
        time.sleep(0.5)


