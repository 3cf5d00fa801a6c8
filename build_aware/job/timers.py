"""Waits of a job: in a thread, where its event loop may hang; and with a limit that may change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

CHECK_S: Final = 0.5
"""How often a limit is asked for again."""


def after(delay_s: float, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function after a while; nothing waits for it at the end of the process."""
    timer = threading.Timer(delay_s, function, arguments)
    timer.daemon = True
    timer.start()


async def ends_within(task: asyncio.Future[Any], limit_s: Callable[[], float]) -> bool:
    """Wait for a task, not longer than a limit that is asked for again and again.

    Not `wait_for`, which waits again for what does not mind its cancellation.

    Returns:
        Whether it has ended.
    """
    began_s = asyncio.get_running_loop().time()
    while not task.done():
        left_s = began_s + limit_s() - asyncio.get_running_loop().time()
        if left_s <= 0:
            break
        await asyncio.wait([task], timeout=min(left_s, CHECK_S))
    return task.done()
