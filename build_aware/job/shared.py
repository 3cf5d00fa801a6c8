"""What a worker and its job processes have to know of each other, in a few bytes of shared memory.

Job processes are warmed up before the worker has connected, so what it learns from the server
cannot be among the arguments that they start with.
"""

from __future__ import annotations

from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from typing import Any


class _Flag:
    """A fact that is not so at first."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, shared: Shared, owner: type) -> bool:
        return bool(getattr(shared, self._name).value)

    def __set__(self, shared: Shared, value: bool) -> None:
        getattr(shared, self._name).value = value


class Shared:
    """Facts that the main process and its job processes tell each other.

    It is handed to a job process when that starts, as LiveKit's `setup_fnc` is.

    Attributes:
        adopts: whether waiting rooms are adopted. LiveKit Cloud dispatches again by itself.
        drains: whether the worker has been told to stop.
        closes: whether the worker ends what still runs.
        cut: whether a session has lost its room, and its users with it, while the worker drained.
        stale: whether files of the build have changed under the worker.
    """

    adopts = _Flag()
    drains = _Flag()
    closes = _Flag()
    cut = _Flag()
    stale = _Flag()

    def __init__(self) -> None:
        for name, flag in vars(Shared).items():
            if isinstance(flag, _Flag):
                value: Any = RawValue(c_bool, False)
                setattr(self, f"_{name}", value)
