"""What has to happen before the team's code runs, in a program that is about to run a worker.

Importing this package must stay harmless everywhere else: in job processes, tests and tools.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from build_aware.drain import starting

LIVEKIT: Final = "livekit.agents.__main__"
OURS: Final = "build_aware.__main__"
"""The modules that `python -m` runs a worker by."""


def runs_a_worker(main: Any, arguments: Sequence[str]) -> bool:
    """Whether this program is about to run a worker.

    Args:
        main: its module `__main__`.
        arguments: its command line, without the program.
    """
    spec = getattr(main, "__spec__", None)
    is_script = spec is None and str(getattr(main, "__file__", "")).endswith(".py")
    if not is_script and getattr(spec, "name", None) not in {LIVEKIT, OURS}:
        return False
    # `dev` watches for changes, and starts itself again without that.
    return arguments[:1] == ["start"] or (arguments[:1] == ["dev"] and "--no-reload" in arguments)


def program() -> Path | None:
    """The file of the agent that this program is about to run a worker of, if it is."""
    main = sys.modules.get("__main__")
    arguments = sys.argv[1:]
    if (
        multiprocessing.parent_process() is not None
        or threading.current_thread() is not threading.main_thread()
        or not runs_a_worker(main, arguments)
    ):
        return None
    if getattr(main, "__spec__", None) is None:
        return Path(str(getattr(main, "__file__", "")))
    named = next((each for each in arguments[1:] if each.endswith(".py")), None)
    return Path(named) if named else None


_PROGRAM: Final = program()
_acted = False


def begin() -> None:
    """Have a stop signal end the start with 0, whenever it comes."""
    if _PROGRAM is not None:
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        starting.run_by_livekit = getattr(spec, "name", None) == LIVEKIT
        starting.stop_means_exit()
        # Imports make much and free nothing: looking for garbage meanwhile takes 0.1 s.
        gc.disable()


def livekit_came_first() -> bool:
    """Whether livekit-agents is imported already, as its own command line does."""
    return _PROGRAM is not None and "livekit.agents" in sys.modules


def livekit_is_imported() -> None:
    """Look at the files of this build, and fork the fork server, before any code of the team.

    Once: a second call changes nothing.
    """
    global _acted  # noqa: PLW0603 a process has one program
    if _PROGRAM is None or _acted:
        return
    _acted = True
    from build_aware.identity import whose  # noqa: PLC0415
    from build_aware.server import forkserver  # noqa: PLC0415

    whose.look_early(_PROGRAM)
    forkserver.fork()
