"""Runs the benchmarks and writes their results: `make bench`, or `make bench ONLY=reads,rooms`.

BENCH_SECONDS and BENCH_ROUNDS say how long; BENCH_QUICK=1 is a smoke test of all of it, whose figures mean nothing.
"""

import datetime
import importlib.util
import os
import signal
import subprocess
import sys
import traceback

from bench import report
from bench.harness import LOADTEST, Env, Row

# In this order. Those that are not there are left out.
MODULES = ["reads", "limiter", "scale", "rooms", "writes", "memory", "live"]


def _leave(number: int, _frame: object) -> None:
    """Ends the run with all that it started; a second Ctrl-C does not get between."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _is_dirty() -> bool:
    """Whether the tree has changes that no commit has."""
    status = ["git", "-C", str(LOADTEST.parent), "status", "--porcelain", "--untracked-files=no"]
    return bool(subprocess.run(status, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Answers the exit code: 1 when a benchmark could not be run to its end."""
    quick = os.environ.get("BENCH_QUICK", "") not in ("", "0")
    seconds = int(os.environ.get("BENCH_SECONDS") or (1 if quick else 8))
    rounds = int(os.environ.get("BENCH_ROUNDS") or (1 if quick else 3))
    there = [name for name in MODULES if importlib.util.find_spec(f"bench.{name}")]
    only = [name for name in os.environ.get("ONLY", "").split(",") if name] or there
    unknown = [name for name in only if name not in there]
    if unknown:
        print(f"bench: no such benchmark: {', '.join(unknown)}; there are {', '.join(there)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)

    # Results of a quick run, and of a tree with changes that no commit has, go to a folder that git ignores.
    mark = "-quick" if quick else "-dirty" if _is_dirty() else ""
    name = f"{datetime.date.today().isoformat()}-{os.cpu_count()}c{mark}"
    env = Env(LOADTEST / "results" / name, seconds=seconds, rounds=rounds, quick=quick)
    failed = []
    try:
        for module in only:
            env.begin(module)
            try:
                rows: list[Row] = importlib.import_module(f"bench.{module}").run(env)
                report.keep(env, module, rows)
            except Exception:
                traceback.print_exc()
                failed.append(module)
            finally:
                env.stop_all()
    finally:
        env.close()
    text = report.write(env)
    print(text)
    if failed:
        print(f"bench: FAILED, and not in the results: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
