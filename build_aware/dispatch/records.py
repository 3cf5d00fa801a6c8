"""What this worker knows of one dispatch, and what it remembers of a room's when that is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from livekit.protocol.agent_dispatch import AgentDispatch

from build_aware.dispatch import agents
from build_aware.dispatch.agents import Role

INEXACT_S: Final = 2.0
"""How inexact the age of a user may be: servers tell some of their times in whole seconds."""


@dataclass(slots=True)
class DispatchRecord:
    """One dispatch for this agent. Times are monotonic seconds of this worker.

    Attributes:
        dispatch: the dispatch, as it was last seen.
        served_s: when this worker last saw an agent for it.
        attempts: how often this worker has adopted it since it last had an agent for long.
        adopted_s: when it did so last.
        not_before_s: when it may be adopted again after sessions that crashed.
        refused_until_s: until when the team's own request handler is not asked again.
        left_s: since when this worker leaves it to another build; None if it does not.
        was_refused: whether it leaves it by having refused the job, and nothing is known of that.
    """

    dispatch: AgentDispatch
    served_s: float = -math.inf
    attempts: int = 0
    adopted_s: float = -math.inf
    not_before_s: float = -math.inf
    refused_until_s: float = -math.inf
    left_s: float | None = None
    was_refused: bool = False
    _role: Role | None = None

    def was_before(self, user_since_s: float) -> bool:
        """Whether a user who has been there since then came after the last adoption.

        Then whatever ended has not crashed before their eyes, and they have not to wait for that.
        """
        return user_since_s > self.adopted_s + INEXACT_S

    @property
    def role(self) -> Role:
        """What it is for. Found out when first asked: an offer has to be answered at once."""
        if self._role is None:
            self._role = agents.role_of(self.dispatch)
        return self._role


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a room had asked for before it was lost.

    Attributes:
        metadata: the room's metadata.
        dispatches: the dispatches for this agent that this worker had seen, by id.
    """

    metadata: str = ""
    dispatches: dict[str, DispatchRecord] = field(default_factory=dict)

    def metadata_of(self, role_metadata: str) -> str:
        """The metadata of the last dispatch that said this beside its target; empty if none did."""
        alike = [each for each in self.dispatches.values() if each.role.metadata == role_metadata]
        # Of two that are equally old, as those of two offers, the one seen last.
        last = max(reversed(alike), key=_created_at, default=None)
        return "" if last is None else last.dispatch.metadata


def _created_at(record: DispatchRecord) -> int:
    return record.dispatch.state.created_at
