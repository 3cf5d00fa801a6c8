"""Python runs this file in a worker that is stopped in the way `eaten`, before anything else.

A second after the worker has its handler of SIGTERM, another one takes its place and does
nothing, as libraries and careless code do. Only the worker's main process is concerned: the
variable is gone before it starts others.
"""

import os
import signal
from types import FrameType

PERIOD_S = 1.0


def _look(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN):
        return
    if _seen:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, _eat)
    _seen.append(number)


def _eat(number: int, frame: FrameType | None) -> None:
    """Do nothing with the signal."""


_seen: list[int] = []

if os.environ.pop("REHEARSAL_EATS_SIGTERM", None):
    signal.signal(signal.SIGALRM, _look)
    signal.setitimer(signal.ITIMER_REAL, PERIOD_S, PERIOD_S)
