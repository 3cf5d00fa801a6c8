"""Processes that belong to a test bed, found by their mark, whoever their parent is by now."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import psutil

MARK: Final = "TESTBED_MARK"
"""The variable by which a process is known as ours, whoever its parent is by now.

Marks nest: what a marked process starts through a test bed of its own has a mark that begins with
its parent's.
"""


def marked(mark: str) -> list[psutil.Process]:
    """The running processes whose mark begins with `mark`."""
    return [process for process in psutil.process_iter() if _runs_marked(process, mark)]


def kill(process: psutil.Process) -> None:
    """Kill a process, which may be gone by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not, it only waits for its parent to notice."""
    return list(filter(_runs, processes))


def command_line(process: psutil.Process) -> Sequence[str]:
    """The command line of a process; empty if it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return ()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _runs_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK, "").startswith(mark) and _runs(process)
    except psutil.Error:
        return False  # It is gone, or another user's.
