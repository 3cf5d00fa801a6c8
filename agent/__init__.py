"""A LiveKit voice agent whose worker knows its build.

`agent.server` is the `AgentServer` that LiveKit's tools look for. It is made when first asked
for, so that importing one module of this package does not start another.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.worker import Worker

    server: Worker


def __getattr__(name: str) -> Any:
    if name != "server":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agent.cli.startup import server_for_livekit  # noqa: PLC0415

    globals()["server"] = server_for_livekit(sys.argv[1:])
    return globals()["server"]


def __dir__() -> list[str]:
    return [*globals(), "server"]
