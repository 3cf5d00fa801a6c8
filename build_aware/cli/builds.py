"""Which builds there are, and which rooms they serve now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from livekit.api import LiveKitAPI
from livekit.protocol.models import ParticipantInfo, Room
from livekit.protocol.room import ListParticipantsRequest, ListRoomsRequest

from build_aware.adoption.api_errors import API_ERRORS, is_gone
from build_aware.cli.rollout import REQUEST_S
from build_aware.dispatch import attributes
from build_aware.dispatch.agents import AGENT
from build_aware.dispatch.rollout import Rollout, digest
from build_aware.dispatch.rollout_document import is_rollout_room

COUNTED_AT_MOST: Final = 500
"""How many rooms are counted: each costs a call."""

AT_ONCE: Final = 16
"""How many calls are made at the same time."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one build.

    Attributes:
        build: its id.
        standing: what it is: `current`, `ramping`, `previous`, `barred`, or nothing.
        percent: the share of a ramping build.
        since: when it became current, even if it is the previous one by now, or got its share.
        rooms: how many rooms it serves now, of those that were counted.
        draining: whether it is known, serves some, and gets no more that name no build.
    """

    build: str
    standing: str
    percent: float | None
    since: str | None
    rooms: int
    draining: bool


def lines(rollout: Rollout, serving: Counter[str]) -> list[Line]:
    """A line for each build that has a standing or serves a room, current and ramping ones first.

    Args:
        rollout: the rollout.
        serving: how many rooms each build serves.
    """
    standings: dict[str, tuple[str, float | None, str]] = {}
    if rollout.previous is not None:
        standings[rollout.previous.build] = ("previous", None, rollout.previous.since)
    if rollout.ramp is not None:
        standings[rollout.ramp.build] = ("ramping", rollout.ramp.percent, rollout.ramp.since)
    if rollout.current is not None:
        standings[rollout.current.build] = ("current", None, rollout.current.since)

    def line(build: str) -> Line:
        default = ("barred" if rollout.bars(build) else "", None, None)
        standing, percent, since = standings.get(build, default)
        rooms = serving[build]
        # One that is not known may be another deployment's: agents do not tell theirs.
        leaves = standing not in ("current", "ramping") and rollout.knows(build)
        draining = rollout.current is not None and rooms > 0 and leaves
        return Line(build, standing, percent, since, rooms, draining)

    order = {"current": 0, "ramping": 1, "previous": 2}
    found = [line(build) for build in {*standings, *serving}]
    return sorted(found, key=lambda each: (order.get(each.standing, 3), each.build))


def table(found: Iterable[Line]) -> list[str]:
    """These lines as a table for people."""
    rows = [("BUILD", "STANDING", "SINCE", "ROOMS")]
    for each in found:
        standing = each.standing or "-"
        if each.percent is not None:
            standing += f" {each.percent:g} %"
        rooms = f"{each.rooms}, draining" if each.draining else str(each.rooms)
        rows.append((each.build, standing, each.since or "-", rooms))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def as_json(rollout: Rollout, found: Iterable[Line], *, rooms: int, counted: int) -> dict[str, Any]:
    """The same for programs.

    Args:
        rollout: the rollout.
        found: its lines.
        rooms: how many rooms the server has, but those of rollouts.
        counted: of how many it was asked which build serves them.
    """
    seen = {digest(each.build) for each in found}
    return {
        "revision": rollout.revision or None,
        "builds": [asdict(each) for each in found],
        "rooms": rooms,
        "counted": counted,
        "barred": [each for each in rollout.barred if each not in seen],
    }


async def count(
    api: LiveKitAPI, agent_name: str, *, at_most: int | None
) -> tuple[Counter[str], int, int]:
    """Count which builds serve rooms for an agent name.

    Args:
        api: the server's API.
        agent_name: the agent name; empty for none.
        at_most: how many rooms to ask about; None for all.

    Returns:
        How many rooms each build serves, how many rooms there are, and how many were counted.

    Raises:
        API_ERRORS: a call failed.
    """
    async with asyncio.timeout(REQUEST_S):
        listed = (await api.room.list_rooms(ListRoomsRequest())).rooms
    rooms = [room for room in listed if not is_rollout_room(room.name)]
    counted = rooms[:at_most]
    at_once = asyncio.Semaphore(AT_ONCE)

    async def builds_in(room: Room) -> set[str]:
        async with at_once:
            request = ListParticipantsRequest(room=room.name)
            try:
                async with asyncio.timeout(REQUEST_S):
                    answer = await api.room.list_participants(request)
            except API_ERRORS as error:
                if not is_gone(error):
                    raise
                return set()  # It has just closed, or its node is gone.
        return {build for each in answer.participants if (build := _build(each, agent_name))}

    serving: Counter[str] = Counter()
    for builds in await asyncio.gather(*map(builds_in, counted)):
        serving.update(builds)
    return serving, len(rooms), len(counted)


def _build(participant: ParticipantInfo, agent_name: str) -> str | None:
    told = participant.attributes
    if participant.kind != AGENT or told.get(attributes.AGENT_NAME, "") != agent_name:
        return None
    return told.get(attributes.BUILD_ID)
