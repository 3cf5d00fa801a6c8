"""This worker beside a stock one: `uv run python -m bench.worker [--runs N]`. Linux only.

Both run by turns on the same machine, so the ratios hold where the absolute values do not.
Targets are printed, not enforced: this is a benchmark and not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import importlib.util
import json
import os
import platform
import signal
import statistics
import sys
import sysconfig
import timeit
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import target
from agent.acceptance import decide
from agent.build import Build

from .processes import OURS, ROOT, STOCK, Side, WorkerProcess
from .stand_in import Answer, RegisteredWorker, StandIn

WARM_UP_OFFERS: Final = 20
OFFERS_IN_TURN: Final = 500
OFFERS_AT_ONCE: Final = 200
SETTLE_S: Final = 1.0
"""Rest between a start and what is measured next, and between two workers."""

UNTARGETED: Final = json.dumps({"customer": "c-1029", "locale": "en-GB"})
OTHER_BUILD: Final = json.dumps({target.KEY: "000000000000"} | json.loads(UNTARGETED))
THIS_BUILD: Final = json.dumps({target.KEY: "5f0c1d2e3a4b"} | json.loads(UNTARGETED))


@dataclass(frozen=True)
class Measure:
    """One line of the report.

    Attributes:
        label: what is measured; also the key of the values.
        unit: the unit of the absolute values.
        target: the highest ratio that is good, if there is one.
    """

    label: str
    unit: str
    target: float | None = None


START: Final = Measure("process start to registered", "s", target=0.6)
MAIN_RSS: Final = Measure("main process, resident", "MiB", target=0.9)
MAIN_PSS: Final = Measure("main process, PSS", "MiB")
JOB_RSS: Final = Measure("idle job process, resident", "MiB", target=1.0)
JOB_PSS: Final = Measure("idle job process, PSS", "MiB")
ALL_PSS: Final = Measure("all processes, PSS", "MiB")
ACCEPT_P50: Final = Measure(f"accept, {OFFERS_IN_TURN} in turn, p50", "ms")
ACCEPT_P99: Final = Measure(f"accept, {OFFERS_IN_TURN} in turn, p99", "ms", target=1.1)
BURST_P99: Final = Measure(f"accept, {OFFERS_AT_ONCE} at once, p99", "ms", target=1.1)
BURST_LAST: Final = Measure(f"accept, {OFFERS_AT_ONCE} at once, last", "ms")
# A stock worker has no reason to reject: these lines compare with its accepting.
REJECT_P50: Final = Measure(f"reject, {OFFERS_IN_TURN} in turn, p50", "ms")
REJECT_P99: Final = Measure(f"reject, {OFFERS_IN_TURN} in turn, p99", "ms")
REJECT_BURST_P99: Final = Measure(f"reject, {OFFERS_AT_ONCE} at once, p99", "ms")
REJECT_BURST_LAST: Final = Measure(f"reject, {OFFERS_AT_ONCE} at once, last", "ms")

MEASURES: Final = (
    *(START, MAIN_RSS, MAIN_PSS, JOB_RSS, JOB_PSS, ALL_PSS),
    *(ACCEPT_P50, ACCEPT_P99, BURST_P99, BURST_LAST),
    *(REJECT_P50, REJECT_P99, REJECT_BURST_P99, REJECT_BURST_LAST),
)
DECISION_TARGET_US: Final = 20.0

Values = dict[Measure, float]


async def measure(side: Side) -> Values:
    """Start one worker, measure all that there is to measure, and end it."""
    async with StandIn.running() as stand_in:
        with WorkerProcess.running(side, stand_in.url) as process:
            worker = await process.registered(stand_in)
            values = {START: worker.registered_at - process.started_at}
            await asyncio.sleep(SETTLE_S)
            values |= _memory(process)
            values |= await _answers(worker, rejects=side is OURS)
    await asyncio.sleep(SETTLE_S)
    return values


def decision_us() -> float:
    """Microseconds for one pure decision, at best."""
    build = Build("5f0c1d2e3a4b", "1.2.0", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", dirty=False)

    def one() -> None:
        asked = target.asked_by(dispatch_metadata=THIS_BUILD, room_metadata="")
        decide(asked, build, untargeted="accept", full=False)

    number = 20_000
    return min(timeit.repeat(one, number=number, repeat=7)) / number * 1e6


def _memory(process: WorkerProcess) -> Values:
    main = process.main_memory()
    jobs = process.job_memories()
    return {
        MAIN_RSS: main.rss,
        MAIN_PSS: main.pss,
        JOB_RSS: statistics.median(job.rss for job in jobs),
        JOB_PSS: statistics.median(job.pss for job in jobs),
        ALL_PSS: process.total_pss(),
    }


async def _answers(worker: RegisteredWorker, *, rejects: bool) -> Values:
    await worker.offer_in_turn(WARM_UP_OFFERS, UNTARGETED)
    in_turn = _ms(await worker.offer_in_turn(OFFERS_IN_TURN, UNTARGETED), available=True)
    at_once = _ms(await worker.offer_at_once(OFFERS_AT_ONCE, UNTARGETED), available=True)
    accepted = in_turn, at_once
    if rejects:
        in_turn = _ms(await worker.offer_in_turn(OFFERS_IN_TURN, OTHER_BUILD), available=False)
        at_once = _ms(await worker.offer_at_once(OFFERS_AT_ONCE, OTHER_BUILD), available=False)
    return {
        ACCEPT_P50: statistics.median(accepted[0]),
        ACCEPT_P99: _p99(accepted[0]),
        BURST_P99: _p99(accepted[1]),
        BURST_LAST: max(accepted[1]),
        REJECT_P50: statistics.median(in_turn),
        REJECT_P99: _p99(in_turn),
        REJECT_BURST_P99: _p99(at_once),
        REJECT_BURST_LAST: max(at_once),
    }


def _ms(answers: Iterable[Answer], *, available: bool) -> list[float]:
    answers = list(answers)
    if any(answer.available != available for answer in answers):
        raise RuntimeError(f"an answer was not available={available}: nothing to compare")
    return [answer.seconds * 1000 for answer in answers]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _report(ours: list[Values], stock: list[Values], decision: float) -> Iterator[str]:
    yield f"{'':33}{'ours':>10}{'stock':>10}      ratio"
    for line in MEASURES:
        mine = statistics.median(values[line] for values in ours)
        theirs = statistics.median(values[line] for values in stock)
        ratio = mine / theirs
        verdict = _verdict(ratio <= line.target, f"<= {line.target}") if line.target else ""
        text = f"{line.label:33}{mine:10.2f}{theirs:10.2f} {line.unit:4}{ratio:6.2f}  {verdict}"
        yield text.rstrip()
    verdict = _verdict(decision < DECISION_TARGET_US, f"< {DECISION_TARGET_US:.0f} us")
    yield f"{'one decision, without I/O':33}{decision:10.2f}{'':10} us          {verdict}"


def _verdict(good: bool, aim: str) -> str:
    return f"{'ok' if good else 'MISSED'} (target {aim})"


def _compile() -> None:
    """Make sure that neither side compiles Python while it is measured."""
    for folder in (ROOT / "agent", ROOT / "bench"):
        compileall.compile_dir(folder, quiet=1)
    for package in ("livekit.agents", "openai"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.cached or not Path(spec.cached).exists():
            compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)
            return


async def _run(runs: int) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    results: dict[Side, list[Values]] = {OURS: [], STOCK: []}
    for run in range(runs):
        # By turns, and each first as often as the other: noise and caches favour neither.
        for side in (OURS, STOCK) if run % 2 == 0 else (STOCK, OURS):
            sys.stderr.write(f"run {run + 1} of {runs}: {side.name}\n")
            results[side].append(await measure(side))
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"median of {runs} runs each; {machine}")
    print("\n".join(_report(results[OURS], results[STOCK], decision_us())))


def main() -> None:
    """Compare, and print the ratios."""
    parser = argparse.ArgumentParser(prog="bench.worker", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="how often each side is started")
    runs: int = parser.parse_args().runs
    if sys.platform != "linux":
        parser.error("this benchmark reads /proc, so it needs Linux")
    _compile()
    asyncio.run(_run(max(runs, 1)))


if __name__ == "__main__":
    main()
