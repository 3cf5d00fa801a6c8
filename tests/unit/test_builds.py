"""What `agent.py builds` tells."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from build_aware.cli.builds import Line, as_json, count, lines, table
from build_aware.dispatch.attributes import BUILD_ID
from build_aware.dispatch.rollout import Rollout, digest
from tests.support.stub_api import NAME, StubServer, a_user, an_agent

NOW: Final = "2026-11-26T10:00:00Z"
ROLLOUT: Final = (
    Rollout()
    .appeared("older", NOW, make_current=True)
    .appeared("gone", NOW, make_current=True)
    .rolled_back(NOW)
    .appeared("previous", NOW, make_current=True)
    .appeared("current", NOW, make_current=True)
    .appeared("ramping", NOW, make_current=False)
    .ramped("ramping", 12.5, NOW)
)


def test_each_build_that_stands_or_serves_has_a_line() -> None:
    found = lines(
        ROLLOUT, Counter({"current": 3, "previous": 2, "gone": 1, "older": 4, "other": 5})
    )
    assert found == [
        Line("current", "current", None, NOW, 3, False),
        Line("ramping", "ramping", 12.5, NOW, 0, False),
        Line("previous", "previous", None, NOW, 2, True),
        Line("gone", "barred", None, None, 1, True),
        Line("older", "", None, None, 4, True),
        # Another deployment's, perhaps: nothing is known of it.
        Line("other", "", None, None, 5, False),
    ]


def test_without_a_rollout_nobody_drains() -> None:
    assert lines(Rollout(), Counter({"a": 1})) == [Line("a", "", None, None, 1, False)]


def test_the_table_is_for_people() -> None:
    found = lines(ROLLOUT, Counter({"current": 12, "previous": 2}))
    assert table(found) == [
        "BUILD     STANDING        SINCE                 ROOMS",
        "current   current         2026-11-26T10:00:00Z  12",
        "ramping   ramping 12.5 %  2026-11-26T10:00:00Z  0",
        "previous  previous        2026-11-26T10:00:00Z  2, draining",
    ]


def test_the_json_has_it_all() -> None:
    found = lines(ROLLOUT, Counter({"current": 1, "gone": 1}))
    content = as_json(ROLLOUT, found, rooms=9, counted=2)
    assert content["revision"] == ROLLOUT.revision
    assert [line["build"] for line in content["builds"]] == [each.build for each in found]
    assert (content["rooms"], content["counted"]) == (9, 2)
    assert content["barred"] == []
    assert as_json(ROLLOUT, [], rooms=0, counted=0)["barred"] == [digest("gone")]


@pytest.fixture
def server() -> StubServer:
    server = StubServer()
    for number in range(3):
        agent = an_agent(f"d-{number}")
        agent.attributes[BUILD_ID] = "old" if number else "new"
        server.has(there=[a_user(), agent], room=f"room-{number}")
    other = an_agent("d-other", name="another agent")
    other.attributes[BUILD_ID] = "new"
    user = a_user()
    user.attributes[BUILD_ID] = "new"
    server.has(there=[user, other], room="of another agent")
    server.has(there=[], room=f"_builds.{NAME}")
    return server


async def test_rooms_are_counted_by_the_agents_that_are_there(server: StubServer) -> None:
    serving, rooms, counted = await count(server.api, NAME, at_most=None)
    assert serving == {"old": 2, "new": 1}
    assert (rooms, counted) == (4, 4)
    assert server.calls == {"ListRooms": 1, "ListParticipants": 4}


async def test_not_more_than_asked_for(server: StubServer) -> None:
    _, rooms, counted = await count(server.api, NAME, at_most=2)
    assert (rooms, counted) == (4, 2)
    assert server.calls["ListParticipants"] == 2
