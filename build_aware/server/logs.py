"""What this package adds to the log of a worker, and leaves out of it."""

from __future__ import annotations

import logging
from typing import Final

BUILD_FIELD: Final = "build.id"
"""The field of every log record that carries the build id."""

_OFFER: Final = "received job request"
"""LiveKit's line for each offer; if it changes, there are two lines."""


class AddBuild(logging.Filter):
    """Adds the build id to every record, those of job processes among them: they pass here."""

    def __init__(self, build_id: str) -> None:
        super().__init__()
        self._build_id = build_id

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it."""
        setattr(record, BUILD_FIELD, self._build_id)
        return True


def is_no_offer(record: logging.LogRecord) -> bool:
    """Leave out LiveKit's line for each offer: ours has the same fields and the answer.

    Writing a line is most of the time that an answer takes.
    """
    return record.msg != _OFFER


def install(build_id: str) -> None:
    """Filter all records of this process from here on."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(AddBuild(build_id))
    logging.getLogger("livekit.agents").addFilter(is_no_offer)
