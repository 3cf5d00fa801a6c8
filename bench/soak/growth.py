"""Whether a worker grows: its memory, descriptors and threads over the run."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import psutil

from build_aware.testbed import Process

EVERY_S: Final = 3.0
"""From one sample to the next."""

MEDIAN_S: Final = 60.0
"""A value is the median of this long, or of a quarter of a shorter run: sessions come and go."""

_MEBI: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """A worker's main process with all below it, at one time.

    Attributes:
        at_s: when.
        rss_mib: resident memory in MiB; what they share counts for each.
        pss_mib: the same, what they share counts once.
        descriptors: open files and connections.
        threads: threads.
        processes: processes.
    """

    at_s: float
    rss_mib: float
    pss_mib: float
    descriptors: float
    threads: float
    processes: float


@dataclass(frozen=True, slots=True)
class Change:
    """A value in the middle of the run and at its end."""

    name: str
    middle: float
    end: float

    @property
    def percent(self) -> float:
        """By how much it grew."""
        return (self.end / self.middle - 1) * 100 if self.middle else 0.0


def changes(samples: Sequence[Sample]) -> list[Change]:
    """What has changed from the middle to the end; empty without enough samples."""
    if len(samples) < 4:
        return []
    first_s, last_s = samples[0].at_s, samples[-1].at_s
    width_s = min(MEDIAN_S, (last_s - first_s) / 4)
    middle_s = (first_s + last_s) / 2
    middle = [s for s in samples if abs(s.at_s - middle_s) <= width_s / 2]
    end = [s for s in samples if s.at_s >= last_s - width_s]
    names = [name for name in asdict(samples[0]) if name != "at_s"]
    return [
        Change(
            name,
            statistics.median(getattr(sample, name) for sample in middle or samples),
            statistics.median(getattr(sample, name) for sample in end),
        )
        for name in names
    ]


async def follow(worker: Process, clock: Callable[[], float], samples: list[Sample]) -> None:
    """Take samples of a worker until cancelled."""
    while True:
        if family := await asyncio.to_thread(_measure, worker):
            samples.append(Sample(clock(), *family))
        await asyncio.sleep(EVERY_S)


def _measure(worker: Process) -> tuple[float, float, float, float, float] | None:
    rss = pss = descriptors = threads = processes = 0.0
    for process in worker.family():
        try:
            memory = process.memory_full_info()
            descriptors += process.num_fds()
            threads += process.num_threads()
        except psutil.Error:
            continue  # It has just ended.
        rss += memory.rss / _MEBI
        pss += getattr(memory, "pss", memory.uss) / _MEBI
        processes += 1
    return (rss, pss, descriptors, threads, processes) if processes else None
