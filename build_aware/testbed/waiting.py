"""Waiting for a thing instead of sleeping: a condition, a deadline, and a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")

POLL_S: Final = 0.05
DEADLINE_S: Final = 120.0
"""Long enough for a slow, busy machine: nobody measures time with it."""


@overload
async def until(
    condition: Callable[[], Coroutine[Any, Any, T]], what: str, deadline_s: float = ...
) -> T: ...


@overload
async def until(condition: Callable[[], T | None], what: str, deadline_s: float = ...) -> T: ...


async def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until `condition` gives something true, and return it.

    Raises:
        TimeoutError: naming `what` was waited for.
    """
    give_up = time.monotonic() + deadline_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(POLL_S)
