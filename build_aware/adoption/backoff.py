"""How long to wait after failures in a row: twice as long each time, up to a minute."""

from __future__ import annotations

from typing import Final

MAX_PAUSE_S: Final = 60.0
"""The longest pause after errors, and between adoptions of a room whose sessions keep crashing."""

_MAX_DOUBLINGS: Final = 10


def pause_s(first_s: float, failures: int) -> float:
    """How long to wait, in seconds.

    Args:
        first_s: the pause after the first failure.
        failures: how many there were in a row; after none there is no pause.
    """
    if failures < 1:
        return 0.0
    return min(first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), MAX_PAUSE_S)
