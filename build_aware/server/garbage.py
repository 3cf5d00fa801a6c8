"""When a worker's main process looks for garbage: not while it starts, and rarely after that."""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 25_000
"""How many new objects come together before Python looks for garbage among them.

One job offer makes about eighty that last until it is assigned. With Python's own 700 every ninth
offer waits for that, and every ninetieth for a longer look, of some milliseconds.
"""

_THRESHOLDS: Final = gc.get_threshold()


def begin_to_look() -> None:
    """Look for garbage from here on, if the start of the program has put that off; see `early`.

    What was imported stays: going through all of it for the first time would hold up the
    registration and, twice more, whatever comes next, by 0.2 s each. Thresholds that the team's
    code has set are left alone.
    """
    if gc.isenabled():
        return
    gc.freeze()
    if gc.get_threshold() == _THRESHOLDS:
        gc.set_threshold(YOUNG, *_THRESHOLDS[1:])
    gc.enable()
