"""Keeps rows as results.json, and writes results.md and the plots from it."""

import dataclasses
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from bench import plots
from bench.harness import ROOT, Env, Row


def keep(env: Env, module: str, rows: list[Row]) -> None:
    """Puts a module's rows into results.json; what other modules left there stays."""
    path = env.results / "results.json"
    kept = json.loads(path.read_text()) if path.exists() else {"modules": {}}
    kept["machine"], kept["versions"] = _machine(), _versions()
    kept["modules"][module] = {
        "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "load_before": env.load_before,
        "command": f"BENCH_SECONDS={env.seconds} BENCH_ROUNDS={env.rounds} make bench ONLY={module}",
        "rows": [dataclasses.asdict(row) | {"median": row.median, "met": row.met} for row in rows],
    }
    path.write_text(json.dumps(kept, indent=1) + "\n")


def write(env: Env) -> str:
    """Writes results.md and the plots from all that is in results.json; answers the text."""
    path = env.results / "results.json"
    if not path.exists():
        return "no results"
    kept = json.loads(path.read_text())
    lines = [f"# Results, {env.results.name}", ""]
    if env.quick:
        lines += ["**A smoke test (`BENCH_QUICK=1`): these figures mean nothing.**", ""]
    lines += [f"- {name}: {value}" for name, value in (kept["machine"] | kept["versions"]).items()]
    lines += ["- packages: as in the lock files under loadtest/peers"]
    lines += ["- servers, Redis and the clients share the cores; nothing is pinned", ""]
    rows = [row for result in kept["modules"].values() for row in result["rows"]]
    lines += _summary(rows)
    for module, result in kept["modules"].items():
        when = f"finished {result['finished']}, load average before the run {result['load_before']:.1f}"
        lines += [f"## {module}", "", f"`{result['command']}`, {when}", ""]
        lines += [*_table(result["rows"]), ""]
    text = "\n".join(lines)
    (env.results / "results.md").write_text(text)
    plots.draw(env.results, kept["modules"])
    return text


def _summary(rows: list[dict]) -> list[str]:
    goals = [row for row in rows if row["met"] is not None]
    missed = [row for row in goals if not row["met"]]
    absent = [row for row in rows if not row["runs"]]
    lines = [f"Of {len(goals)} goals {len(goals) - len(missed)} are met."]
    if missed:
        lines += ["", "**Not met:**", ""]
        lines += [f"- {row['group']}: {row['name']} {_outcome(row)}, goal {row['goal']}" for row in missed]
    if absent:
        lines += ["", "**MISSING, could not be measured here:**", ""]
        lines += [f"- {row['group']}: {row['name']}: {row['note']}" for row in absent]
    return [*lines, ""]


def _outcome(row: dict) -> str:
    if row["ratio"] is None:
        return f"{number(row['median'])} {row['unit']}"
    return f"{row['ratio']:.2f} × {row['against']}"


def _table(rows: list[dict]) -> list[str]:
    lines = [
        "| | what | median | all runs | ratio | goal | met | |",
        "| --- | --- | --: | --- | --: | --- | --- | --- |",
    ]
    before = None
    for row in rows:
        group = "" if row["group"] == before else row["group"]
        before = row["group"]
        median = f"{number(row['median'])} {row['unit']}" if row["runs"] else "**MISSING**"
        runs = ", ".join(number(run) for run in row["runs"])
        ratio = _outcome(row) if row["ratio"] is not None else ""
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        cells = [group, row["name"], median, runs, ratio, row["goal"], met, row["note"]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def number(value: float) -> str:
    """A figure as people write it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine() -> dict[str, str]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    return {
        "machine": f"{os.cpu_count()} cores, {cpu[1] if cpu else platform.machine()}, {memory:.0f} GiB",
        "kernel": platform.release(),
    }


def _versions() -> dict[str, str]:
    commands = {
        "unread": ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
        "rustc": ["rustc", "--version"],
        "redis": ["redis-server", "--version"],
        "wrk": ["wrk", "-v"],
        "oha": [str(ROOT / "loadtest" / ".tools" / "bin" / "oha"), "--version"],
        "node": ["node", "--version"],
        "nginx": ["nginx", "-v"],
        "nchan": ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"],
        "webdis": ["dpkg-query", "-W", "-f", "${Version}", "webdis"],
    }
    return {name: _first_line(command) for name, command in commands.items()}


def _first_line(command: list[str]) -> str:
    if not shutil.which(command[0]):
        return "not here"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"
