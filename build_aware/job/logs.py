"""The last records of a job process."""

from __future__ import annotations

import logging
import time
from typing import Final

from build_aware import livekit_private

FLUSH_S: Final = 1.0
"""The longest that a process waits for its records to get to the main process."""


def flush() -> None:
    """Close the log handlers of this process and wait until their records are out."""
    deadline = time.monotonic() + FLUSH_S
    for handler in logging.getLogger().handlers:
        handler.close()
        if (thread := livekit_private.log_thread(handler)) is not None:
            thread.join(max(deadline - time.monotonic(), 0.0))
