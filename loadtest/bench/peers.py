"""Starts what somebody would use instead: those of `PEERS_BY_NAME` do Tencent's total with one HGET on the key that the server
reads; nchan and ws hold streams of numbers.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from bench import dataset
from bench.calls import SERVER_KEY, Request
from bench.harness import PEERS, Env, Missing, Redis, Server, built, free_port

READY = Request("GET", "/")


def axum(env: Env, redis: Redis) -> Server:
    """A plain axum handler with one multiplexed connection."""
    port = free_port()
    argv = [built(PEERS / "axum", "axum-peer"), port, redis.tcp_url]
    return env.start_server(argv, port, READY, env={"TOKIO_WORKER_THREADS": str(env.cores)})


def webdis(env: Env, redis: Redis) -> Server:
    """webdis, with as many threads as there are cores."""
    port = free_port()
    config = _filled(env, "webdis.json.in", {"PORT": port, "REDIS_PORT": redis.port, "WORKERS": env.cores})
    return env.start_server([_installed("webdis"), config], port, Request("GET", "/PING"))


def nginx(env: Env, redis: Redis) -> Server:
    """nginx with Lua, a worker a core."""
    port = free_port()
    modules = _nginx_modules()
    # The development kit first: Lua needs it.
    wanted = [modules / "ndk_http_module.so", modules / "ngx_http_lua_module.so"]
    if not wanted[1].exists():
        raise Missing("nginx has no Lua module here")
    loaded = "\n".join(f"load_module {module};" for module in wanted if module.exists())
    values = {"MODULES": loaded, "PORT": port, "REDIS_PORT": redis.port, "WORKERS": env.cores}
    return _start_nginx(env, "nginx.conf.in", values)


def node(env: Env, redis: Redis) -> Server:
    """Node with fastify and ioredis, a process a core."""
    return _start_node(env, "server.js", redis)


def nchan(env: Env, redis: Redis) -> Server:
    """nginx with nchan, a worker a core, and Redis as its store."""
    module = _nginx_modules() / "ngx_nchan_module.so"
    if not module.exists():
        raise Missing("nginx has no nchan here")
    values = {"MODULE": module, "PORT": free_port(), "REDIS_PORT": redis.port, "WORKERS": env.cores}
    server = _start_nginx(env, "nchan.conf.in", values)
    # Before that a worker refuses whoever comes.
    connected = b"redis connected servers: %d\n" % env.cores
    env.wait_for(server.process, lambda: connected in server.ask(READY)[2])
    return server


def ws(env: Env, redis: Redis, pod: Server | None) -> Server:
    """Node with ws and ioredis, a process a core; with a pod, each number is read there."""
    return _start_node(env, "ws.js", redis, *([pod.url, SERVER_KEY] if pod else []))


def fastapi(env: Env, redis: Redis) -> Server:
    """FastAPI on granian, a process a core."""
    port = free_port()
    home = PEERS / "fastapi"
    binary = home / ".venv" / "bin" / "granian"
    if not binary.exists():
        raise Missing("its packages are not installed")
    argv = [binary, "--interface", "asgi", "--loop", "uvloop", "--host", "127.0.0.1", "--port", port]
    argv += ["--workers", env.cores, "--log-level", "warning", "server:app"]
    return env.start_server(argv, port, READY, cwd=home, env={"REDIS_URL": redis.tcp_url})


PEERS_BY_NAME: dict[str, Callable[[Env, Redis], Server]] = {
    "axum": axum,
    "webdis": webdis,
    "nginx + Lua": nginx,
    "Node fastify": node,
    "FastAPI": fastapi,
}


def requests(name: str, users: int) -> list[Request]:
    """What a peer is asked: the same as the server, but of webdis, which has only its own form."""
    if name != "webdis":
        return dataset.tencent_total(users)
    keys = [f"unread:v1:{{bench:u:{dataset.user(i)}}}:counts" for i in range(users)]
    return [Request("GET", f"/HGET/{quote(key, safe='')}/messages:direct") for key in keys]


def _start_nginx(env: Env, template: str, values: dict[str, object]) -> Server:
    home = env.work / f"nginx-{values['PORT']}"
    home.mkdir()
    argv = [_installed("nginx"), "-p", home, "-e", "stderr", "-c", _filled(env, template, values)]
    return env.start_server(argv, values["PORT"], READY)


def _nginx_modules() -> Path:
    told = subprocess.run([_installed("nginx"), "-V"], capture_output=True, text=True, check=True).stderr
    return Path(re.search(r"--modules-path=(\S+)", told)[1])


def _start_node(env: Env, script: str, redis: Redis, *more: str) -> Server:
    port = free_port()
    binary, home = _installed("node"), PEERS / "node"
    if not (home / "node_modules" / ".package-lock.json").exists():
        raise Missing("its packages are not installed")
    argv = [binary, home / script, port, env.cores, redis.tcp_url, *more]
    return env.start_server(argv, port, READY, env={"NODE_ENV": "production"})


def _installed(name: str) -> str:
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if not path:
        raise Missing(f"{name} is not installed")
    return path


def _filled(env: Env, template: str, values: dict[str, object]) -> Path:
    text = (PEERS / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    path = env.work / f"{values['PORT']}-{template.removesuffix('.in')}"
    path.write_text(text)
    return path
