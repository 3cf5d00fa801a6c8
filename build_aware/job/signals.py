"""Stop signals in job processes: those of others are ignored, its own ends the process.

The worker's main process alone acts on stop signals and ends its jobs in order. A supervisor or
a terminal that signals the whole process group must not cut live sessions. livekit-agents means
to ignore signals in job processes too, but below a fork server it does not
(livekit/agents#7336).

Its native library, however, ends a process that it cannot go on in by signalling it
(livekit/python-sdks#785), and that signal must get through.
"""

from __future__ import annotations

import logging
import os
import signal
import threading

from build_aware.job.logs import flush

logger = logging.getLogger(__name__)


def ignore_in_children() -> None:
    """Ignore stop signals from here on, in this process and all that it forks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked and not ignored: a blocked signal can still be looked at, with its sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def end_on_own_signal() -> None:
    """End this process when it sends SIGTERM to itself, where `ignore_in_children` holds."""
    if hasattr(signal, "sigwaitinfo") and signal.SIGTERM in signal.pthread_sigmask(
        signal.SIG_BLOCK, ()
    ):
        threading.Thread(target=_wait_for_own_signal, name="own-signals", daemon=True).start()


def _wait_for_own_signal() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getpid():
        pass
    logger.error("the job process has ended itself; LiveKit's native library does so in a panic")
    flush()
    os._exit(1)
