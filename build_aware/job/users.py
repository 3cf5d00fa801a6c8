"""A job ends with its users: when it does is a pure decision, and the room's events around it.

LiveKit alone would keep the agent until the room's departure timeout, and a draining worker with
it. While the agent is cut off from its room it knows nothing about its users, and LiveKit shows
them as gone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from livekit import rtc
from livekit.agents import JobContext

from build_aware.job.facts import JobFacts

USER_KINDS: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""The kinds of participant that are users; agents, recorders and ingress are not."""

RETURN_S: Final = 5.0
"""How long a user who was cut off may take to come back, be it from another tab."""

AFTER_OUTAGE_S: Final = 20.0
"""How long users may take to come back after the agent itself was cut off from its room."""

ALONE_S: Final = 60.0
"""How long a job of a draining worker may be without a user, wherever they are."""

CHECK_S: Final = 0.25
"""How often it is looked at, beside the events of the room: the worker's drain is none of them."""

_LEFT_FOR_GOOD: Final = (
    rtc.DisconnectReason.CLIENT_INITIATED,
    rtc.DisconnectReason.PARTICIPANT_REMOVED,
    rtc.DisconnectReason.ROOM_DELETED,
    rtc.DisconnectReason.ROOM_CLOSED,
    rtc.DisconnectReason.USER_REJECTED,
    rtc.DisconnectReason.USER_UNAVAILABLE,
)
"""Reasons after which nobody comes back. A client that lost its connection may, within a second."""


@dataclass(frozen=True, slots=True)
class Alone:
    """A job without a user. Times are in seconds.

    Attributes:
        for_s: for how long no user has been there.
        came: whether one ever was.
        grace_s: how long the last one may take to come back.
        left_in_drain: whether the last one left after the worker was told to stop.
    """

    for_s: float
    came: bool
    grace_s: float = 0.0
    left_in_drain: bool = False


def reason_to_end(alone: Alone, facts: JobFacts, *, drains: bool) -> str | None:
    """Why a job without users ends now, or None: total, pure, and the only place of the rule."""
    if not alone.came:
        limit_s = math.inf if facts.join_timeout_s is None else facts.join_timeout_s
        limit_s = min(limit_s, ALONE_S) if drains else limit_s
        return "nobody joined in time" if alone.for_s >= limit_s else None
    if alone.for_s >= alone.grace_s:
        ends_with_last_user = facts.end_with_last_user == "always" or (
            facts.end_with_last_user == "drain" and drains and alone.left_in_drain
        )
        if ends_with_last_user or (drains and alone.for_s >= ALONE_S):
            return "the last user left"
    return None


class Users:
    """Follows the users of one job, and ends it when the rule says so.

    Args:
        ctx: the job, before it connects.
        facts: what the worker says.
        end: ends the job, for a reason.
    """

    def __init__(self, ctx: JobContext, facts: JobFacts, end: Callable[[str], None]) -> None:
        self._room = ctx.room
        self._facts = facts
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._since_s = self._loop.time()
        self._known_from_s = -math.inf
        self._came = False
        self._grace_s = 0.0
        self._left_in_drain = False
        self._room.on("participant_disconnected", self._on_left)
        self._room.on("reconnected", self._on_reconnected)

    @property
    def present(self) -> bool:
        """Whether a user is there, as far as is known."""
        return any(user.kind in USER_KINDS for user in self._room.remote_participants.values())

    async def watch(self) -> None:
        """Look at it again and again, until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_S)

    def check(self) -> None:
        """End the job if it is time."""
        now_s = self._loop.time()
        connected = self._room.connection_state == rtc.ConnectionState.CONN_CONNECTED
        if not connected and not self._came:
            self._since_s = now_s  # Who would dial a user first connects.
        if not connected or now_s < self._known_from_s:
            return
        if self.present:
            self._came = True
            self._since_s = now_s
            self._grace_s = 0.0
            return
        alone = Alone(now_s - self._since_s, self._came, self._grace_s, self._left_in_drain)
        reason = reason_to_end(alone, self._facts, drains=self._facts.shared.drains)
        if reason is not None:
            self._end(reason)

    def _on_left(self, user: rtc.RemoteParticipant) -> None:
        if user.kind in USER_KINDS:
            self._came = True
            self._since_s = self._loop.time()
            self._grace_s = 0.0 if user.disconnect_reason in _LEFT_FOR_GOOD else RETURN_S
            self._left_in_drain = self._facts.shared.drains
            self.check()

    def _on_reconnected(self) -> None:
        self._known_from_s = self._loop.time() + AFTER_OUTAGE_S
