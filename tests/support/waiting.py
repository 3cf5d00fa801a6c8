"""Waiting for a thing instead of sleeping: a condition, a deadline, and a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

POLL_S = 0.02
DEADLINE_S = 30.0
"""Long enough for a slow, busy machine: no test measures time with it."""


async def until(
    condition: Callable[[], T | None] | Callable[[], Coroutine[Any, Any, T | None]],
    what: str,
    deadline_s: float = DEADLINE_S,
) -> T:
    """Wait until `condition` gives something true, and return it.

    Raises:
        TimeoutError: naming `what` was waited for.
    """
    give_up = time.monotonic() + deadline_s
    while True:
        found: Any = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return cast(T, found)
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(POLL_S)
