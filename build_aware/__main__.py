"""`python -m build_aware COMMAND agent.py`: our commands for an agent that does not call them."""

from __future__ import annotations

import sys
from pathlib import Path

from build_aware.cli.found import Found
from build_aware.cli.main import run
from build_aware.drain.exit_codes import fail


def main() -> None:
    """Run the command for the agent whose file the command line names."""
    named = [each for each in sys.argv[2:] if each.endswith(".py")]
    if sys.argv[1:] and not named and "--help" not in sys.argv:
        fail("expected `python -m build_aware COMMAND agent.py`: no agent file is given")
    if not named:
        run(Found("agent:server"))
        return
    file = Path(named[0]).resolve()
    if not file.is_file():
        fail(f"{file} does not exist")
    sys.argv.remove(named[0])
    sys.path.insert(0, str(file.parent))
    run(Found(file.stem, file))


if __name__ == "__main__":
    main()
