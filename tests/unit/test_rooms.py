"""What a worker knows of rooms, and what it remembers of those that a restart took away."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Final

import pytest
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch, AgentDispatchState
from livekit.protocol.models import Room

from build_aware.dispatch.agents import AgentSeen
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import HOLD_S, RETURN_S, UNLISTED_S, Rooms
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


def offer(room: Room, metadata: str = "", dispatch_id: str = "AD_1") -> Job:
    return Job(
        id="AJ_1", dispatch_id=dispatch_id, agent_name="support", room=room, metadata=metadata
    )


def dispatch(
    dispatch_id: str = "AD_1", metadata: str = "", *, created_s: float = 0.0
) -> AgentDispatch:
    state = AgentDispatchState(created_at=int(created_s * 1e9))
    return AgentDispatch(id=dispatch_id, agent_name="support", metadata=metadata, state=state)


def record_of(rooms: Rooms) -> RoomRecord:
    record = rooms.get("call")
    assert record is not None
    return record


def asks(rooms: Rooms, dispatch_metadata: str = "") -> Asked:
    return record_of(rooms).asked(dispatch_metadata)


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
    (known,) = record_of(rooms).dispatches.values()
    assert (known.dispatch.id, known.dispatch.metadata) == ("AD_1", THEIRS)


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
    rooms.offered(offer(room(OURS)), NOW)
    record_of(rooms).dispatches["AD_1"].attempts = 3
    rooms.listed([room(sid="RM_2")], NOW + 2)
    assert record_of(rooms).asks() == []
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
    assert record_of(rooms).stand_ins() == {}
    rooms.connected_again(NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    (stands_in,) = record_of(rooms).stand_ins().values()
    assert (stands_in.dispatch.id, stands_in.dispatch.agent_name) == ("AD_1", "support")


def test_a_room_that_was_not_lost_remembers_nothing() -> None:
    rooms = restarted(before=room(OURS))
    rooms.listed([room(OURS)], NOW + 6)
    rooms.listed([room(sid="RM_2")], NOW + 8)
    assert asks(rooms) == Untargeted()


# Several dispatches for one agent

FRENCH: Final = json.dumps({"language": "fr"})
GERMAN: Final = json.dumps({"language": "de"})
FRENCH_OF_OURS: Final = json.dumps({"language": "fr", "agent_build": "ours"})


def test_a_room_is_known_as_soon_as_it_is_offered() -> None:
    """Although it is taken in later: until then its offer has to be answered."""
    rooms = Rooms()
    rooms.offered(offer(room(OURS), FRENCH, "AD_fr"), NOW)
    (record,) = rooms.all()
    assert (record.first_seen_s, set(record.dispatches)) == (NOW, {"AD_fr"})
    assert record_of(rooms) is record


def test_an_offer_before_an_outage_is_of_the_room_before_it() -> None:
    rooms = Rooms()
    rooms.offered(offer(room(OURS)), NOW)
    rooms.connected_again(NOW + 5)
    assert rooms.offered(offer(room(sid="RM_2")), NOW + 5.1) == Target(("ours",))


def test_every_dispatch_that_was_offered_is_known() -> None:
    rooms = Rooms()
    rooms.offered(offer(room(), FRENCH, "AD_fr"), NOW)
    rooms.offered(offer(room(), GERMAN, "AD_de"), NOW + 1)
    assert record_of(rooms).dispatches.keys() == {"AD_fr", "AD_de"}
    assert {role.metadata for role in record_of(rooms).roles} == {FRENCH, GERMAN}


def test_what_is_known_of_a_dispatch_outlives_its_next_look_but_not_its_deletion() -> None:
    rooms = Rooms()
    rooms.offered(offer(room(), FRENCH, "AD_fr"), NOW)
    rooms.offered(offer(room(), GERMAN, "AD_de"), NOW)
    record = record_of(rooms)
    record.dispatches["AD_fr"].attempts = 2
    record.take_in([dispatch("AD_fr", FRENCH, created_s=5)], gone=["AD_fr", "AD_de"])
    (known,) = record.dispatches.values()
    assert (known.attempts, known.dispatch.state.created_at) == (2, 5_000_000_000)


def test_an_offer_during_a_look_is_not_forgotten_with_what_the_look_did_not_see() -> None:
    rooms = Rooms()
    rooms.listed([room()], NOW)
    record = record_of(rooms)
    known = set(record.dispatches)
    rooms.offered(offer(room(), FRENCH, "AD_fr"), NOW)
    record.take_in([], gone=known)
    assert record.dispatches.keys() == {"AD_fr"}


def test_a_dispatch_that_was_deleted_is_not_remembered() -> None:
    rooms = Rooms()
    rooms.offered(offer(room(), FRENCH), NOW)
    record_of(rooms).take_in([], gone=["AD_1"])
    rooms.connected_again(NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    assert record_of(rooms).asks() == []


def lost_with_two_roles() -> Rooms:
    rooms = Rooms()
    rooms.offered(offer(room(), FRENCH_OF_OURS, "AD_fr"), NOW)
    rooms.offered(offer(room(), GERMAN, "AD_de"), NOW)
    rooms.connected_again(NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    return rooms


def test_each_role_that_came_back_without_a_dispatch_is_remembered() -> None:
    record = record_of(lost_with_two_roles())
    assert record.stand_ins().keys() == {"AD_fr", "AD_de"}
    record.take_in([dispatch("AD_new", FRENCH)])
    assert record.stand_ins().keys() == {"AD_de"}
    assert [each.dispatch.id for each in record.asks()] == ["AD_new", "AD_de"]
    record.forget("AD_de")
    assert record.stand_ins() == {}


def test_a_role_asks_for_the_build_that_it_asked_for_before_and_no_other_role_does() -> None:
    rooms = lost_with_two_roles()
    assert asks(rooms, FRENCH) == Target(("ours",))
    assert asks(rooms, GERMAN) == Untargeted()
    assert asks(rooms, json.dumps({"language": "it"})) == Untargeted()


def test_of_several_dispatches_for_a_role_the_last_one_says_which_build() -> None:
    rooms = Rooms()
    for number, metadata in enumerate((OURS, THEIRS)):
        rooms.offered(offer(room(), metadata, f"AD_{number}"), NOW)
    rooms.connected_again(NOW + 5)
    rooms.listed([room(sid="RM_2")], NOW + 6)
    assert asks(rooms) == Target(("theirs",))


def test_all_roles_outlive_a_second_restart() -> None:
    rooms = lost_with_two_roles()
    record_of(rooms).take_in([dispatch("AD_new", FRENCH)])
    rooms.connected_again(NOW + 20)
    rooms.listed([room(sid="RM_3")], NOW + 21)
    assert record_of(rooms).stand_ins().keys() == {"AD_new", "AD_de"}


def test_what_a_waiting_role_waits_for_is_not_forgotten_because_the_other_has_its_agent() -> None:
    rooms = Rooms()
    rooms.listed([room(publishers=2)], NOW)
    record = record_of(rooms)
    record.agents, record.waits_for = frozenset({"PA_1"}), ("theirs",)
    rooms.listed([room(publishers=2)], NOW + 2)
    assert record.waits_for == ("theirs",)
    rooms.listed([room(publishers=3)], NOW + 4)
    assert not record.waits_for


async def test_a_room_is_not_forgotten_while_somebody_looks_at_it() -> None:
    rooms = Rooms()
    rooms.listed([room()], NOW)
    looking = record_of(rooms).look = asyncio.create_task(asyncio.sleep(3600))
    rooms.listed([], NOW + UNLISTED_S + 0.1)
    assert rooms.looks() == [looking]
    looking.cancel()
    await asyncio.wait([looking])
    rooms.listed([], NOW + UNLISTED_S + 0.2)
    assert rooms.get("call") is None


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


# How long ago an agent was there


def test_while_the_numbers_show_the_agents_of_the_last_look_they_are_there() -> None:
    rooms = Rooms()
    rooms.listed([room(publishers=1)], NOW)
    record = record_of(rooms)
    french, german = dispatch("AD_fr", FRENCH), dispatch("AD_de", GERMAN)
    record.take_in([french, german])
    record.agents, record.served = frozenset({"PA_1"}), {"AD_fr": AgentSeen()}
    rooms.listed([room(users=1, publishers=2)], NOW + 600)
    assert record.of(french).served_s == NOW + 600
    # Another role's agent is not there for that.
    assert record.of(german).served_s == -math.inf
    rooms.listed([room(users=1, publishers=1)], NOW + 602)
    assert record.of(french).served_s == NOW + 600


def test_an_offer_forgets_no_room_that_is_listed() -> None:
    """Lists may be far apart where the server is slow."""
    rooms = Rooms()
    rooms.listed([room()], NOW)
    rooms.offered(Job(room=Room(name="other", sid="RM_other")), NOW + UNLISTED_S + 1)
    assert rooms.get("call") is not None
    rooms.listed([], NOW + UNLISTED_S + 2)
    assert rooms.get("call") is None
