"""A container of the image beside the checkout: `uv run python -m bench.image [--runs N]`.

The same worker starts inside and outside by turns, in one run on the same machine, and registers
with a fake LiveKit. Builds the image first, which takes root and what `scripts/test --slow
tests/image` gets; `IMAGE_BASE` names the base that it made.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.paths import ROOT
from bench.processes import OURS, WorkerProcess
from build_aware.testbed import NotInstalledError, Processes, ports, until
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.worker import PINNED, READY_S
from tests.support import images
from tests.support.containers import Container
from tests.support.images import Image, Images, Layer

TARGET: Final = 1.1
SETTLE_S: Final = 1.0
"""Rest between two workers."""


async def outside_s() -> float:
    """From the start of a worker of the checkout to its registration."""
    async with FakeLiveKit() as server, WorkerProcess.running(OURS, server) as worker:
        return worker.start_s


async def inside_s(image: Image) -> float:
    """From the start of a container, its mounts included, to its worker's registration."""
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder))
        try:
            async with FakeLiveKit() as server:
                health = {"AGENT_HEALTH_PORT": str(ports.free(1)[0]), "OPENAI_API_KEY": "unused"}
                env = PINNED | server.credentials | dict(OURS.env) | health
                container = await Container.start(processes, image, env=env)
                await until(lambda: server.registered_at, "a registration", READY_S)
                return server.registered_at[0] - container.process.started_at
        finally:
            await processes.close()


async def starts(image: Image, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of each start inside and outside, by turns and each first as often as the other."""
    inside: list[float] = []
    outside: list[float] = []
    for run in range(runs):
        sys.stderr.write(f"run {run + 1} of {runs}\n")
        for in_container in (True, False) if run % 2 == 0 else (False, True):
            if in_container:
                inside.append(await inside_s(image))
            else:
                outside.append(await outside_s())
            await asyncio.sleep(SETTLE_S)
    return inside, outside


def report(layers: list[Layer], inside: list[float], outside: list[float]) -> str:
    """The layers that the image adds to its base, and the ratio of the starts."""
    lines = [f"layer {n} on the base: {layer.size / 1e6:.1f} MB" for n, layer in enumerate(layers)]
    ratio = statistics.median(a / b for a, b in zip(inside, outside, strict=True))
    verdict = "ok" if ratio <= TARGET else "MISSED"
    return "\n".join(
        (
            *lines,
            f"process start to registered: {statistics.median(inside):.2f} s in a container, "
            f"{statistics.median(outside):.2f} s outside",
            f"ratio {ratio:.2f}, the median of {len(inside)} pairs: {verdict} (target <= {TARGET})",
        )
    )


def run(built: Images, runs: int) -> str:
    """Build, measure, and tell."""
    for code in (ROOT / "agent", ROOT / "build_aware"):
        compileall.compile_dir(code, quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        image = built.build(images.checkout(Path(folder) / "checkout"), "measured")
    inside, outside = asyncio.run(starts(image, runs))
    return report(built.layers(image)[1:], inside, outside)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.image", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="how often each side is started")
    runs: int = parser.parse_args().runs
    try:
        with images.building() as built:
            print(run(built, max(runs, 1)))
    except NotInstalledError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
