"""Counts from a file, by the million. Usage: counts.py PATH_OF_THE_BINARY [ROWS]

On a Redis and with a pod of its own it

1. imports ROWS rows (1,000,000) of room, user and counts into an app that has nothing, and compares: none may differ;
2. imports the same file again: nothing may change;
3. exports, and compares the export;
4. imports other numbers for half of the rooms while a pod takes messages to all rooms, and compares: a room that the second
   file has none of says the first number and the messages since; a room that it has, the second number and those of the
   messages since that are not in it.

It prints a line for each step, with its time and rows a second. Exit code 1: something differs.
"""

import csv
import http.client
import itertools
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from run import Processes, start_pod, start_redis

APP, SERVER_KEY = "load", "load-server-key"
# Members of a group and of a supergroup.
GROUP, SUPERGROUP = 100, 1_000
# Rows for each user, about.
ROOMS_OF_A_USER = 100
# Messages a second beside the second import.
RATE = 200


class Differs(Exception):
    pass


def rows_of(count, seed):
    """(room, user, kind, unread, mentions) of so many rows: most of them of groups, a sixth of supergroups, some of direct rooms."""
    chance = random.Random(seed)
    users = [f"user {n}" for n in range(max(count // ROOMS_OF_A_USER, SUPERGROUP))]

    def row(room, user, kind):
        unread = chance.choice((0, 0, 1, 2, 3, 5, 17, 250, 1_200))
        return room, user, kind, unread, min(unread, chance.choice((0, 0, 0, 1, 4)))

    for number in itertools.count():
        if number % 10 == 0:
            for pair in range(GROUP // 2):
                yield from (row(f"direct {number}-{pair}", user, "direct") for user in chance.sample(users, 2))
        elif number % 50 == 1:
            yield from (row(f"super {number}", user, "supergroup") for user in chance.sample(users, SUPERGROUP))
        else:
            yield from (row(f"group {number}", user, "group") for user in chance.sample(users, GROUP))


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["room", "user", "kind", "unread", "mentions"])
        table.writerows(rows)


class Commands:
    def __init__(self, binary, url):
        self.binary, self.of = binary, ["--app", APP, "--redis-url", url]

    def run(self, step, rows, args, codes=(0,), out=subprocess.PIPE):
        start = time.monotonic()
        ran = subprocess.run([self.binary, *args, *self.of], stdout=out, stderr=subprocess.PIPE, check=False)
        took = time.monotonic() - start
        said = (ran.stdout or b"").decode().strip().splitlines()
        print(f"{step}: {took:.1f} s, {rows / took:,.0f} rows/s{': ' + said[-1] if said else ''}", flush=True)
        if ran.returncode not in codes:
            raise Differs(f"{step}: exit code {ran.returncode}\n" + "\n".join(said[:20]) + ran.stderr.decode()[-2_000:])
        return said


class Traffic(threading.Thread):
    """Messages to all rooms, one after the other, until it is told to end."""

    def __init__(self, url, rooms):
        super().__init__()
        self.address, self.rooms = urllib.parse.urlsplit(url).netloc, rooms
        self.over, self.sent, self.failed = threading.Event(), {}, None

    def run(self):
        try:
            chance, connection = random.Random(3), http.client.HTTPConnection(self.address, timeout=60)
            headers = {"Authorization": f"Bearer {SERVER_KEY}", "Content-Type": "application/json"}
            number = 0
            while not self.over.wait(1 / RATE):
                room = chance.choice(self.rooms)
                number += 1
                event = {"type": "message.sent", "room": room, "id": f"m{number}"}
                # What is too much for the moment is sent again; a message is known by its id.
                while True:
                    connection.request("POST", "/v1/events", json.dumps(event), headers)
                    response = connection.getresponse()
                    answer = json.loads(response.read())
                    if response.status != 503:
                        break
                    time.sleep(float(response.headers["Retry-After"]))
                if answer.get("applied", 0) + answer.get("duplicate", 0) != 1:
                    raise Differs(f"a message was not applied: {answer}")
                self.sent[room] = self.sent.get(room, 0) + 1
        except Exception as error:  # Whatever it is, the run has failed.
            self.failed = error


def differing(commands, step, path, rows):
    said = commands.run(step, rows, ["compare", str(path)])
    if said[-1] != f"{rows} rows compared: none differs":
        raise Differs("\n".join(said[:20]))


def go(binary, count, processes, directory):
    url = start_redis(processes, directory)
    commands = Commands(binary, url)
    first, second, exported = (directory / f"{name}.csv" for name in ("first", "second", "exported"))
    table = list(itertools.islice(rows_of(count, 1), count))
    write(first, table)
    as_of = ["--as-of", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())]
    load = ["import", "--counts", "--join", *as_of, str(first)]
    commands.run("first import", count, load)
    differing(commands, "compare", first, count)
    said = commands.run("the same again", count, load)
    if f" 0 applied, {count} duplicates, 0 rejected" not in said[-1]:
        raise Differs(said[-1])
    differing(commands, "compare", first, count)
    with exported.open("wb") as out:
        commands.run("export", count, ["export", "--counts"], out=out)
    differing(commands, "compare the export", exported, count)

    environment = {"PATH": "/usr/bin:/bin"}
    pod = start_pod(processes, binary, directory, 1, url, environment)
    rooms = sorted({row[0] for row in table})
    named = {room for number, room in enumerate(rooms) if number % 2 == 0}
    numbers = random.Random(2)
    other = [(*row[:3], numbers.randrange(300), 0) for row in table if row[0] in named]
    write(second, other)
    # Messages have the time of their arrival, which is after this.
    time.sleep(1.1)
    as_of = ["--as-of", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())]
    traffic = Traffic(pod, rooms)
    traffic.start()
    try:
        commands.run("second import, beside messages", len(other), ["import", "--counts", *as_of, str(second)])
    finally:
        traffic.over.set()
        traffic.join()
    if traffic.failed:
        raise traffic.failed
    print(f"messages meanwhile: {sum(traffic.sent.values()):,}", flush=True)
    if not traffic.sent:
        raise Differs("no message was sent")
    with exported.open("wb") as out:
        commands.run("export", count, ["export", "--counts"], out=out)
    check(exported, table, other, traffic.sent)
    commands.run("verify", count, ["verify"])


def check(path, table, other, sent):
    """Each row of the export is the last number of a file, and the messages since."""
    last = {(row[0], row[1]): row[3] for row in table}
    again = {(row[0], row[1]): row[3] for row in other}
    wrong = 0
    with path.open(newline="", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            name, unread = (row["room"], row["user"]), int(row["unread"])
            messages = sent.get(row["room"], 0)
            if name in again:
                number = again.pop(name) + messages
                del last[name]
            else:
                number = last.pop(name) + messages
            if unread != number:
                wrong += 1
                if wrong <= 20:
                    print(f"{name}: {unread}, and not {number}", flush=True)
    if wrong or last or again:
        raise Differs(f"{wrong} rows differ, {len(last)} are missing")
    print("all rows are as they should be", flush=True)


def main():
    binary, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    processes = Processes()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="unread-counts-") as directory:
        try:
            go(str(pathlib.Path(binary).resolve()), count, processes, pathlib.Path(directory))
        except Differs as why:
            sys.exit(f"counts.py: {why}")
        finally:
            processes.stop_all()


if __name__ == "__main__":
    main()
