"""How fast a worker leaves: `uv run python -m bench.drain [--runs N]`.

An idle worker of ours and a stock one are stopped by turns. Then, on a real livekit-server, the
last user leaves a session, and the last user leaves a draining worker.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from bench.paths import ROOT
from bench.processes import OURS, STOCK, Side, WorkerProcess
from build_aware.testbed import NotInstalledError, Process, Testbed, User
from build_aware.testbed.ending import run_and_exit
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.livekit_server import LiveKitServer

POLL_S: Final = 0.002
GONE_DEADLINE_S: Final = 30.0


async def idle_exit_s(side: Side) -> float:
    """From SIGTERM to the end of an idle worker's main process."""
    async with FakeLiveKit() as server, WorkerProcess.running(side, server) as worker:
        return await _gone_after_s(worker.process(), worker.stop)


async def last_user_s() -> tuple[float, float]:
    """From the leave of the last user to the end of its job, and of its draining worker."""
    with tempfile.TemporaryDirectory() as folder:
        async with Testbed(Path(folder)) as bed:
            server = await bed.livekit()
            worker = await bed.worker(server, command=("agent.py", "start"), folder=ROOT)
            job_s = await _leave_s(server, worker, drain=False)
            worker_s = await _leave_s(server, worker, drain=True)
    return job_s, worker_s


async def _leave_s(server: LiveKitServer, worker: Process, *, drain: bool) -> float:
    room = f"room-{drain}"
    user = await User(server, room).join()
    await user.agent()
    await user.unmute()
    (started,) = await worker.logged("session started", room=room)
    if drain:
        worker.send(signal.SIGTERM)
        await worker.logged("draining worker")
    gone = psutil.Process(worker.pid if drain else started["pid"])
    leaving: list[asyncio.Task[None]] = []
    seconds = await _gone_after_s(gone, lambda: leaving.append(asyncio.create_task(user.leave())))
    await asyncio.gather(*leaving)
    return seconds


async def _gone_after_s(process: psutil.Process, action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    while _runs(process):
        if time.perf_counter() - started > GONE_DEADLINE_S:
            raise TimeoutError(f"{process} still runs after {GONE_DEADLINE_S} s")
        await asyncio.sleep(POLL_S)
    return time.perf_counter() - started


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _run(runs: int) -> None:
    idle: dict[Side, list[float]] = {OURS: [], STOCK: []}
    for number in range(runs):
        print(f"run {number + 1} of {runs}", flush=True)
        for side, values in idle.items():
            values.append(await idle_exit_s(side))
    ours, stock = (statistics.median(values) for values in idle.values())
    print(f"{'':38}{'ours':>8}{'stock':>8}{'ratio':>8}")
    print(
        f"{'idle: stop signal to exit':38}{ours:8.3f}{stock:8.3f}{ours / stock:8.2f}"
        f"  {_verdict(ours, 1.0)}"
    )
    try:
        pairs = [await last_user_s() for _ in range(runs)]
    except NotInstalledError as error:
        print(f"the rest needs a server: {error}")
        return
    job_s = statistics.median(pair[0] for pair in pairs)
    worker_s = statistics.median(pair[1] for pair in pairs)
    print(f"{'last user gone: to job gone':38}{job_s:8.3f}{'':16}  {_verdict(job_s, 1.0)}")
    print(f"{'same, draining: to worker exit':38}{worker_s:8.3f}{'':16}  {_verdict(worker_s, 2.0)}")


def _verdict(seconds: float, target: float) -> str:
    return f"{'ok' if seconds < target else 'MISSED'} (target < {target:g} s)"


def main() -> None:
    """Measure, and print medians in seconds."""
    parser = argparse.ArgumentParser(prog="bench.drain", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how often each thing is measured")
    asyncio.run(_run(max(parser.parse_args().runs, 1)))


if __name__ == "__main__":
    run_and_exit(main)
