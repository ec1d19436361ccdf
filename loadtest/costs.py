"""What each Lua script costs Redis, of two builds. Usage: costs.py BINARY_A BINARY_B [ROUNDS]

Each build has a Redis and a pod of its own. ROUNDS times (20), in turn (A B, B A, ...), both get the same calls: messages to a
group of 100, to a direct room and to a supergroup of 100, reads, and questions for counts. Redis itself measures each call of a
script (SLOWLOG): the median and the mean of the faster nine tenths, in microseconds, and by how much B's mean differs. Deliveries
are listed by how many keys they have: two for each user, and seven for each whom the fast path can't serve.

The machine's other work shows in all figures, so compare those of one run, and give it rounds enough.
"""

import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import urllib.request

from run import Processes, start_pod, start_redis

HEADERS = {"Authorization": "Bearer load-server-key", "Content-Type": "application/json"}
MEMBERS = [f"u{n}" for n in range(100)]
# How often a round makes each call.
CALLS = 50
STEPS = (
    "a message to a group",
    "a message to a direct room",
    "a message to a supergroup",
    "a recall in a group",
    "a read of a group",
    "a read of a supergroup",
    "the counts of one room",
    "the counts of one user",
)

class Connection:
    """One to Redis, for the few commands that this needs."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rwb")

    def ask(self, *words):
        parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
        self.file.write(f"*{len(parts)}\r\n{''.join(parts)}".encode())
        self.file.flush()
        return self.read()

    def read(self):
        line = self.file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        return int(rest) if kind == b":" else rest

def names_by_purpose():
    """The beginning of each script's purpose -> its name. A build's texts come from its first calls, and say no name."""
    names = {}
    for path in (pathlib.Path(__file__).parent.parent / "lua").glob("*.lua"):
        if found := re.search(r"-- Purpose: (.{20})", path.read_text()):
            names[found[1]] = path.stem
    return names

class Side:
    """A build, with its Redis and its pod."""

    def __init__(self, processes, binary, directory):
        directory.mkdir()
        url = start_redis(processes, directory)
        self.path = directory / "redis.sock"
        self.redis = Connection(self.path)
        self.redis.ask("CONFIG", "SET", "slowlog-max-len", "100000")
        self.names, self.sent, self.costs = {}, 0, {}
        watch = Connection(self.path)
        watch.ask("MONITOR")
        thread = threading.Thread(target=self.learn, args=(watch, names_by_purpose()), daemon=True)
        thread.start()
        self.url = start_pod(processes, binary, directory, 1, url, dict(os.environ))
        self.send({"type": "room.updated", "room": "group", "tags": ["work"]})
        self.send({"type": "member.joined", "room": "group", "users": MEMBERS})
        self.send({"type": "room.updated", "room": "super", "kind": "supergroup"})
        self.send({"type": "member.joined", "room": "super", "users": MEMBERS})
        for _ in range(2):
            for step in STEPS:
                self.make(step)
        # Whoever monitors a Redis makes it slower.
        watch.socket.shutdown(socket.SHUT_RDWR)
        thread.join()
        self.redis.ask("CONFIG", "SET", "slowlog-log-slower-than", "0")

    def learn(self, connection, names):
        """Which digest is which script: a pod loads each by its text."""
        for line in connection.file:
            if text := re.search(rb'"(?:EVAL|LOAD)" "((?:[^"\\]|\\.)*)"', line):
                source = text[1].decode("unicode_escape").encode("latin-1")
                purpose = re.search(rb"-- Purpose: (.{20})", source)[1].decode()
                self.names[hashlib.sha1(source).hexdigest()] = names.get(purpose, purpose)

    def call(self, path, body=None):
        data = body and json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, HEADERS)) as answer:
            return json.load(answer)

    def send(self, event):
        answer = self.call("/v1/events", [event])
        if answer["rejected"]:
            raise SystemExit(f"{event} was refused: {answer}")

    def make(self, step):
        self.sent += 1
        message = {"type": "message.sent", "id": f"m{self.sent}", "text": "x"}
        if step == "a message to a group":
            self.send({**message, "room": "group", "sender": "u1"})
        elif step == "a message to a direct room":
            self.send({**message, "to": "bob", "sender": "alice"})
        elif step == "a message to a supergroup":
            self.send({**message, "room": "super", "sender": f"u{self.sent % 3}"})
        elif step == "a recall in a group":
            self.send({**message, "room": "group", "sender": "u2"})
            self.send({"type": "message.recalled", "room": "group", "id": message["id"]})
        elif step == "a read of a group":
            self.send({"type": "room.read", "room": "group", "user": "u3"})
        elif step == "a read of a supergroup":
            self.send({"type": "room.read", "room": "super", "user": "u4"})
        elif step == "the counts of one room":
            self.call("/v1/rooms/super/unread?users=u5")
        else:
            self.call("/v1/users/u5/unread?include=rooms")

    def measure(self, step):
        self.redis.ask("SLOWLOG", "RESET")
        for _ in range(CALLS):
            self.make(step)
        for entry in self.redis.ask("SLOWLOG", "GET", "-1"):
            took, command = entry[2], entry[3]
            if command[0].upper() == b"EVALSHA":
                name = self.names.get(command[1].decode(), command[1].decode()[:12])
                keys = f", {command[2].decode()} keys" if name == "deliver" else ""
                self.costs.setdefault((step, name + keys), []).append(took)

def mean(costs):
    """Of the faster nine tenths."""
    return statistics.mean(sorted(costs)[: max(len(costs) * 9 // 10, 1)])

def main():
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    rounds = int(sys.argv[3]) if len(sys.argv) == 4 else 20
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    processes = Processes()
    with tempfile.TemporaryDirectory(prefix="unread-costs-") as home:
        try:
            sides = [Side(processes, binary, pathlib.Path(home) / f"{n}") for n, binary in enumerate(sys.argv[1:3])]
            for step in STEPS:
                for turn in range(rounds):
                    for side in sides if turn % 2 == 0 else reversed(sides):
                        side.measure(step)

                for key in sorted(key for key in sides[0].costs if key[0] == step):
                    # What the pod does by the way (announcements, sweeps) comes too seldom to tell anything.
                    if min(len(side.costs.get(key, ())) for side in sides) < CALLS:
                        continue
                    one, two = (side.costs[key] for side in sides)
                    print(
                        f"{key[0]:27} {key[1]:19} median {statistics.median(one):5.0f} {statistics.median(two):5.0f}"
                        f"   mean {mean(one):6.1f} {mean(two):6.1f}   {mean(two) / mean(one) - 1:+6.1%}",
                        flush=True,
                    )
        finally:
            processes.stop_all()

if __name__ == "__main__":
    main()
