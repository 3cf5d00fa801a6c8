"""A note in a room to all workers: a session ended here on purpose, so adopt nothing."""

from __future__ import annotations

from collections.abc import Iterable

from livekit.protocol.agent_dispatch import AgentDispatch


def is_noted(agent_name: str, dispatches: Iterable[AgentDispatch]) -> bool:
    """Whether a session of this agent has ended on purpose in a room that had no dispatch."""
    return any(dispatch.agent_name == note(agent_name) for dispatch in dispatches)


def note(agent_name: str) -> str:
    """The name of an agent that nobody runs: a dispatch for it is a note to all workers."""
    return f"_ended.{agent_name}"
