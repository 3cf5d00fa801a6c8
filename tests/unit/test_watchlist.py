from __future__ import annotations

import asyncio
import copy
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.adoption.watchlist import (
    CHECK_S,
    CHECKS_PER_S,
    OWN_ROOM_S,
    RECHECK_S,
    RELOOK_S,
    VERIFY_S,
    Watchlist,
)
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms
from build_aware.dispatch.watch import SUSPECT_S

FOREVER: Final = 1e9
AT: Final = 1_000.0
"""When the first list comes in."""

SPREAD: Final = 1.25
JUST: Final = 0.001

SEEDS: Final = range(8)


def room(users: int = 1, publishers: int = 0, *, name: str = "a", sid: str = "") -> Room:
    return Room(
        name=name, sid=sid or f"RM_{name}", num_participants=users, num_publishers=publishers
    )


def watching(*rooms: Room, seed: int = 0) -> Watchlist:
    watchlist = Watchlist(Rooms(), random.Random(seed))
    watchlist.listed(rooms, AT)
    return watchlist


def offered(*rooms: Room) -> Watchlist:
    """A watchlist of rooms that were offered to this worker, and are not listed yet."""
    known = Rooms()
    for each in rooms:
        known.offered(Job(dispatch_id=f"AD_{each.name}", room=each), AT)
    return Watchlist(known, random.Random(0))


def copied(watchlist: Watchlist) -> Watchlist:
    return copy.deepcopy(watchlist)


def record_of(watchlist: Watchlist, name: str = "a") -> RoomRecord:
    record = watchlist._rooms.get(name)
    assert record is not None
    return record


class Looking:
    """What stands in for the task of a look that is under way."""

    over = False

    def done(self) -> bool:
        return self.over


def looks_at(watchlist: Watchlist, name: str = "a") -> Looking:
    """A look at a room is under way."""
    looking = Looking()
    record_of(watchlist, name).look = cast(asyncio.Task[None], looking)
    return looking


def names(records: Iterable[RoomRecord]) -> list[str]:
    return [record.room.name for record in records]


def due(watchlist: Watchlist, now_s: float) -> list[str]:
    """Which rooms fall due, without a look at them."""
    return sorted(names(copied(watchlist).due(now_s)))


def due_at(watchlist: Watchlist, name: str = "a") -> float:
    """When a room falls due, to a millisecond, without a look at it."""
    untouched = copied(watchlist)

    def is_due(now_s: float) -> bool:
        return name in names(untouched.due(now_s))

    low_s, high_s = 0.0, FOREVER
    if not is_due(high_s):
        return math.inf
    while high_s - low_s > JUST / 2:
        middle_s = (low_s + high_s) / 2
        if is_due(middle_s):
            high_s = middle_s
        else:
            low_s = middle_s
    return round(high_s, 3)


def begin_look(watchlist: Watchlist, now_s: float, name: str = "a") -> None:
    assert name in names(watchlist.due(now_s))


Result = Literal["served", "unserved", "postponed"]
RESULTS: Final[tuple[Result, ...]] = get_args(Result)


def end_look(watchlist: Watchlist, result: Result, now_s: float, name: str = "a") -> None:
    if result == "served":
        watchlist.served(name, now_s)
    elif result == "unserved":
        watchlist.unserved(name, now_s)
    else:
        watchlist.postpone(name, now_s + RECHECK_S)


# What the numbers say


@pytest.mark.parametrize("numbers", [(1, 0), (1, 1), (2, 0), (2, 2), (9, 8)])
def test_a_new_room_with_a_user_and_no_sign_of_an_agent_is_looked_at_now(
    numbers: tuple[int, int],
) -> None:
    assert due_at(watching(room(*numbers))) == AT


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("numbers", [(1, 2), (1, 3), (2, 3)])
def test_where_more_publish_than_there_are_users_that_is_verified_in_a_minute_or_two(
    numbers: tuple[int, int], seed: int
) -> None:
    at_s = due_at(watching(room(*numbers), seed=seed))
    assert AT + VERIFY_S <= at_s <= AT + 2 * VERIFY_S


@pytest.mark.parametrize("numbers", [(0, 0), (0, 1), (0, 2)])
def test_a_room_without_users_is_not_looked_at(numbers: tuple[int, int]) -> None:
    assert due_at(watching(room(*numbers))) == math.inf


def test_workers_that_see_the_same_list_spread_their_looks() -> None:
    assert len({due_at(watching(room(1, 2), seed=seed)) for seed in SEEDS}) == len(SEEDS)
    results: tuple[Result, ...] = ("served", "unserved")
    for result in results:
        watchlists = [watching(room(), seed=seed) for seed in SEEDS]
        for watchlist in watchlists:
            end_look(watchlist, result, AT)
        assert len({due_at(watchlist) for watchlist in watchlists}) == len(SEEDS)


def test_by_default_every_worker_has_dice_of_its_own() -> None:
    one, other = Watchlist(Rooms()), Watchlist(Rooms())
    for watchlist in (one, other):
        watchlist.listed([room(1, 2, name=str(n)) for n in range(4)], AT)
    looks = [[due_at(watchlist, str(n)) for n in range(4)] for watchlist in (one, other)]
    assert looks[0] != looks[1]


# What a look has found


@pytest.mark.parametrize("numbers", [(1, 2), (1, 3), (2, 3)])
def test_a_room_whose_numbers_show_its_agent_is_not_looked_at_again_while_they_stay(
    numbers: tuple[int, int],
) -> None:
    watchlist = watching(room(*numbers))
    watchlist.served("a", AT + 2)
    watchlist.listed([room(*numbers)], AT + 5)
    assert due_at(watchlist) == math.inf


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("numbers", [(1, 0), (1, 1), (2, 0), (2, 2), (9, 8)])
def test_a_room_whose_numbers_do_not_show_its_agent_is_looked_at_once_a_minute(
    numbers: tuple[int, int], seed: int
) -> None:
    watchlist = watching(room(*numbers), seed=seed)
    for now_s in (AT + 7, AT + 90):
        watchlist.served("a", now_s)
        watchlist.listed([room(*numbers)], now_s + 2)
        assert now_s + RECHECK_S <= due_at(watchlist) <= now_s + RECHECK_S * SPREAD


@pytest.mark.parametrize("numbers", [(0, 0), (0, 1)])
def test_an_agent_without_users_is_not_looked_at_again_until_somebody_comes(
    numbers: tuple[int, int],
) -> None:
    watchlist = watching(room())
    watchlist.listed([room(*numbers)], AT + 1)
    watchlist.served("a", AT + 2)
    watchlist.listed([room(*numbers)], AT + 3)
    assert due_at(watchlist) == math.inf
    watchlist.listed([room(1, numbers[1])], AT + 4)
    assert due_at(watchlist) == AT + 4


def test_where_only_a_refused_job_was_looked_for_the_room_is_looked_at_once_more() -> None:
    watchlist = watching(room(1, 2))
    begin_look(watchlist, AT + 2 * VERIFY_S)
    watchlist.served("a", AT, verify=True)
    assert AT + RECHECK_S <= due_at(watchlist) < math.inf
    watchlist.served("a", AT)
    assert due_at(watchlist) == math.inf


def test_an_agent_that_leaves_while_a_user_begins_to_speak_is_missed_within_minutes() -> None:
    one_user_and_the_agent = one_user_and_the_other = room(2, 2)
    watchlist = watching(one_user_and_the_agent)
    begin_look(watchlist, AT)
    watchlist.served("a", AT)
    now_s = AT
    while now_s < AT + 2 * RECHECK_S:
        now_s += 2
        watchlist.listed([one_user_and_the_other], now_s)
    begin_look(watchlist, now_s)


@pytest.mark.parametrize(
    ("before", "after", "shows"),
    [((1, 1), (1, 2), True), ((1, 2), (1, 1), False), ((1, 1), (0, 1), True)],
)
def test_what_a_look_has_found_is_weighed_with_the_last_numbers(
    before: tuple[int, int], after: tuple[int, int], shows: bool
) -> None:
    watchlist = watching(room(*before))
    begin_look(watchlist, AT + 2 * VERIFY_S)
    watchlist.listed([room(*after)], AT + 2 * VERIFY_S + 1)
    watchlist.served("a", AT + 2 * VERIFY_S + 2)
    assert (due_at(watchlist) == math.inf) is shows


@pytest.mark.parametrize("numbers", [(1, 1), (2, 1), (2, 2), (3, 2), (1, 3), (2, 3)])
def test_a_room_is_looked_at_once_its_numbers_have_changed(numbers: tuple[int, int]) -> None:
    watchlist = watching(room(1, 2))
    watchlist.served("a", AT)
    watchlist.listed([room(*numbers)], AT + 5)
    at_s = due_at(watchlist)
    if numbers[1] > numbers[0]:
        assert AT + 5 + VERIFY_S <= at_s <= AT + 5 + 2 * VERIFY_S
    else:
        assert at_s == AT + 5


def test_a_room_that_is_looked_at_once_a_minute_is_looked_at_when_its_numbers_change() -> None:
    watchlist = watching(room(2, 2))
    watchlist.served("a", AT)
    watchlist.listed([room(2, 1)], AT + 5)
    assert due_at(watchlist) == AT + 5


def test_a_change_is_a_change_from_the_last_list() -> None:
    watchlist = watching(room(1, 2))
    for at_s, publishers in ((5, 3), (10, 2), (15, 3)):
        watchlist.served("a", AT + at_s)
        watchlist.listed([room(1, publishers)], AT + at_s)
        assert due_at(watchlist) < math.inf
        watchlist.served("a", AT + at_s)
        watchlist.listed([room(1, publishers)], AT + at_s + 1)
        assert due_at(watchlist) == math.inf


@pytest.mark.parametrize("numbers", [(1, 2), (2, 3), (0, 0), (2, 0)])
def test_a_change_never_puts_a_look_off(numbers: tuple[int, int]) -> None:
    watchlist = watching(room())
    watchlist.listed([room(*numbers)], AT + 5)
    assert due_at(watchlist) == AT
    begin_look(watchlist, AT + 5)
    watchlist.postpone("a", AT + 6)
    watchlist.listed([room(*numbers)], AT + 5)
    assert due_at(watchlist) == AT + 6


@pytest.mark.parametrize("seed", SEEDS)
def test_people_among_themselves_are_looked_at_once_a_minute(seed: int) -> None:
    watchlist = watching(room(2, 2), seed=seed)
    watchlist.unserved("a", AT + 7)
    watchlist.listed([room(2, 2)], AT + 9)
    assert AT + 7 + RECHECK_S <= due_at(watchlist) <= AT + 7 + RECHECK_S * SPREAD


def test_an_empty_room_is_not_looked_at_again_until_somebody_comes() -> None:
    watchlist = watching(room())
    watchlist.listed([room(0)], AT + 1)
    watchlist.unserved("a", AT + 2)
    watchlist.listed([room(0)], AT + 3)
    assert due_at(watchlist) == math.inf
    watchlist.listed([room(1)], AT + 4)
    assert due_at(watchlist) == AT + 4


def test_a_room_can_be_postponed() -> None:
    watchlist = watching(room())
    watchlist.postpone("a", AT + 3)
    watchlist.listed([room()], AT + 1)
    assert due_at(watchlist) == AT + 3


# Which rooms there are


def test_a_room_that_is_listed_no_more_is_forgotten() -> None:
    watchlist = watching(room(), room(name="b"))
    watchlist.listed([room(name="b")], AT + 1)
    assert due(watchlist, FOREVER) == ["b"]


def test_a_room_that_comes_back_is_new() -> None:
    watchlist = watching(room())
    watchlist.served("a", AT)
    watchlist.listed([], AT + 1)
    watchlist.listed([room()], AT + 2)
    assert due_at(watchlist) == AT + 2


def test_another_room_of_the_same_name_is_new() -> None:
    watchlist = watching(room(sid="RM_1"))
    watchlist.served("a", AT)
    watchlist.listed([room(sid="RM_2")], AT + 2)
    assert due_at(watchlist) == AT + 2
    begin_look(watchlist, AT + 2)
    watchlist.served("a", AT + 3)
    watchlist.listed([room(sid="RM_2")], AT + 4)
    assert due_at(watchlist) >= AT + 3 + RECHECK_S


def test_a_look_is_at_the_room_as_it_was_listed_last() -> None:
    watchlist = watching(room())
    newer = room()
    newer.metadata = "newer"
    watchlist.listed([newer], AT + 1)
    assert [record.room for record in watchlist.due(AT + 1)] == [newer]


def test_a_room_that_is_gone_may_still_be_spoken_of() -> None:
    watchlist = watching(room())
    watchlist.served("gone", AT)
    watchlist.unserved("gone", AT)
    watchlist.postpone("gone", AT)
    assert due(watchlist, FOREVER) == ["a"]


def test_rooms_do_not_touch_each_other() -> None:
    watchlist = watching(room(), room(name="b"), room(name="c"), room(1, name="d"))
    watchlist.served("b", AT)
    watchlist.postpone("c", AT + 10)
    watchlist.unserved("d", AT)
    assert due(watchlist, AT) == ["a"]


# Which come first


def test_the_loneliest_rooms_come_first() -> None:
    rooms = [room(2, 2, name="talk"), room(3, 0, name="three"), room(1, 0, name="one")]
    for seed in SEEDS:
        ordered = names(watching(*rooms, seed=seed).due(AT))
        assert ordered == ["three", "one", "talk"]


def test_rooms_that_are_alike_come_in_random_order_so_that_workers_spread() -> None:
    rooms = [room(name=name) for name in "abcdef"]
    orders = {tuple(names(watching(*rooms, seed=seed).due(AT))) for seed in SEEDS}
    assert len(orders) > len(SEEDS) / 2
    assert {tuple(sorted(order)) for order in orders} == {tuple("abcdef")}


def test_a_room_is_left_out_while_somebody_looks_at_it() -> None:
    watchlist = watching(room(), room(name="b"))
    looking = looks_at(watchlist)
    assert names(watchlist.due(AT)) == ["b"]
    looking.over = True
    assert due(watchlist, AT) == ["a", "b"]


# Suspicions


@pytest.mark.parametrize("numbers", [(0, 0), (1, 2), (1, 1)])
def test_a_suspect_is_looked_at_whatever_its_numbers_say(numbers: tuple[int, int]) -> None:
    watchlist = watching(room(*numbers))
    watchlist.served("a", AT)
    watchlist.suspect("a", AT + 3.5)
    assert due_at(watchlist) == AT + 3.5


def test_a_suspicion_never_puts_a_look_off() -> None:
    watchlist = watching(room())
    watchlist.suspect("a", AT + 3.5)
    assert due_at(watchlist) == AT
    unlisted = offered(room())
    unlisted.suspect("a", AT + 3.5)
    unlisted.listed([room()], AT)
    assert due_at(unlisted) == AT


@pytest.mark.parametrize("listed_first", [True, False])
@pytest.mark.parametrize("users", [0, 1])
def test_a_suspect_without_an_agent_is_looked_at_until_its_numbers_are_true(
    users: int, listed_first: bool
) -> None:
    watchlist = watching(room(users)) if listed_first else offered(room(users))
    watchlist.suspect("a", AT + 1)
    watchlist.listed([room(users)], AT + 1)
    until_s = AT + 1 + SUSPECT_S
    for now_s in (AT + 1, AT + 5, until_s - JUST):
        begin_look(watchlist, now_s)
        watchlist.unserved("a", now_s)
        assert due_at(watchlist) == round(now_s + RELOOK_S, 3)
    begin_look(watchlist, until_s + RELOOK_S)
    watchlist.unserved("a", until_s)
    if users:
        assert until_s + RECHECK_S <= due_at(watchlist) <= until_s + RECHECK_S * SPREAD
    else:
        assert due_at(watchlist) == math.inf


@pytest.mark.parametrize("listed_first", [True, False])
@pytest.mark.parametrize("numbers", [(0, 1), (1, 2), (1, 1)])
def test_a_suspicion_is_over_once_an_agent_was_found(
    numbers: tuple[int, int], listed_first: bool
) -> None:
    watchlist = watching(room(*numbers)) if listed_first else offered(room(*numbers))
    watchlist.suspect("a", AT)
    if not listed_first:
        watchlist.listed([room(*numbers)], AT)
    begin_look(watchlist, AT)
    watchlist.served("a", AT)
    for after_s in (1, 2):
        watchlist.listed([room(*numbers)], AT + after_s)
        assert due_at(watchlist) >= AT + RECHECK_S


def test_a_room_may_fall_under_suspicion_again() -> None:
    watchlist = watching(room(0))
    for at_s in (AT, AT + 100):
        watchlist.suspect("a", at_s)
        assert due_at(watchlist) == at_s
        begin_look(watchlist, at_s)
        watchlist.unserved("a", at_s)
        assert due_at(watchlist) == at_s + RELOOK_S
        begin_look(watchlist, at_s + SUSPECT_S)
        watchlist.unserved("a", at_s + SUSPECT_S)
        assert due_at(watchlist) == math.inf


def test_an_agent_that_dies_just_after_a_look_has_seen_it_is_missed() -> None:
    watchlist = watching(room(1, 2))
    now_s = AT + 2 * VERIFY_S
    begin_look(watchlist, now_s)
    watchlist.suspect("a", now_s + 1)
    watchlist.served("a", now_s + 2)
    assert due_at(watchlist) == now_s + 1


@pytest.mark.parametrize("delay_s", [1.0, 3.5])
@pytest.mark.parametrize("numbers", [(0, 0), (0, 1), (1, 2), (1, 1), (1, 0)])
@pytest.mark.parametrize("result", RESULTS)
def test_a_suspicion_survives_the_result_of_a_look_that_was_under_way(
    result: Result, numbers: tuple[int, int], delay_s: float
) -> None:
    watchlist = watching(room(*numbers))
    watchlist.suspect("a", AT)
    begin_look(watchlist, AT)
    watchlist.suspect("a", AT + delay_s)
    looking = looks_at(watchlist)
    assert watchlist.due(AT + 1) == []
    watchlist.listed([room(*numbers)], AT + 1)
    looking.over = True
    end_look(watchlist, result, AT + 2)
    assert due_at(watchlist) == AT + delay_s

    begin_look(watchlist, AT + 4)
    end_look(watchlist, result, AT + 4)
    assert due_at(watchlist) >= AT + 4 + RELOOK_S


def test_a_suspicion_that_survives_puts_off_no_look() -> None:
    watchlist = watching(room())
    begin_look(watchlist, AT)
    watchlist.suspect("a", AT + 9)
    watchlist.postpone("a", AT + 3)
    assert due_at(watchlist) == AT + 3


def test_a_suspect_is_watched_from_the_last_suspicion_on() -> None:
    watchlist = watching(room(0))
    watchlist.suspect("a", AT)
    begin_look(watchlist, AT)
    watchlist.suspect("a", AT + 1)
    now_s = AT + 1 + SUSPECT_S - JUST
    begin_look(watchlist, now_s)
    watchlist.unserved("a", now_s)
    assert due_at(watchlist) == round(now_s + RELOOK_S, 3)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("numbers", [(0, 0), (1, 2), (1, 0)])
def test_a_suspicion_survives_when_the_room_comes_back_under_another_sid(
    numbers: tuple[int, int], looks: bool
) -> None:
    watchlist = watching(room(sid="RM_1"))
    if looks:
        begin_look(watchlist, AT)
    watchlist.suspect("a", AT + 3.5)
    watchlist.listed([room(*numbers, sid="RM_2")], AT + 1)
    if numbers == (1, 0):
        assert due_at(watchlist) == AT + 1
    else:
        assert due_at(watchlist) == AT + 3.5
    begin_look(watchlist, AT + 3.5)
    watchlist.unserved("a", AT + 3.5)
    assert due_at(watchlist) == AT + 3.5 + RELOOK_S


@pytest.mark.parametrize("result", RESULTS)
def test_a_suspicion_survives_a_look_at_the_room_that_was_there_before(result: Result) -> None:
    watchlist = watching(room(sid="RM_1"))
    begin_look(watchlist, AT)
    watchlist.suspect("a", AT + 1)
    watchlist.listed([room(1, 2, sid="RM_2")], AT + 1)
    end_look(watchlist, result, AT + 2)
    assert due_at(watchlist) == AT + 1


def test_a_suspicion_is_not_handed_on_once_a_look_has_followed_it() -> None:
    watchlist = watching(room(0, sid="RM_1"))
    watchlist.suspect("a", AT)
    begin_look(watchlist, AT)
    watchlist.served("a", AT)
    watchlist.listed([room(0, sid="RM_2")], AT + 1)
    assert due_at(watchlist) == math.inf


@pytest.mark.parametrize("now_s", [AT, AT + 3.5])
def test_a_suspicion_lasts_while_others_are_looked_at(now_s: float) -> None:
    watchlist = watching(room(0, sid="RM_1"), room(name="b"))
    watchlist.suspect("a", AT + 3.5)
    looking = looks_at(watchlist)
    assert names(watchlist.due(now_s)) == ["b"]
    looking.over = True
    watchlist.due(AT)
    watchlist.listed([room(0, sid="RM_2"), room(name="b")], now_s)
    assert due_at(watchlist) == AT + 3.5


def test_a_suspect_that_is_not_listed_yet_is_looked_at_once_it_is() -> None:
    watchlist = offered(room(0))
    watchlist.suspect("a", AT + 1)
    watchlist.listed([], AT + 2)
    assert due(watchlist, FOREVER) == []
    watchlist.listed([room(0), room(0, name="b")], AT + 1 + SUSPECT_S)
    assert due_at(watchlist) == AT + 1
    assert due_at(watchlist, "b") == math.inf


@pytest.mark.parametrize("sid", ["", "RM_other"])
def test_no_room_is_looked_at_between_an_outage_and_the_next_list(sid: str) -> None:
    """Its name may be that of a room by now that came back without what it had asked for."""
    watchlist = watching(room(1, 2))
    watchlist.suspect("a", AT + 1)
    watchlist._rooms.connected_again(AT + 2)
    assert due(watchlist, AT + 2) == []
    watchlist.listed([room(1, 0, sid=sid)], AT + 3)
    assert due(watchlist, AT + 3) == ["a"]


def test_a_suspicion_of_a_room_that_is_never_listed_is_dropped() -> None:
    watchlist = offered(room(0))
    watchlist.suspect("a", AT)
    watchlist.listed([], AT + SUSPECT_S + JUST)
    watchlist.listed([room(0)], AT + SUSPECT_S + 1)
    assert due_at(watchlist) == math.inf


def test_a_suspicion_is_not_dropped_before_its_time() -> None:
    watchlist = offered(room(0))
    watchlist.suspect("a", AT + 60)
    watchlist.listed([], AT + 60 + SUSPECT_S)
    watchlist.listed([room(0)], AT + 60 + SUSPECT_S + 1)
    assert due_at(watchlist) == AT + 60


# Numbers are old for longer than it takes to miss something, and looks stay rare


def test_suspects_are_watched_for_longer_than_numbers_are_old() -> None:
    room_update_interval_s = 5.0
    assert room_update_interval_s < SUSPECT_S
    assert room_update_interval_s > RELOOK_S


Numbers = tuple[int, int]

NAMES: Final = ("a", "b", "c")


@dataclass
class Listed:
    """A list with the numbers and the sids of its rooms."""

    rooms: dict[str, tuple[Numbers, str]]


@dataclass
class Begun:
    """Looks at all that is due begin."""


@dataclass
class Ended:
    """All looks end."""

    result: Result


@dataclass
class Suspected:
    name: str
    delay_s: float


Event = Listed | Begun | Ended | Suspected

NUMBERS: Final = st.tuples(st.integers(0, 2), st.integers(0, 3))
EVENTS: Final = st.one_of(
    st.builds(
        Listed,
        st.dictionaries(
            st.sampled_from(NAMES), st.tuples(NUMBERS, st.sampled_from(["RM_1", "RM_1", "RM_2"]))
        ),
    ),
    st.just(Begun()),
    st.builds(Ended, st.sampled_from(["served", "unserved", "unserved", "postponed"])),
    st.builds(Suspected, st.sampled_from(NAMES), st.floats(0, 10)),
)
PAUSES: Final = st.sampled_from([0.0, 2.0, 5.0, 30.0, 61.0, 76.0]) | st.floats(0, 130)


@dataclass
class Promises:
    """Until when rooms have to be looked at, however the story goes on."""

    rooms: dict[str, tuple[Numbers, str]] = field(default_factory=dict)
    until_s: dict[str, float] = field(default_factory=dict)
    suspected_s: dict[str, float] = field(default_factory=dict)

    def listed(self, rooms: dict[str, tuple[Numbers, str]], now_s: float) -> None:
        for name in self.rooms.keys() - rooms.keys():
            self.until_s.pop(name, None)
            self.suspected_s.pop(name, None)
        for name, (numbers, sid) in rooms.items():
            before = self.rooms.get(name)
            if before is not None and before[1] != sid:
                self.until_s.pop(name, None)
            if numbers[0] and (numbers, sid) != before:
                verified_s = now_s + 2 * VERIFY_S
                self.until_s[name] = min(self.until_s.get(name, math.inf), verified_s)
        self.rooms = rooms

    def suspected(self, name: str, at_s: float) -> None:
        if name in self.rooms:
            self.suspected_s[name] = at_s

    def begun(self, name: str) -> None:
        self.suspected_s.pop(name, None)

    def ended(self, name: str, result: Result, now_s: float) -> None:
        self.until_s.pop(name, None)
        if name not in self.rooms:
            return
        (users, publishers), _ = self.rooms[name]
        shown = result == "served" and publishers > users
        if result == "postponed" or (users and not shown):
            self.until_s[name] = now_s + RECHECK_S * SPREAD

    def overdue(self, now_s: float) -> set[str]:
        return {
            name
            for promises in (self.until_s, self.suspected_s)
            for name, until_s in promises.items()
            if until_s <= now_s
        }

    @property
    def never_forgotten(self) -> set[str]:
        """Rooms with users whose numbers show no agent."""
        return {
            name for name, ((users, publishers), _) in self.rooms.items() if 0 < users >= publishers
        }


@settings(max_examples=300)
@given(story=st.lists(st.tuples(PAUSES, EVENTS), max_size=25), seed=st.integers(0, 9))
def test_no_room_is_ever_forgotten(story: list[tuple[float, Event]], seed: int) -> None:
    watchlist = Watchlist(Rooms(), random.Random(seed))
    promises, now_s = Promises(), AT
    looking: dict[str, Looking] = {}
    for pause_s, event in story:
        now_s += pause_s
        if isinstance(event, Listed):
            rooms = [room(*n, name=name, sid=sid) for name, (n, sid) in event.rooms.items()]
            watchlist.listed(rooms, now_s)
            promises.listed(event.rooms, now_s)
        elif isinstance(event, Suspected):
            watchlist.suspect(event.name, now_s + event.delay_s)
            promises.suspected(event.name, now_s + event.delay_s)
        elif isinstance(event, Begun):
            for name in names(watchlist.due(now_s)):
                promises.begun(name)
                looking[name] = looks_at(watchlist, name)
        else:
            for name, look in looking.items():
                look.over = True
                end_look(watchlist, event.result, now_s, name)
                promises.ended(name, event.result, now_s)
            looking.clear()
        assert promises.overdue(now_s) <= {*due(watchlist, now_s), *looking}
        remembered = {*due(watchlist, FOREVER), *looking}
        assert promises.overdue(FOREVER) <= remembered
        assert promises.never_forgotten <= remembered


@given(numbers=NUMBERS, served=st.booleans(), seed=st.integers(0, 9))
def test_a_room_that_does_not_change_costs_a_look_a_minute_at_the_most(
    numbers: Numbers, served: bool, seed: int
) -> None:
    watchlist, looks = Watchlist(Rooms(), random.Random(seed)), 0
    for second in range(0, 600, 2):
        watchlist.listed([room(*numbers)], AT + second)
        for each in watchlist.due(AT + second):
            looks += 1
            name = each.room.name
            end_look(watchlist, "served" if served else "unserved", AT + second, name)
    users, publishers = numbers
    at_most = 0 if not users else 1 if served and publishers > users else 10
    assert looks <= at_most
    assert looks >= (at_most + 1) // 2


# What comes up during a look


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("later", [room(2, 0), room(1, 0, sid="RM_2")], ids=["numbers", "sid"])
def test_a_change_during_a_look_is_looked_at_after_it(result: Result, later: Room) -> None:
    watchlist = watching(room(1, 1))
    begin_look(watchlist, AT)
    looking = looks_at(watchlist)
    watchlist.listed([later], AT + 1)
    looking.over = True
    end_look(watchlist, result, AT + 2)
    assert due_at(watchlist) == AT + 1


@pytest.mark.parametrize("result", ["served", "postponed"])
def test_a_suspicion_for_later_survives_a_look_that_comes_first(result: Result) -> None:
    watchlist = watching(room(1, 1))
    watchlist.suspect("a", AT + 3.5)
    begin_look(watchlist, AT + 1)
    end_look(watchlist, result, AT + 2)
    assert due_at(watchlist) == AT + 3.5


def test_of_two_suspicions_the_earlier_one_counts() -> None:
    watchlist = watching(room(1, 1))
    begin_look(watchlist, AT)
    watchlist.suspect("a", AT + 1)
    watchlist.suspect("a", AT + 3.5)
    end_look(watchlist, "served", AT + 0.5)
    assert due_at(watchlist) == AT + 1


# Rooms with several agents


@pytest.mark.parametrize(
    ("agents", "numbers", "shown"),
    [(1, (1, 2), True), (2, (1, 3), True), (2, (1, 2), False), (3, (2, 4), False)],
)
def test_numbers_show_the_agents_if_as_many_more_publish_as_there_were(
    agents: int, numbers: tuple[int, int], shown: bool
) -> None:
    watchlist = watching(room(*numbers))
    watchlist.seen("a", agents, AT)
    watchlist.served("a", AT)
    assert (due_at(watchlist) == math.inf) is shown
    assert (record_of(watchlist).watch.check_at_s == math.inf) is shown


def test_a_room_that_loses_one_of_two_agents_is_looked_at_at_once() -> None:
    watchlist = watching(room(1, 3))
    watchlist.seen("a", 2, AT)
    watchlist.served("a", AT)
    watchlist.listed([room(1, 2)], AT + 5)
    assert due_at(watchlist) == AT + 5


# Checks, where numbers cannot tell that an agent is there


def checked_at(watchlist: Watchlist, name: str = "a") -> float:
    return record_of(watchlist, name).watch.check_at_s


def has_agents(watchlist: Watchlist, *names: str, now_s: float = AT) -> None:
    for name in names:
        watchlist.seen(name, 1, now_s)
        watchlist.served(name, now_s)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("numbers", [(1, 0), (1, 1), (2, 0), (2, 2), (9, 8)])
def test_an_agent_that_its_numbers_do_not_show_is_checked_every_few_seconds(
    numbers: tuple[int, int], seed: int
) -> None:
    watchlist = watching(room(*numbers), seed=seed)
    for now_s in (AT, AT + 7):
        has_agents(watchlist, "a", now_s=now_s)
        at_s = checked_at(watchlist)
        assert now_s + CHECK_S * 0.75 <= at_s <= now_s + CHECK_S
        assert watchlist.due_checks(at_s - JUST) == []
        assert names(watchlist.due_checks(at_s)) == ["a"]
        assert due(watchlist, at_s) == []


def test_a_dead_agent_is_missed_before_its_user_was_alone_for_ten_seconds() -> None:
    join_s, notice_s = 2.0, 1.0
    assert CHECK_S + join_s + notice_s < 10


@pytest.mark.parametrize("numbers", [(1, 2), (2, 3), (0, 0), (0, 1)])
def test_there_is_nothing_to_check_where_numbers_show_it_or_nobody_is_there(
    numbers: tuple[int, int],
) -> None:
    watchlist = watching(room(*numbers))
    has_agents(watchlist, "a")
    assert checked_at(watchlist) == math.inf


def test_nor_where_there_was_no_agent() -> None:
    watchlist = watching(room())
    watchlist.seen("a", 0, AT)
    watchlist.unserved("a", AT)
    assert checked_at(watchlist) == math.inf


@pytest.mark.parametrize("result", RESULTS)
def test_an_agent_is_checked_also_where_another_one_is_missing(result: Result) -> None:
    watchlist = watching(room())
    watchlist.seen("a", 1, AT)
    end_look(watchlist, result, AT)
    assert checked_at(watchlist) <= AT + CHECK_S


def test_a_check_is_not_needed_any_more_once_numbers_show_the_agent() -> None:
    watchlist = watching(room(1, 1))
    has_agents(watchlist, "a")
    watchlist.listed([room(1, 2)], AT + 2)
    assert watchlist.due_checks(FOREVER) == []


def test_a_check_puts_off_no_look() -> None:
    watchlist = watching(room())
    has_agents(watchlist, "a")
    before = due_at(watchlist)
    for second in range(0, 60, 5):
        watchlist.due_checks(AT + second)
        watchlist.seen("a", 1, AT + second)
    assert due_at(watchlist) == before


def test_a_check_comes_once_and_a_look_takes_its_place() -> None:
    watchlist = watching(room(), room(name="b"))
    has_agents(watchlist, "a", "b")
    watchlist.suspect("b", AT + CHECK_S)
    assert names(watchlist.due(AT + CHECK_S)) == ["b"]
    assert names(watchlist.due_checks(AT + CHECK_S)) == ["a"]
    assert watchlist.due_checks(AT + CHECK_S) == []


def test_no_room_is_checked_while_somebody_looks_at_it() -> None:
    watchlist = watching(room())
    has_agents(watchlist, "a")
    looking = looks_at(watchlist)
    assert watchlist.due_checks(AT + CHECK_S) == []
    looking.over = True
    assert names(watchlist.due_checks(AT + CHECK_S)) == ["a"]


def test_checks_are_bounded_over_all_rooms_and_the_longest_due_come_first() -> None:
    everywhere = [str(number) for number in range(1000)]
    watchlist = watching(*(room(name=name) for name in everywhere))
    has_agents(watchlist, *everywhere)
    checked: list[str] = []
    seconds, ticks = 30, 4
    for tick in range(seconds * ticks):
        now_s = AT + CHECK_S + tick / ticks
        for name in names(watchlist.due_checks(now_s)):
            checked.append(name)
            watchlist.seen(name, 1, now_s)
    assert CHECKS_PER_S * (seconds - 1) <= len(checked) <= CHECKS_PER_S * (seconds + 1)
    assert len(set(checked)) == len(checked), "a room was checked twice while others waited"


def test_a_worker_that_was_idle_saves_up_no_more_than_a_second() -> None:
    everywhere = [str(number) for number in range(100)]
    watchlist = watching(*(room(name=name) for name in everywhere))
    has_agents(watchlist, *everywhere)
    watchlist.due_checks(AT)
    assert len(watchlist.due_checks(AT + 600)) == CHECKS_PER_S


# Rooms that this worker serves itself


def test_a_room_that_is_served_here_is_looked_at_much_later_and_never_checked() -> None:
    watchlist = watching(room(), room(name="b"))
    has_agents(watchlist, "b")

    def served_here(record: RoomRecord) -> bool:
        return record.room.name in ("a", "b")

    for second in range(0, int(OWN_ROOM_S), 2):
        assert watchlist.due(AT + second, served_here=served_here) == []
        assert watchlist.due_checks(AT + second, served_here=served_here) == []
    assert names(watchlist.due(AT + OWN_ROOM_S, served_here=served_here)) == ["a"]


def test_once_it_is_served_here_no_more_it_is_looked_at_at_once() -> None:
    watchlist = watching(room())
    assert watchlist.due(AT + 5, served_here=lambda _: True) == []
    assert names(watchlist.due(AT + 5)) == ["a"]
