"""Which loaded modules are the team's: a fork of this process must not take them for imported."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path
from types import FrameType


def forget_unfinished() -> None:
    """Forget all modules that a program of its own would have to import again.

    Those are the ones that are being imported right now, and all others of the team: a job
    process must not share their connections, threads and locks with the worker.
    """
    importing = set(_importing(sys._getframe()))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if _is_ours(name):
            continue
        if name in importing or (file is not None and not _is_installed(file)):
            del sys.modules[name]


def _importing(frame: FrameType | None) -> list[str]:
    names = []
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            names.append(str(frame.f_globals.get("__name__")))
        frame = frame.f_back
    return names


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in {"build_aware", "livekit"}


def _is_installed(file: str) -> bool:
    return any(Path(file).is_relative_to(folder) for folder in _FOLDERS)


_FOLDERS = {
    *(Path(path) for path in site.getsitepackages()),
    Path(site.getusersitepackages()),
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
}
"""Where Python and installed distributions are."""
