"""A soak that anybody can run: `uv run python -m bench.soak --minutes 10 --seed 7`.

Users come and go while deploys and faults happen at random; docs/soak.md says what they are.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.paths import ROOT
from bench.soak import growth, logs, plan, report
from bench.soak.driver import Driver, Run
from bench.soak.judge import judge
from bench.soak.plan import EACH_S, Options, Plan
from build_aware.testbed import Processes, StartError
from build_aware.testbed.ending import run_and_exit
from build_aware.testbed.environ import talk_to_this_machine_only
from build_aware.testbed.interrupts import end_all, interruptible
from build_aware.testbed.livekit_server import find_binary

CLEAN: Final = 0
TROUBLE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""The exit codes; docs/soak.md has the table."""

DEFAULTS: Final = Options()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="bench.soak", description=__doc__.splitlines()[0])
    long = made.add_mutually_exclusive_group()
    long.add_argument(
        "--minutes", type=float, default=DEFAULTS.minutes, help="for how long users come"
    )
    long.add_argument(
        "--each",
        action="store_true",
        help=f"for {EACH_S / 60:.1f} minutes: as long as every kind of fault once takes",
    )
    made.add_argument(
        "--seed", type=int, default=DEFAULTS.seed, help="the same seed gives the same plan"
    )
    made.add_argument("--plan", action="store_true", help="print the plan, and do nothing")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all that is known")
    made.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the logs of all processes")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and return the exit code."""
    talk_to_this_machine_only()
    given = parser().parse_args(arguments)
    try:
        options = Options(EACH_S / 60 if given.each else given.minutes, given.seed)
        drawn = plan.plan(options)
        if given.plan:
            print("\n".join(drawn.lines()))
            return CLEAN
        find_binary()
        if given.json is not None and not given.json.resolve().parent.is_dir():
            raise ValueError(f"--json {given.json}: its folder does not exist; create it")
        if given.logs is not None and (not given.logs.is_dir() or any(given.logs.iterdir())):
            raise ValueError(f"--logs {given.logs}: expected an empty folder; create it")
        return _soak(options, drawn, given.json, given.logs)
    except (ValueError, StartError) as error:
        print(f"bench.soak: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; all processes are ended", file=sys.stderr)
        return INTERRUPTED


def _soak(options: Options, drawn: Plan, json_file: Path | None, folder: Path | None) -> int:
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        run = _run(drawn, folder)
        read = (line for log in run.logs for line in log.read_text("utf-8", "replace").splitlines())
        found = logs.read(read, ROOT)
    verdict = judge(run.seen)
    grown = growth.changes(run.samples)
    out = Console(highlight=False, width=None if os.isatty(1) else 140)
    out.print(report.table("after", verdict.by_fault))
    out.print()
    out.print(report.table("users who", verdict.by_way))
    out.print()
    for line in report.lines(run.seen, verdict, found, grown):
        out.print(line, markup=False)
    if json_file is not None:
        text = report.as_json(options, drawn, run.seen, verdict=verdict, logs=found, grown=grown)
        json_file.write_text(text + "\n", "utf-8")
    return CLEAN if report.is_clean(verdict, found) else TROUBLE


def _run(drawn: Plan, folder: Path) -> Run:
    """Run it, and leave no process behind, whatever happens."""
    started = Processes(folder)
    # Users' clients log every lost connection, and here they lose many.
    logging.basicConfig(filename=folder / "users.log")

    def tell(at_s: float, line: str) -> None:
        print(f"{at_s:7.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        return asyncio.run(interruptible(Driver(drawn, started, folder, tell).run()))
    finally:
        end_all(started)


if __name__ == "__main__":
    run_and_exit(lambda: sys.exit(main()))
