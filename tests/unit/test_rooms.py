"""What a worker knows of rooms, and what it remembers of those that a restart took away."""

from __future__ import annotations

import json
from typing import Final

import pytest
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room

from build_aware.dispatch.rooms import HOLD_S, RETURN_S, UNLISTED_S, RoomRecord, Rooms
from build_aware.dispatch.target import Asked, Target, Untargeted

NOW: Final = 1_000.0
OURS: Final = json.dumps({"agent_build": "ours"})
THEIRS: Final = json.dumps({"agent_build": "theirs"})


def room(metadata: str = "", sid: str = "RM_1", *, users: int = 1, publishers: int = 0) -> Room:
    return Room(
        name="call",
        sid=sid,
        metadata=metadata,
        num_participants=users,
        num_publishers=publishers,
    )


def offer(room: Room, metadata: str = "") -> Job:
    return Job(id="AJ_1", dispatch_id="AD_1", agent_name="support", room=room, metadata=metadata)


def record_of(rooms: Rooms) -> RoomRecord:
    record = rooms.get("call")
    assert record is not None
    return record


def asks(rooms: Rooms, dispatch_metadata: str = "") -> Asked:
    record = record_of(rooms)
    return record.asked(dispatch_metadata, record.metadata)


def restarted(*, before: Room, back_s: float = NOW + 5, agent: bool = False) -> Rooms:
    """Rooms after an outage in which the server has lost them."""
    rooms = Rooms()
    rooms.listed([before], NOW)
    record_of(rooms).has_agent = agent
    rooms.connected_again(back_s)
    return rooms


# What is known


def test_a_room_is_new_once() -> None:
    rooms = Rooms()
    assert rooms.listed([room()], NOW) == ["call"]
    assert rooms.listed([room()], NOW + 2) == []
    assert record_of(rooms).first_seen_s == NOW


def test_more_publishers_than_users_are_an_agent() -> None:
    rooms = Rooms()
    rooms.listed([room(users=2, publishers=2)], NOW)
    assert not record_of(rooms).has_agent
    rooms.listed([room(users=2, publishers=3)], NOW)
    assert record_of(rooms).has_agent


def test_an_offer_makes_a_room_known_and_says_what_it_asks_for() -> None:
    rooms = Rooms()
    assert rooms.offered(offer(room(OURS)), NOW) == Target(("ours",))
    assert rooms.offered(offer(room(OURS), THEIRS), NOW) == Target(("theirs",))
    dispatch = record_of(rooms).dispatch
    assert dispatch is not None
    assert (dispatch.id, dispatch.metadata) == ("AD_1", THEIRS)


def test_a_room_that_is_not_listed_is_forgotten_after_a_while() -> None:
    rooms = Rooms()
    rooms.offered(offer(room()), NOW)
    rooms.listed([], NOW + UNLISTED_S)
    assert rooms.get("call") is not None
    rooms.listed([], NOW + UNLISTED_S + 0.1)
    assert rooms.get("call") is None


def test_offers_alone_do_not_pile_up() -> None:
    rooms = Rooms()
    for number in range(100):
        job = offer(Room(name=f"call-{number}", sid=f"RM_{number}"))
        rooms.offered(job, NOW + number)
    assert len(list(rooms.all())) < 3 * UNLISTED_S


def test_a_room_that_shows_an_agent_waits_no_more() -> None:
    rooms = Rooms()
    rooms.listed([room()], NOW)
    record_of(rooms).waits_for = ("theirs",)
    rooms.listed([room()], NOW + 2)
    assert record_of(rooms).waits_for == ("theirs",)
    rooms.listed([room(publishers=2)], NOW + 4)
    assert record_of(rooms).waits_for == ()


def test_a_room_that_is_made_again_is_another_one() -> None:
    rooms = Rooms()
    rooms.listed([room(OURS)], NOW)
    record_of(rooms).attempts = 3
    rooms.listed([room(sid="RM_2")], NOW + 2)
    assert record_of(rooms).attempts == 0
    assert asks(rooms) == Untargeted()


# What is remembered


@pytest.mark.parametrize("came_back_s", [0.0, RETURN_S])
def test_a_lost_room_that_comes_back_asks_for_what_it_asked_before(came_back_s: float) -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([], NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 5 + came_back_s)
    assert asks(rooms) == Target(("ours",))


def test_it_is_remembered_for_as_long_as_the_room_lives() -> None:
    rooms = restarted(before=room(OURS))
    for at_s in (NOW + 5, NOW + 500, NOW + 5_000):
        rooms.listed([room(sid="RM_2")], at_s)
    assert asks(rooms) == Target(("ours",))


def test_it_outlives_a_second_restart() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([room(sid="RM_2")], NOW + 6)
    rooms.connected_again(NOW + 20)
    rooms.listed([room(sid="RM_3")], NOW + 21)
    assert asks(rooms) == Target(("ours",))


def test_after_a_second_restart_the_last_word_counts() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([room(THEIRS, sid="RM_2")], NOW + 6)
    rooms.connected_again(NOW + 20)
    rooms.listed([room(sid="RM_3")], NOW + 21)
    assert asks(rooms) == Target(("theirs",))


def test_a_room_that_comes_back_late_is_another_one() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([room(sid="RM_2")], NOW + 5 + RETURN_S + 0.1)
    assert asks(rooms) == Untargeted()


def test_a_lost_room_that_stays_away_is_forgotten() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([], NOW + 5 + RETURN_S)
    assert rooms.get("call") is not None
    rooms.listed([], NOW + 5 + RETURN_S + 0.1)
    assert rooms.get("call") is None


def test_what_a_room_says_itself_wins() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([room(THEIRS, sid="RM_2")], NOW + 6)
    assert asks(rooms) == Target(("theirs",))
    rooms.listed([room('{"tenant": "acme"}', sid="RM_2")], NOW + 6)
    assert asks(rooms) == Untargeted()
    rooms.listed([room(sid="RM_2")], NOW + 6)
    assert asks(rooms, THEIRS) == Target(("theirs",))
    assert asks(rooms, "free text") == Target(("ours",))


def test_it_holds_for_offers_before_the_first_list() -> None:
    rooms = restarted(before=room(OURS))
    assert rooms.offered(offer(room(sid="RM_2")), NOW + 5.1) == Target(("ours",))
    rooms = restarted(before=room(OURS))
    assert rooms.offered(offer(room(sid="RM_2"), THEIRS), NOW + 5.1) == Target(("theirs",))


def test_the_metadata_of_a_dispatch_is_remembered_too() -> None:
    rooms = Rooms()
    rooms.offered(offer(room(THEIRS), OURS), NOW)
    rooms.connected_again(NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    assert asks(rooms) == Target(("ours",))


def test_the_dispatch_stands_in_where_the_room_comes_back_without_one() -> None:
    rooms = Rooms()
    rooms.offered(offer(room(), OURS), NOW)
    assert record_of(rooms).asked_before() == []
    rooms.connected_again(NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    (stands_in,) = record_of(rooms).asked_before()
    assert isinstance(stands_in, AgentDispatch)
    assert (stands_in.id, stands_in.agent_name) == ("AD_1", "support")


def test_a_room_that_was_not_lost_remembers_nothing() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([room(OURS)], NOW + 6)
    rooms.listed([room(sid="RM_2")], NOW + 8)
    assert asks(rooms) == Untargeted()


# Who is left to come back


def test_a_room_that_had_an_agent_is_left_to_it_for_a_while() -> None:
    rooms = restarted(before=room(), agent=True)
    assert rooms.holds("call", NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    assert rooms.holds("call", NOW + 5 + HOLD_S - 0.1)
    assert not rooms.holds("call", NOW + 5 + HOLD_S)


def test_a_room_that_had_none_is_not() -> None:
    assert not restarted(before=room()).holds("call", NOW + 5)
    assert not Rooms().holds("call", NOW)


def test_without_an_outage_nothing_is_left_alone() -> None:
    rooms = Rooms()
    rooms.listed([room(publishers=2)], NOW)
    assert not rooms.holds("call", NOW)
