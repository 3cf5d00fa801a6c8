"""What a worker's main process knows and its jobs have to know, in a few bytes of shared memory.

Job processes are warmed up before the worker has connected, so what it learns from the server
cannot be among the arguments that they start with.
"""

from __future__ import annotations

from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue


class Shared:
    """Facts that the main process writes and its job processes read.

    It is handed to a job process when that starts, as LiveKit's `setup_fnc` is.
    """

    def __init__(self) -> None:
        self._adopts = RawValue(c_bool, False)

    @property
    def adopts(self) -> bool:
        """Whether waiting rooms are adopted. LiveKit Cloud dispatches again by itself."""
        return bool(self._adopts.value)

    @adopts.setter
    def adopts(self, adopts: bool) -> None:
        self._adopts.value = adopts
