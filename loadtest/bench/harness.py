"""What the benchmarks build on: processes on loopback that end with the run, load from wrk and oha, rows of results.

A benchmark is a module beside this one with `def run(env: Env) -> list[Row]`. It may leave processes running: whatever
was started through `env` is stopped, by process id, when the module returns or fails, and on Ctrl-C.
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.calls import Request

T = TypeVar("T")

LOADTEST = Path(__file__).resolve().parent.parent
ROOT = LOADTEST.parent
PEERS = LOADTEST / "peers"


class BenchError(Exception):
    """A run that does not count: something answered wrongly, or did not start."""


class Missing(Exception):
    """A peer that is not installed here."""


@dataclass
class Row:
    """One line of the results: what was measured, and how it compares."""

    group: str
    name: str
    unit: str
    runs: list[float]
    # The row (of the same group, by name) that this one is divided by; without one the goal is for the median itself.
    against: str | None = None
    ratio: float | None = None
    # Such as ">= 0.75" or "<= 3".
    goal: str = ""
    note: str = ""
    # For plots: what a module wants to draw from, such as {"pods": 2}.
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """The middle run; None where nothing could be measured."""
        return statistics.median(self.runs) if self.runs else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none, or nothing to compare."""
        value = self.ratio if self.against else self.median
        if not self.goal or value is None:
            return None
        sign, number = self.goal.split()
        return value >= float(number) if sign == ">=" else value <= float(number)

    def compared(self, other: "Row", goal: str = "") -> "Row":
        """Divides this row's median by another's, and sets the goal for that."""
        self.against, self.goal = other.name, goal
        if self.median is not None and other.median:
            self.ratio = self.median / other.median
        return self


def missing(group: str, name: str, unit: str, why: str) -> Row:
    """The row of something that could not be measured here."""
    return Row(group, name, unit, [], note=" ".join(why.split())[:160])


@dataclass
class Load:
    """What one run of wrk or oha came to. Latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float
    requests: int


def throughput(group: str, name: str, loads: list[Load]) -> Row:
    """The row of requests per second of some runs."""
    return Row(group, name, "requests/s", [load.per_second for load in loads])


def rate_note(rate: float, loads: list[Load]) -> str:
    """At which rate latencies were measured, and whether it came about."""
    reached = min(load.per_second for load in loads)
    short = f", of which only {reached:,.0f}/s came about" if reached < 0.95 * rate else ""
    return f"at {rate:,.0f}/s{short}"


class Process:
    """A process that we started, in a process group of its own."""

    def __init__(self, argv: list[str], log: Path, env: dict[str, str] | None = None, cwd: Path | None = None):
        self.name, self.log = Path(argv[0]).name, log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self.popen.pid

    def ended(self, *, wait: bool = False) -> bool:
        """Whether it has ended. It stays a zombie until `stop`, so that its id can't become a stranger's."""
        options = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
        return os.waitid(os.P_PID, self.pid, options) is not None

    def stop(self) -> None:
        """Asks it and its children to end, and makes sure of it."""
        for what, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, what)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if not self.group():
                    self.popen.wait()
                    return
                time.sleep(0.02)
        raise BenchError(f"{self.name} ({self.pid}) can't be stopped")

    def group(self) -> list[int]:
        """The process ids of it and of its children that are still there."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(after_name[2]) == self.pid and after_name[0] != "Z":
                        found.append(int(entry.name))
        return found

    def cpu_seconds(self) -> float:
        """CPU time, in user and system mode, that it and its children have used."""
        seconds = 0.0
        for pid in self.group():
            with contextlib.suppress(OSError):
                # The clock of a process, as clock_getcpuclockid(3) names it: /proc tells no less than hundredths of a second.
                seconds += time.clock_gettime(~pid << 3 | 2)
        return seconds

    def tail(self) -> str:
        """The last lines of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


class Redis:
    """A redis-server of ours, and one connection to it."""

    def __init__(self, process: Process, port: int, path: Path | None):
        self.process, self.port, self.path = process, port, path
        self._stream = None

    @property
    def url(self) -> str:
        """What a pod's configuration says: the socket where there is one."""
        return f"redis+unix://{self.path}" if self.path else self.tcp_url

    @property
    def tcp_url(self) -> str:
        """The address by TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    def call(self, *words: object) -> object:
        """Runs one command; raises on an error reply."""
        return self.pipeline([words])[0]

    def pipeline(self, commands: Iterable[Iterable[object]]) -> list[object]:
        """Sends some commands at once; raises on an error reply."""
        if self._stream is None:
            if self.path:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(30)
                connection.connect(str(self.path))
            else:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            self._stream = connection.makefile("rwb")
        sent = 0
        for words in commands:
            parts = [str(word).encode() if not isinstance(word, bytes) else word for word in words]
            self._stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            sent += 1
        self._stream.flush()
        return [self._reply() for _ in range(sent)]

    def _reply(self) -> object:
        line = self._stream.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise BenchError(f"redis: {rest.decode()}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise BenchError(f"redis: not a reply: {line!r}")

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu_seconds(self) -> float:
        """CPU time that the server has used."""
        info = self.info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])

    def calls(self) -> dict[str, int]:
        """How often each command ran so far, those inside scripts included."""
        stats = self.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(re.match(r"calls=(\d+)", value)[1]) for name, value in stats.items()}


class Server:
    """Anything that answers HTTP here: a pod of ours, the ceiling, a peer."""

    def __init__(self, process: Process, port: int, admin_port: int | None = None):
        self.process, self.port, self.admin_port = process, port, admin_port

    @property
    def host(self) -> str:
        """Host and port, as in the Host header."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}"

    def ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Sends one request: status, headers in lower case, body."""
        return _ask(self.port, request)

    def metric(self, name: str) -> float:
        """The sum of a pod's metric over all its labels."""
        _, _, body = _ask(self.admin_port, Request("GET", "/metrics"))
        lines = [line for line in body.decode().splitlines() if re.match(rf"{name}[ {{]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def _ask(port: int, request: Request) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(request.method, request.path, request.body or None, request.headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def built(project: Path, name: str) -> Path:
    """A release binary of a cargo project."""
    # A relative one is relative to where make runs.
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", project / "target")
    binary = target / "release" / name
    if not binary.exists():
        raise Missing(f"{name} is not built")
    return binary


class Env:
    """One run of the benchmarks: where things are, how long runs take, and what has been started."""

    def __init__(self, results: Path, *, seconds: int, rounds: int, quick: bool):
        self.results, self.seconds, self.rounds, self.quick = results, seconds, rounds, quick
        self.cores = os.cpu_count() or 1
        # Of others: what is measured on a busy machine means little.
        self.load_before = os.getloadavg()[0]
        self.raw = results / "raw"
        self.work = Path(tempfile.mkdtemp(prefix="unread-bench-"))
        self._module, self._serial = "", itertools.count(1)
        self._processes: list[Process] = []

    # A module's life.

    def begin(self, module: str) -> None:
        """Makes room for a module's raw output; that of its last run goes."""
        self._module = module
        shutil.rmtree(self.raw / module, ignore_errors=True)
        (self.raw / module).mkdir(parents=True)

    def stop_all(self) -> None:
        """Stops what is still running, the last started first."""
        while self._processes:
            process = self._processes.pop()
            try:
                process.stop()
            except BenchError as why:
                self.say(str(why))

    def stop(self, *servers: "Server | Redis") -> None:
        """Stops some before the module's end."""
        for server in servers:
            server.process.stop()
            self._processes.remove(server.process)

    def close(self) -> None:
        """Leaves nothing behind but the results."""
        self.stop_all()
        shutil.rmtree(self.work, ignore_errors=True)

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(f"{self._module}: {text}", file=sys.stderr, flush=True)

    # Servers.

    def _unique(self, name: str) -> str:
        return f"{next(self._serial):03}-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}"

    def start(self, argv: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> Process:
        """Starts a process that is stopped with the module."""
        log = self.work / f"{self._module}-{self._unique(Path(argv[0]).name)}.log"
        process = Process([str(word) for word in argv], log, env, cwd)
        self._processes.append(process)
        return process

    def wait_for(self, process: Process, ready: Callable[[], bool], patience: float = 30) -> None:
        """Waits until a process that was started is ready."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if process.ended():
                raise BenchError(f"{process.name} ended:\n{process.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException, BenchError):
                if ready():
                    return
            time.sleep(0.05)
        raise BenchError(f"{process.name} is not ready after {patience:.0f} s:\n{process.tail()}")

    def start_server(self, argv: list[str], port: int, ready: Request, **options: object) -> Server:
        """Starts something that answers HTTP at `port`, and waits until it answers `ready` with 200."""
        server = Server(self.start(argv, **options), port)
        self.wait_for(server.process, lambda: server.ask(ready)[0] == 200)
        return server

    def start_redis(self, *, unix: bool = True, **options: object) -> Redis:
        """Starts a redis-server without persistence, on TCP and a unix socket.

        Options are those of redis.conf, written with `_` for `-`.
        """
        port = free_port()
        home = self.work / f"redis-{port}"
        home.mkdir()
        settings = {"port": port, "bind": "127.0.0.1", "dir": home, "save": "", "appendonly": "no"}
        # As docs/operate.md says a Redis for `unread` is to be set up.
        settings |= {"hash_max_listpack_entries": 512, "hash_max_listpack_value": 256, "maxmemory_policy": "noeviction"}
        path = home / "redis.sock" if unix else None
        if path:
            settings["unixsocket"] = path
        argv = ["redis-server"]
        for name, value in (settings | options).items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        redis = Redis(self.start(argv), port, path)
        self.wait_for(redis.process, lambda: redis.call("PING") == "PONG")
        return redis

    def start_pod(self, config_toml: str, redis_url: str, **settings: object) -> Server:
        """Starts `unread serve` with free ports and log level warn, and waits for /readyz.

        `settings` go over the configuration as environment variables, such as server__workers=2.
        """
        binary = built(ROOT, "unread")
        port, admin = free_port(), free_port()
        config = self.work / f"pod-{port}.toml"
        config.write_text(config_toml)
        over = {
            "server__listen": f"127.0.0.1:{port}",
            "server__admin_listen": f"127.0.0.1:{admin}",
            "server__drain_seconds": 0,
            "redis__url": redis_url,
            "log__level": "warn",
        }
        env = {f"UNREAD_{name.upper()}": str(value) for name, value in (over | settings).items()}
        process = self.start([binary, "serve", "--config", config], env=env)
        self.wait_for(process, lambda: _ask(admin, Request("GET", "/readyz"))[0] == 200)
        return Server(process, port, admin)

    # Load.

    def interleaved(self, trials: dict[str, Callable[[int], T]]) -> dict[str, list[T]]:
        """Runs A, B, C, A, B, C, …: what the machine does meanwhile hits all alike. Each trial gets its seconds.

        Before the first round each runs for a second that does not count.
        """
        if not self.quick:
            for trial in trials.values():
                trial(1)
        results: dict[str, list[T]] = {name: [] for name in trials}
        for number in range(self.rounds):
            for name, trial in trials.items():
                result = trial(self.seconds)
                results[name].append(result)
                shown = f"{result.per_second:,.0f}/s, p99 {result.p99:.2f} ms" if isinstance(result, Load) else result
                self.say(f"round {number + 1}/{self.rounds}, {name}: {shown}")
        return results

    def replay_file(self, requests: Iterable[Request], host: str) -> Path:
        """Writes requests down for replay.lua."""
        path = self.work / f"{self._unique('requests')}.bin"
        with path.open("wb") as out:
            for request in requests:
                wire = request.wire(host)
                out.write(b"%d\n%s" % (len(wire), wire))
        return path

    def wrk(
        self,
        label: str,
        url: str,
        *,
        script: Path,
        args: Iterable[object] = (),
        connections: int = 64,
        threads: int = 2,
        seconds: int | None = None,
    ) -> Load:
        """Runs wrk with a Lua script; `replayer` is the short way. Any error or status over 399 spoils the run."""
        command = ["wrk", f"-t{min(threads, connections)}", f"-c{connections}", f"-d{seconds or self.seconds}s"]
        command += ["--timeout", "10s", "--latency", "-s", str(script), url, "--", *map(str, args)]
        text = self._output(label, command)
        spoilt = re.search(r"Socket errors: .*|Non-2xx or 3xx responses: .*", text)
        if spoilt:
            raise BenchError(f"{label}: {spoilt[0]}")
        return Load(
            per_second=float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
            p50=_milliseconds(re.search(r"\n\s+50%\s+(\S+)", text)[1]),
            p99=_milliseconds(re.search(r"\n\s+99%\s+(\S+)", text)[1]),
            requests=int(re.search(r"(\d+) requests in", text)[1]),
        )

    def replayer(
        self, label: str, server: Server, requests: list[Request], connections: int = 64, threads: int = 2
    ) -> Callable[[int], Load]:
        """A trial that has wrk replay these requests."""
        replayed = self.replay_file(requests, server.host)
        script = LOADTEST / "bench" / "replay.lua"

        def trial(seconds: int) -> Load:
            return self.wrk(
                f"{label} {connections}c",
                server.url,
                script=script,
                args=[replayed],
                connections=connections,
                threads=threads,
                seconds=seconds,
            )

        return trial

    def oha(
        self,
        label: str,
        server: Server,
        requests: list[Request],
        *,
        rate: float,
        connections: int = 64,
        seconds: int | None = None,
    ) -> Load:
        """Runs oha at a fixed rate, latencies counted from when each request was due.

        Any error or status over 399 spoils the run.
        The requests may differ in path or in body, not in both, and not in headers: oha can't vary more.
        """
        first = requests[0]
        command = [str(LOADTEST / ".tools" / "bin" / "oha"), "--no-tui", "--output-format", "json"]
        command += ["--latency-correction", "-q", f"{rate:.0f}", "-z", f"{seconds or self.seconds}s"]
        command += ["-c", str(connections), "--worker-threads", "2", "--disable-compression", "-m", first.method]
        for name, value in first.headers.items():
            command += ["-H", f"{name}: {value}"]
        if first.body:
            bodies = self.work / f"{self._unique('bodies')}.txt"
            bodies.write_bytes(b"\n".join(request.body for request in requests))
            command += ["-Z", str(bodies), server.url + first.path]
        else:
            urls = self.work / f"{self._unique('urls')}.txt"
            urls.write_text("\n".join(server.url + request.path for request in requests))
            command += ["--urls-from-file", str(urls)]
        result = json.loads(self._output(label, command))
        errors = {why: n for why, n in result["errorDistribution"].items() if why != "aborted due to deadline"}
        errors |= {status: n for status, n in result["statusCodeDistribution"].items() if int(status) > 399}
        if errors:
            raise BenchError(f"{label}: {errors}")
        latencies = result["latencyPercentiles"]
        return Load(
            per_second=result["summary"]["requestsPerSec"],
            p50=latencies["p50"] * 1000,
            p99=latencies["p99"] * 1000,
            requests=sum(result["statusCodeDistribution"].values()),
        )

    def together(self, *trials: Callable[[], T]) -> list[T]:
        """Runs some loads at the same time."""
        with ThreadPoolExecutor(len(trials)) as pool:
            return [future.result() for future in [pool.submit(trial) for trial in trials]]

    def _output(self, label: str, command: list[str]) -> str:
        """Runs a load generator to its end, keeps what it printed, and answers it; on Ctrl-C stops it."""
        process = self.start(command)
        try:
            process.ended(wait=True)
        finally:
            process.stop()
            self._processes.remove(process)
        code = process.popen.returncode
        text = process.log.read_text(errors="replace")
        process.log.unlink()
        shown = shlex.join(command).replace(str(ROOT) + "/", "").replace(str(self.work), "$WORK")
        (self.raw / self._module / f"{self._unique(label)}.txt").write_text(f"$ {shown}\n{text}")
        if code != 0:
            raise BenchError(f"{label}: {process.name} ended with {code}:\n{text[-2000:]}")
        return text


def _milliseconds(text: str) -> float:
    number, unit = re.match(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]
