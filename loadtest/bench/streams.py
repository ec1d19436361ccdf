"""The clients of streams of numbers: one class of them, and how each protocol packs its messages."""

import re
import selectors
import socket
import time
from collections.abc import Callable

from bench.calls import Request
from bench.harness import BenchError, Server

# Takes what has come apart: whole messages, and what remains.
Parse = Callable[[bytes], tuple[list[bytes], bytes]]

# Within this time everything is shown, whatever was lost.
PROMISE = 15


def sse(data: bytes) -> tuple[list[bytes], bytes]:
    """Server-Sent Events. What marks the parts of an answer in chunks stays between them."""
    *blocks, rest = data.split(b"\n\n")
    return blocks, rest


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Frames of a server's WebSocket, each of them shorter than 64 KB."""
    found = []
    while len(data) >= 4:
        begin, length = (4, int.from_bytes(data[2:4], "big")) if data[1] == 126 else (2, data[1])
        if len(data) < begin + length:
            break
        found.append(data[begin : begin + length])
        data = data[begin + length :]
    return found, data


class Stream:
    """One connection that watches one user."""

    def __init__(self, server: Server, request: Request, parse: Parse):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.socket.sendall(request.wire(server.host))
        self.socket.setblocking(False)
        self.parse, self.accepted, self.input = parse, False, b""
        # The total that was shown last, when each total was shown first, and how many messages had one.
        self.total = -1
        self.shown: dict[int, float] = {}
        self.updates = 0

    def read(self) -> None:
        """Takes what has come."""
        data = self.socket.recv(65_536)
        now = time.monotonic()
        if not data:
            raise BenchError("a stream has ended")
        self.input += data
        if not self.accepted:
            head, end, rest = self.input.partition(b"\r\n\r\n")
            if not end:
                return
            if not re.match(rb"HTTP/1.1 (200|101) ", head):
                raise BenchError(f"a stream was refused: {head[:300]!r}")
            self.accepted, self.input = True, rest
        messages, self.input = self.parse(self.input)
        for message in messages:
            if found := re.search(rb'"messages":\{"total":(\d+)', message):
                self.updates += 1
                total = int(found[1])
                for newer in range(self.total + 1, total + 1):
                    self.shown[newer] = now
                self.total = max(self.total, total)


class Streams:
    """Streams of a server, one for each user."""

    def __init__(self, server: Server, requests: dict[str, Request], parse: Parse):
        self.selector = selectors.DefaultSelector()
        self.of: dict[str, Stream] = {}
        for user, request in requests.items():
            stream = Stream(server, request, parse)
            self.of[user] = stream
            self.selector.register(stream.socket, selectors.EVENT_READ, stream)

    def late(self, numbers: dict[str, int]) -> list[str]:
        """Whose streams have not shown these totals."""
        return [user for user, total in numbers.items() if self.of[user].total < total]

    def until(self, numbers: dict[str, int], again: Callable[[dict[str, int]], None] | None = None) -> None:
        """Reads until the streams have shown these totals; each half second `again` is told those that they have not."""
        begun = told = time.monotonic()
        while late := self.late(numbers):
            now = time.monotonic()
            if now > begun + PROMISE:
                raise BenchError(
                    f"{len(late)} of {len(numbers)} streams have not shown their number within {PROMISE} s"
                )
            if again and now > told + 0.5:
                told = now
                again({user: numbers[user] for user in late})
            self.read(0.05)

    def read(self, patience: float) -> None:
        """Reads what comes, waiting for it so long at most."""
        for key, _ in self.selector.select(patience):
            key.data.read()

    @property
    def updates(self) -> int:
        """How many messages with a total have come."""
        return sum(stream.updates for stream in self.of.values())

    def close(self) -> None:
        """Ends them."""
        for stream in self.of.values():
            stream.socket.close()
        self.selector.close()
