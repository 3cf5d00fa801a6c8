"""Timers that go off though the event loop hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def after(delay_s: float, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` in a thread of its own, unless the process ends before."""
    timer = threading.Timer(delay_s, function, arguments)
    timer.daemon = True
    timer.start()
