"""What brings a number to the screen: a pod of ours, which counts itself, and peers, which push what somebody else has counted.

Of each peer there are two: one is handed the finished number; with the other a pod counts, and the number is read there first.
"""

import base64
import json
import socket
from collections.abc import Callable

from bench import dataset, peers
from bench.calls import SERVER_KEY, Request, app_toml, native
from bench.harness import BenchError, Env, Server
from bench.streams import Streams, frames, sse

# Numbers of users, as they are after a change.
Numbers = dict[str, int]


class Unread:
    """A pod: what happens is sent to it, and its streams say the new counts by themselves."""

    parse = staticmethod(sse)

    def __init__(self, env: Env, **settings: object):
        self.redis = env.start_redis()
        self.server = self.pod = env.start_pod(app_toml(), self.redis.url, **settings)

    def request(self, user: str) -> Request:
        """What a watcher of a user asks for."""
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {SERVER_KEY}"}
        return Request("GET", f"/v1/live?users={user}", headers)

    def change(self, events: list[dict], _numbers: Numbers) -> None:
        """Makes these events happen, by which users have these numbers, and sees to it that watchers are told."""
        dataset.load(self.pod, events)

    def watch(self, numbers: Numbers) -> Streams:
        """Streams of users, all of which have shown these numbers, which stand already."""
        streams = Streams(self.server, {user: self.request(user) for user in numbers}, self.parse)
        streams.until(numbers)
        return streams

    def servers(self) -> list[Server]:
        """All that serves."""
        return [self.server]


class Peer:
    """Something that pushes numbers. With a pod (`reads`) events go there, and numbers are read there.

    Each has `parse`, `request`, `_start`, and `_push`, which brings numbers to those who watch.
    """

    def __init__(self, env: Env, *, reads: bool):
        self.redis = env.start_redis()
        self.pod = env.start_pod(app_toml(), self.redis.url) if reads else None
        self.server = self._start(env)

    def change(self, events: list[dict], numbers: Numbers) -> None:
        """As that of `Unread`."""
        if self.pod:
            dataset.load(self.pod, events)
        self._push(numbers)

    def watch(self, numbers: Numbers) -> Streams:
        """As that of `Unread`. A peer that keeps no number hears it again until all are subscribed."""
        streams = Streams(self.server, {user: self.request(user) for user in numbers}, self.parse)
        self._push(numbers)
        streams.until(numbers, self._push)
        return streams

    def servers(self) -> list[Server]:
        """All that serves."""
        return [self.server, self.pod] if self.pod else [self.server]


class Nchan(Peer):
    """nchan. Who publishes reads the number."""

    parse = staticmethod(sse)
    PUBLISHERS = 16

    def _start(self, env: Env) -> Server:
        self._publishers: list[socket.socket] = []
        return peers.nchan(env, self.redis)

    def request(self, user: str) -> Request:
        """What a watcher of a user asks for."""
        return Request("GET", f"/stream/{user}", {"Accept": "text/event-stream"})

    def _push(self, numbers: Numbers) -> None:
        """Publishes by connections that stay, on each of them without waiting for one answer before the next request."""
        if not self._publishers:
            address = ("127.0.0.1", self.server.port)
            self._publishers = [socket.create_connection(address, timeout=30) for _ in range(self.PUBLISHERS)]
        texts = _finished(numbers)
        if self.pod:
            _, _, body = self.pod.ask(native("/v1/unread", {"users": list(numbers)}))
            texts = {
                user: json.dumps(totals, separators=(",", ":")) for user, totals in json.loads(body)["users"].items()
            }
        wires = [
            Request("POST", f"/push/{user}", body=text.encode()).wire(self.server.host) for user, text in texts.items()
        ]
        shares = [wires[n :: self.PUBLISHERS] for n in range(min(self.PUBLISHERS, len(wires)))]
        for publisher, share in zip(self._publishers, shares, strict=False):
            publisher.sendall(b"".join(share))
        for publisher, share in zip(self._publishers, shares, strict=False):
            said = b""
            while said.count(b"HTTP/1.1 ") < len(share):
                data = publisher.recv(65_536)
                if not data:
                    raise BenchError("nchan has ended a publisher's connection")
                said += data
            if said.count(b"HTTP/1.1 20") < len(share):
                raise BenchError(f"nchan does not publish: {said[:300]!r}")


class Ws(Peer):
    """Node with ws, told by Redis. The server reads the number, and what is published is only a notice."""

    parse = staticmethod(frames)

    def _start(self, env: Env) -> Server:
        return peers.ws(env, self.redis, self.pod)

    def request(self, user: str) -> Request:
        """What a watcher of a user asks for."""
        key = base64.b64encode(user.encode().ljust(16)[:16]).decode()
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        return Request("GET", f"/{user}", headers)

    def _push(self, numbers: Numbers) -> None:
        texts = dict.fromkeys(numbers, "") if self.pod else _finished(numbers)
        self.redis.pipeline(["PUBLISH", user, text] for user, text in texts.items())


PUSHERS: dict[str, Callable[[Env], Unread | Peer]] = {
    "unread": Unread,
    "nchan, a finished number": lambda env: Nchan(env, reads=False),
    "nchan, with the read": lambda env: Nchan(env, reads=True),
    "Node ws, a finished number": lambda env: Ws(env, reads=False),
    "Node ws, with the read": lambda env: Ws(env, reads=True),
}


def _finished(numbers: Numbers) -> dict[str, str]:
    """What is pushed where somebody else has counted: no more than the number."""
    return {user: f'{{"messages":{{"total":{total}}}}}' for user, total in numbers.items()}
