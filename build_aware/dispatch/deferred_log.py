"""Log lines that are written a moment later, so that a burst of offers is answered first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

QUIET_S: Final = 0.05
"""How long nothing must come before lines are written."""

LONGEST_S: Final = 0.5
"""How long a line waits at most."""


class DeferredLog:
    """Takes lines at once, with the time that they are of, and writes them when it is quiet.

    To be used on an event loop. To write a line takes longer than to decide on an offer.

    Args:
        logger: what the lines are written with.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._records: list[logging.LogRecord] = []
        self._began_s = 0.0
        self._writing: asyncio.TimerHandle | None = None

    def __call__(self, level: int, message: str, fields: Mapping[str, Any]) -> None:
        """Log a message with these fields."""
        if not self._logger.isEnabledFor(level):
            return
        file, line, function, _ = self._logger.findCaller(stacklevel=2)
        self._records.append(
            self._logger.makeRecord(
                self._logger.name, level, file, line, message, (), None, function, dict(fields)
            )
        )
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if self._writing is None:
            self._began_s = now_s
        elif now_s >= self._began_s + LONGEST_S:
            return  # It is due.
        else:
            self._writing.cancel()
        at_s = min(now_s + QUIET_S, self._began_s + LONGEST_S)
        self._writing = loop.call_at(at_s, self.write)

    def write(self) -> None:
        """Write what has been taken."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        records, self._records = self._records, []
        for record in records:
            self._logger.handle(record)
