"""What the rollout costs users: `uv run python -m bench.rollout [PART ...]`.

On real livekit-servers, with users whose rooms name no build. Each part prints its figures and
whether what is promised held. The exit code is 1 if something did not. All parts take half an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from bench.rollout import parts
from build_aware.testbed.ending import run_and_exit

PARTS: Final[dict[str, Callable[[], Awaitable[parts.Promises]]]] = {
    part.__name__: part
    for part in (
        parts.alone,
        parts.deploys,
        parts.killed,
        parts.commands,
        parts.takeover,
        parts.cluster,
        parts.decisions,
    )
}


async def _run(names: list[str]) -> int:
    broken = 0
    for name in names:
        print(f"{name}: {PARTS[name].__doc__}", flush=True)
        for what, held in (await PARTS[name]()).items():
            print(f"  {'ok    ' if held else 'BROKEN'} {what}", flush=True)
            broken += not held
    return int(broken > 0)


def main() -> None:
    """Measure, and print what users waited and which promises held."""
    parser = argparse.ArgumentParser(
        prog="bench.rollout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:12}{part.__doc__}" for name, part in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure; all by default")
    names = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"{unknown[0]} is none of {', '.join(PARTS)}")
    sys.exit(asyncio.run(_run(names)))


if __name__ == "__main__":
    run_and_exit(main)
