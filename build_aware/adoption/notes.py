"""A note in a room to all workers: a session ended here on purpose, so adopt nothing for its role.

A room that came back after a restart has no dispatch that could be deleted, but workers remember
what it had asked for. The note is a dispatch for an agent that nobody runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from livekit.protocol.agent_dispatch import AgentDispatch, CreateAgentDispatchRequest

from build_aware.dispatch import agents, attributes


def note(room: str, dispatch: AgentDispatch) -> CreateAgentDispatchRequest:
    """The request that leaves a note: the session of this dispatch has ended on purpose."""
    return CreateAgentDispatchRequest(
        room=room, agent_name=_addressee(dispatch), metadata=_digest(dispatch)
    )


def is_noted(dispatch: AgentDispatch, dispatches: Iterable[AgentDispatch]) -> bool:
    """Whether among a room's dispatches is a note that speaks of this one, or one for its role."""
    # Builds of before wrote no metadata into their notes, and meant all roles of the agent.
    return any(
        each.agent_name == _addressee(dispatch) and each.metadata in ("", _digest(dispatch))
        for each in dispatches
    )


def _addressee(dispatch: AgentDispatch) -> str:
    return f"_ended.{dispatch.agent_name}"


def _digest(dispatch: AgentDispatch) -> str:
    role = agents.role_of(dispatch)
    return attributes.asked(role.deployment, role.metadata)
