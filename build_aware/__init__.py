"""What makes a LiveKit agent build-aware: it knows its build, takes its own jobs, and drains.

from build_aware import AgentServer, cli     # was: from livekit.agents import AgentServer, cli
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from build_aware import early

if TYPE_CHECKING:
    from build_aware import cli
    from build_aware.identity.build import Build
    from build_aware.job.facts import current_build
    from build_aware.server.agent_server import AgentServer
    from build_aware.settings import Options

__all__ = ["AgentServer", "Build", "Options", "cli", "current_build"]

early.begin()


_WHERE: Final = {
    "AgentServer": "build_aware.server.agent_server",
    "Build": "build_aware.identity.build",
    "Options": "build_aware.settings",
    "current_build": "build_aware.job.facts",
}


def __getattr__(name: str) -> Any:
    # Each when it is first asked for: `python agent.py build` needs no LiveKit.
    if name == "cli":
        value: Any = importlib.import_module("build_aware.cli")
    elif name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    if name == "AgentServer":
        # Last: what is forked has it already.
        early.livekit_is_imported()
    return value


def __dir__() -> list[str]:
    return [*__all__, *globals()]


if early.livekit_came_first():
    # Nothing is saved by waiting, and the team's code has not gone far yet.
    __getattr__("AgentServer")
