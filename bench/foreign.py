"""Agents of other teams, ours by one line and stock: `uv run python -m bench.foreign [KIND ...]`.

Each is a real worker on a real livekit-server with a real user. Of each is told whether a call
goes on after two SIGTERMs to the process group, how long the draining worker takes to exit when
its last user has left (after the team's own endings, where it has some), and when the user of a
worker that is killed has another agent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from build_aware.testbed import Process, Testbed
from build_aware.testbed.ending import run_and_exit
from build_aware.testbed.livekit_server import LiveKitServer
from tests.support.foreign import SERVING, Caller, Copy, Kind, Side, ask_for, copy

GIVE_UP_S: Final = 60.0
"""What takes longer is not waited for."""

SIDES: Final[tuple[Side, Side]] = ("ours", "stock")

SETTLED_S: Final = 1.0
"""What a worker gets to act on a signal, or not."""


@dataclass(frozen=True)
class Call:
    """A call with an agent.

    Attributes:
        bed: where more can be started.
        livekit: the server.
        agent: the agent's code.
        worker: the worker.
        caller: its user.
    """

    bed: Testbed
    livekit: LiveKitServer
    agent: Copy
    worker: Process
    caller: Caller

    @classmethod
    @contextlib.asynccontextmanager
    async def with_an_agent(cls, kind: Kind, side: Side) -> AsyncIterator[Call]:
        """Start all that a call needs, and end it with the context."""
        with tempfile.TemporaryDirectory() as folder:
            async with Testbed(Path(folder)) as bed:
                livekit = await bed.livekit(logging={"level": "warn"})
                agent = copy(kind, Path(folder) / "agent", side=side)
                worker = await agent.start(bed.worker, livekit)
                await ask_for(livekit, kind, "call")
                caller = await Caller.joins(bed.user, livekit, kind, "call")
                await caller.agent()
                await caller.is_answered()
                yield cls(bed, livekit, agent, worker, caller)


async def goes_on(kind: Kind, side: Side) -> bool:
    """Whether a call goes on after two SIGTERMs to the process group of its worker."""
    async with Call.with_an_agent(kind, side) as call:
        (before,) = {agent.sid for agent in call.caller.agents}
        for _ in range(2):
            call.worker.send_to_group()
        await asyncio.sleep(SETTLED_S)
        if not call.worker.running:
            return False
        with contextlib.suppress(AssertionError, TimeoutError):
            await asyncio.wait_for(call.caller.is_answered(), GIVE_UP_S)
            return [agent.sid for agent in call.caller.agents] == [before]
        return False


async def exit_s(kind: Kind, side: Side) -> float | None:
    """From the leave of the last user, or the team's own last ending, to the worker's exit."""
    async with Call.with_an_agent(kind, side) as call:
        call.worker.send()
        await asyncio.sleep(SETTLED_S)
        await call.caller.leave()
        left_at = time.time()
        if not await call.worker.exited(GIVE_UP_S):
            return None
        assert call.worker.exited_at is not None  # noqa: S101 it has exited
        own_endings: list[float] = [note["at"] for note in call.agent.journal.find()]
        return call.worker.exited_at - max([left_at, *own_endings])


async def taken_over_s(kind: Kind, side: Side) -> float | None:
    """From the death of a worker to another agent for its user, while another worker is up."""
    async with Call.with_an_agent(kind, side) as call:
        (before,) = call.caller.agents
        await call.agent.start(call.bed.worker, call.livekit, name="other")
        await asyncio.sleep(SETTLED_S)
        call.worker.send(signal.SIGKILL)
        killed = time.monotonic()
        try:
            await call.caller.agent(besides=before, deadline_s=GIVE_UP_S)
        except TimeoutError:
            return None
        return time.monotonic() - killed


async def _run(kinds: Sequence[Kind], runs: int) -> None:
    print(f"{'':22}{'two SIGTERMs':>16}{'exit after':>20}{'taken over after':>20}")
    print(f"{'':22}{'ours':>8}{'stock':>8}{'ours':>12}{'stock':>8}{'ours':>12}{'stock':>8}")
    for kind in kinds:
        cells = []
        for side in SIDES:
            survived = [await goes_on(kind, side) for _ in range(runs)]
            cells.append("goes on" if all(survived) else "cut")
        for measure in (exit_s, taken_over_s):
            for side in SIDES:
                cells.append(_median([await measure(kind, side) for _ in range(runs)]))
        first, second, *rest = cells
        columns = "".join(f"{cell:>{12 - 4 * (number % 2)}}" for number, cell in enumerate(rest))
        print(f"{kind.name:22}{first:>8}{second:>8}{columns}", flush=True)


def _median(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"{statistics.median(known):.2f} s" if len(known) == len(seconds) else "never"


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(prog="bench.foreign", description=__doc__)
    names = [kind.name for kind in SERVING]
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(names)}; or all")
    parser.add_argument("--runs", type=int, default=1, help="how often each thing is measured")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = [kind for kind in SERVING if not arguments.kinds or kind.name in arguments.kinds]
    asyncio.run(_run(chosen, max(arguments.runs, 1)))


if __name__ == "__main__":
    run_and_exit(main)
