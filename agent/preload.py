"""What all job processes of a worker share. Only its fork server imports this module.

Job processes are forked from the fork server, so they inherit its imports and its ignored
signals. The worker's main process alone acts on signals and ends its jobs in order; a
supervisor or a terminal that signals the whole process group must not cut live sessions.
The framework means to ignore signals in job processes too, but below a fork server it does
not (livekit/agents#7336).
"""

from __future__ import annotations

import signal

from . import session

__all__ = ["session"]

for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_IGN)
