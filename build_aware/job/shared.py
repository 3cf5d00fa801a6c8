"""What a worker and its job processes have to know of each other, in a few bytes of shared memory.

Job processes are warmed up before the worker has connected, so what it learns from the server
cannot be among the arguments that they start with.
"""

from __future__ import annotations

from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue


class Shared:
    """Facts that the main process and its job processes tell each other.

    It is handed to a job process when that starts, as LiveKit's `setup_fnc` is.
    """

    def __init__(self) -> None:
        self._adopts = RawValue(c_bool, False)
        self._drains = RawValue(c_bool, False)
        self._cut = RawValue(c_bool, False)

    @property
    def adopts(self) -> bool:
        """Whether waiting rooms are adopted. LiveKit Cloud dispatches again by itself."""
        return bool(self._adopts.value)

    @adopts.setter
    def adopts(self, adopts: bool) -> None:
        self._adopts.value = adopts

    @property
    def drains(self) -> bool:
        """Whether the worker drains."""
        return bool(self._drains.value)

    @drains.setter
    def drains(self, drains: bool) -> None:
        self._drains.value = drains

    @property
    def cut(self) -> bool:
        """Whether a session has lost its room, and its users with it, while the worker drained."""
        return bool(self._cut.value)

    @cut.setter
    def cut(self, cut: bool) -> None:
        self._cut.value = cut
