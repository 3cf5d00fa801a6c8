"""Which loaded modules are the team's: a fork of this process must not take them for imported."""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Set
from pathlib import Path
from types import FrameType
from typing import Any, Final


def finished() -> set[str]:
    """Names of modules that a job process has to run, and that have run here already.

    What they have left in others, such as a metric in a library's registry, would be in the way.
    """
    importing = set(_importing(sys._getframe()))
    running = {parent for name in importing for parent in _with_parents(name)}
    # Python knows the program by a second name, `__mp_main__`.
    these = {id(sys.modules.get(name)) for name in running}
    return {name for name in _to_forget(importing) if id(sys.modules[name]) not in these}


def forget_unfinished() -> None:
    """Forget all modules that a program of its own would have to import again.

    Those are the ones that are being imported right now, and all others of the team: a job
    process must not share their connections, threads and locks with the worker.
    """
    for name in _to_forget(set(_importing(sys._getframe()))):
        del sys.modules[name]


def is_installed(name: str, module: Any) -> bool:
    """Whether a module is Python's, or of an installed distribution; else it is the team's.

    To import twice what is installed would cost time, and libraries in C do not always bear it.
    """
    # Not `getattr`: a module that loads its attributes when asked would load this one.
    found = getattr(module, "__dict__", {})
    if (file := found.get("__file__")) is not None:
        places = [str(file)]
    else:
        # A package without a file of its own may be in several folders. A module that has none
        # is built in.
        places = [str(folder) for folder in found.get("__path__", ())]
    is_package = "__path__" in found and file is not None
    levels = name.count(".") + (2 if is_package else 1)
    return not places or any(
        place.startswith(_FOLDERS) or _has_distributions(_up(place, levels)) for place in places
    )


def _importing(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            yield str(frame.f_globals.get("__name__"))
        frame = frame.f_back


def _to_forget(importing: Set[str]) -> set[str]:
    forgotten = {
        name
        for name, module in list(sys.modules.items())
        if not _is_ours(name) and (name in importing or not is_installed(name, module))
    }
    # A package that is imported again knows nothing of its modules that are loaded.
    return {
        name
        for name in sys.modules
        if not _is_ours(name) and not forgotten.isdisjoint(_with_parents(name))
    }


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in {"build_aware", "livekit"}


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _up(place: str, levels: int) -> str:
    for _ in range(levels):
        place = os.path.dirname(place)  # noqa: PTH120 a path for each of thousands of modules
    return place


@functools.cache
def _has_distributions(folder: str) -> bool:
    """Whether distributions are installed into a folder, as `pip install --target` does."""
    return any(Path(folder).glob("*.dist-info"))


_FOLDERS: Final = tuple(
    os.path.join(folder, "")  # noqa: PTH118 a string, for `startswith`
    for folder in {
        *site.getsitepackages(),
        site.getusersitepackages(),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
"""Where Python and installed distributions are, as a rule."""
