"""Where the log of a worker goes, and how it looks: exactly as LiveKit's own."""

from __future__ import annotations

from typing import Final

from livekit.agents import AgentServer
from livekit.agents.worker import ServerEnvOption

from build_aware import livekit_private

LEVELS: Final = ("trace", "debug", "info", "warn", "error", "critical")
"""The levels that `--log-level` knows, in any case of letters."""


def set_up(server: AgentServer, *, dev: bool, level: str | None = None) -> None:
    """Log to stdout: JSON in `start`, coloured lines in `dev`.

    Args:
        server: the server, which may have a level of its own.
        dev: whether it runs for development.
        level: one of `LEVELS`; None: what the server says, which is `debug` in `dev` and `info`
            in `start` unless the team's code says otherwise.
    """
    default: str = ServerEnvOption.getvalue(server.log_level, dev)
    livekit_private.set_up_logging((level or default).upper(), colored=dev)
