"""This worker beside a stock one: `uv run python -m bench.worker [--runs N]`. Linux only.

Both run in one go on the same machine, so the ratios hold where the absolute values do not.
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
import tempfile
import timeit
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bench.paths import ROOT
from bench.processes import OURS, STOCK, Side, WorkerProcess
from build_aware.dispatch import target
from build_aware.dispatch.acceptance import decide
from build_aware.identity.build import Build
from build_aware.testbed.fake_livekit import FakeLiveKit
from tests.support import foreign

WARM_UP_OFFERS: Final = 20
OFFERS_IN_TURN: Final = 500
OFFERS_AT_ONCE: Final = 200
BURSTS: Final = 4
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


START: Final = Measure("process start to registered", "s", target=0.55)
STARTER: Final = Measure("the same, LiveKit's starter", "s", target=0.65)
MAIN_RSS: Final = Measure("main process, resident", "MiB", target=0.9)
MAIN_PSS: Final = Measure("main process, PSS", "MiB")
JOB_RSS: Final = Measure("idle job process, resident", "MiB", target=1.0)
JOB_PSS: Final = Measure("idle job process, PSS", "MiB")
ALL_PSS: Final = Measure("all processes, PSS", "MiB")
ACCEPT_P50: Final = Measure(f"accept, {OFFERS_IN_TURN} in turn, p50", "ms", target=1.1)
ACCEPT_P99: Final = Measure(f"accept, {OFFERS_IN_TURN} in turn, p99", "ms", target=1.1)
BURST_P99: Final = Measure(f"accept, {OFFERS_AT_ONCE} at once, p99", "ms", target=1.1)
BURST_LAST: Final = Measure(f"accept, {OFFERS_AT_ONCE} at once, last", "ms")
# Jobs for another build. A stock worker knows no builds: it accepts them.
REJECT_P50: Final = Measure(f"reject, {OFFERS_IN_TURN} in turn, p50", "ms")
REJECT_P99: Final = Measure(f"reject, {OFFERS_IN_TURN} in turn, p99", "ms")
REJECT_BURST_P99: Final = Measure(f"reject, {OFFERS_AT_ONCE} at once, p99", "ms")
REJECT_BURST_LAST: Final = Measure(f"reject, {OFFERS_AT_ONCE} at once, last", "ms")

ACCEPTS: Final = (ACCEPT_P50, ACCEPT_P99, BURST_P99, BURST_LAST)
REJECTS: Final = (REJECT_P50, REJECT_P99, REJECT_BURST_P99, REJECT_BURST_LAST)
MEASURES: Final = (
    START,
    STARTER,
    MAIN_RSS,
    MAIN_PSS,
    JOB_RSS,
    JOB_PSS,
    ALL_PSS,
    *ACCEPTS,
    *REJECTS,
)
DECISION_TARGET_US: Final = 20.0

Values = dict[Measure, float]


@dataclass(frozen=True)
class Role:
    """A worker, the jobs it is offered, and the answer that it must give to them.

    Attributes:
        worker: who is asked.
        metadata: the metadata of the jobs.
        available: whether the worker takes such a job.
    """

    worker: WorkerProcess
    metadata: str
    available: bool

    async def offer(self, count: int) -> list[float]:
        """Offer jobs together, and return after how many milliseconds each was answered."""
        answers = await self.worker.offer(count, self.metadata)
        if any(answer.response.available != self.available for answer in answers):
            raise RuntimeError(f"expected available={self.available}: nothing to compare")
        return [answer.seconds * 1000 for answer in answers]


async def measure_start(side: Side) -> Values:
    """Start one worker with the machine to itself, and look at its memory."""
    async with FakeLiveKit() as server, WorkerProcess.running(side, server) as worker:
        await asyncio.sleep(SETTLE_S)
        values = {START: worker.start_s} | _memory(worker)
    await asyncio.sleep(SETTLE_S)
    return values


async def measure_starter(side: Side) -> Values:
    """Start one worker that is an agent in the manner of LiveKit's starter."""
    async with FakeLiveKit() as server, WorkerProcess.running(side, server) as worker:
        values = {STARTER: worker.start_s}
    await asyncio.sleep(SETTLE_S)
    return values


def starters(folder: Path) -> dict[Side, Side]:
    """That agent, with our import in place of LiveKit's and without, by the side that it is on."""
    return {
        OURS: _starter(folder / "ours", "ours"),
        STOCK: _starter(folder / "stock", "stock"),
    }


def _starter(folder: Path, side: Literal["ours", "stock"]) -> Side:
    foreign.copy(foreign.STARTER, folder, side=side)
    compileall.compile_dir(folder, quiet=1)
    return Side(f"starter, {side}", folder / "agent.py", {"PYTHONPATH": str(ROOT)})


async def measure_answers() -> tuple[Values, Values]:
    """Offer jobs to both workers in the same moments, so that noise hits both alike."""
    async with (
        FakeLiveKit() as at_ours,
        FakeLiveKit() as at_stock,
        WorkerProcess.running(OURS, at_ours) as ours,
        WorkerProcess.running(STOCK, at_stock) as stock,
    ):
        await asyncio.sleep(SETTLE_S)
        # In turn and equally often: the worker that was asked last has the warmer caches.
        roles = [
            Role(ours, UNTARGETED, available=True),
            Role(stock, UNTARGETED, available=True),
            Role(ours, OTHER_BUILD, available=False),
            Role(stock, OTHER_BUILD, available=True),
        ]
        for _ in range(WARM_UP_OFFERS):
            for role in roles:
                await role.offer(1)
        in_turn: list[list[float]] = [[] for _ in roles]
        for _ in range(OFFERS_IN_TURN):
            for role, answers in zip(roles, in_turn, strict=True):
                answers.extend(await role.offer(1))
        at_once: list[list[list[float]]] = [[] for _ in roles]
        for burst in range(BURSTS):
            # What a worker still does about one burst slows down the next, whoever gets it.
            for number in range(len(roles))[:: 1 if burst % 2 == 0 else -1]:
                await asyncio.sleep(SETTLE_S)
                at_once[number].append(await roles[number].offer(OFFERS_AT_ONCE))
    await asyncio.sleep(SETTLE_S)
    accept, stock_accept, reject, stock_other = (
        (
            statistics.median(turn),
            _p99(turn),
            statistics.median(map(_p99, bursts)),
            statistics.median(map(max, bursts)),
        )
        for turn, bursts in zip(in_turn, at_once, strict=True)
    )
    return (
        dict(zip(ACCEPTS + REJECTS, accept + reject, strict=True)),
        dict(zip(ACCEPTS + REJECTS, stock_accept + stock_other, strict=True)),
    )


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


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _report(ours: list[Values], stock: list[Values], decision: float) -> Iterator[str]:
    yield "medians; the ratio is that of pairs"
    yield f"{'':33}{'ours':>10}{'stock':>10}      ratio"
    for line in MEASURES:
        mine = statistics.median(values[line] for values in ours)
        theirs = statistics.median(values[line] for values in stock)
        # Of each pair, since a machine is slower at one time than at another.
        ratio = statistics.median(
            one[line] / other[line] for one, other in zip(ours, stock, strict=True)
        )
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
    found: dict[Side, list[Values]] = {OURS: [], STOCK: []}
    with tempfile.TemporaryDirectory() as folder:
        starter = starters(Path(folder))
        for run in range(runs):
            sys.stderr.write(f"run {run + 1} of {runs}\n")
            # By turns, and each first as often as the other: noise and caches favour neither.
            for side in (OURS, STOCK) if run % 2 == 0 else (STOCK, OURS):
                values = await measure_start(side) | await measure_starter(starter[side])
                found[side].append(values)
            for side, answers in zip(found, await measure_answers(), strict=True):
                found[side][-1] |= answers
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"median of {runs} runs each; {machine}")
    print("\n".join(_report(found[OURS], found[STOCK], decision_us())))


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
