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
    lines += ["- servers, Redis and the clients share the cores; nothing is pinned", ""]
    absent = []
    for module, result in kept["modules"].items():
        lines += [f"## {module}", "", f"`{result['command']}`, finished {result['finished']}", ""]
        groups: dict[str, list[dict]] = {}
        for row in result["rows"]:
            groups.setdefault(row["group"], []).append(row)
            if not row["runs"]:
                absent.append(f"{row['group']}: {row['name']}: {row['note']}")
        for group, rows in groups.items():
            lines += [f"### {group}", "", *_table(rows), ""]
    if absent:
        lines += ["## Missing", "", "**These could not be measured here:**", "", *(f"- {line}" for line in absent), ""]
    text = "\n".join(lines)
    (env.results / "results.md").write_text(text)
    plots.draw(env.results, kept["modules"])
    return text


def _table(rows: list[dict]) -> list[str]:
    lines = ["| what | median | all runs | ratio | goal | met | |", "| --- | --: | --- | --: | --- | --- | --- |"]
    for row in rows:
        median = f"{number(row['median'])} {row['unit']}" if row["runs"] else "**MISSING**"
        runs = ", ".join(number(run) for run in row["runs"])
        ratio = f"{row['ratio']:.2f} × {row['against']}" if row["ratio"] is not None else ""
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        lines.append(f"| {row['name']} | {median} | {runs} | {ratio} | {row['goal']} | {met} | {row['note']} |")
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
        "webdis": ["dpkg-query", "-W", "-f", "${Version}", "webdis"],
    }
    return {name: _first_line(command) for name, command in commands.items()}


def _first_line(command: list[str]) -> str:
    if not shutil.which(command[0]):
        return "not here"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"
