"""The rollout in a server in memory: who writes it, when, and what is left alone."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Final

import pytest
from livekit.api import TwirpError, TwirpErrorCode

from build_aware.adoption import keeper as keepers
from build_aware.adoption.keeper import STABLE_S, UNOPPOSED_LISTS, Keeper
from build_aware.adoption.rollout_room import FOR_EVER_S, NOBODY
from build_aware.dispatch import rollout_document
from build_aware.dispatch.following import Following
from build_aware.dispatch.rollout import Rollout
from tests.support.stub_api import StubServer

ROOM: Final = "_builds.interpreter"
NOW: Final = "2026-11-26T10:00:00Z"


@dataclass
class Worker:
    """What keeps the rollout in one worker; it has been registered for long enough."""

    server: StubServer
    build: str = "ours"
    newest: bool = True
    may_write: bool = True
    following: Following = field(init=False)

    def __post_init__(self) -> None:
        self.following = Following(self.build)
        self.keeper = Keeper(
            self.following,
            build=self.build,
            room=ROOM,
            newest=self.newest,
            may_write=lambda: self.may_write,
        )
        self.keeper.registered(time.monotonic() - STABLE_S)

    async def sweeps(self, count: int = 2) -> Rollout | None:
        """List all rooms some times, and return what it knows then."""
        for _ in range(count):
            self.keeper.take_in(self.server.api, self.server.rooms, time.monotonic())
            if self.keeper._writing is not None:
                await self.keeper._writing
        return self.following.rollout


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "SPREAD_S", 0.0)
    monkeypatch.setattr(keepers, "UNOPPOSED_S", 0.0)


@pytest.fixture
def server() -> StubServer:
    return StubServer()


def written(server: StubServer) -> Rollout:
    (room,) = server.rooms
    assert room.name == ROOM
    return rollout_document.read(room.metadata)


def newest(*builds: str) -> Rollout:
    rollout = Rollout()
    for build in builds:
        rollout = rollout.appeared(build, NOW, make_current=True)
    return rollout


def carries(server: StubServer, rollout: Rollout | str) -> None:
    room = server.has(there=[], room=ROOM)
    text = rollout if isinstance(rollout, str) else rollout_document.write(rollout)
    room.metadata = text


async def test_the_first_worker_makes_the_room_and_its_build_current(server: StubServer) -> None:
    rollout = await Worker(server).sweeps()
    assert rollout == written(server)
    assert rollout.is_current("ours")
    (made,) = server.created
    assert (made.empty_timeout, made.departure_timeout) == (FOR_EVER_S, FOR_EVER_S)
    assert [each.agent_name for each in made.agents] == [NOBODY]
    assert made.metadata == ""


async def test_a_promotion_that_a_later_document_replaces_is_made_again(
    server: StubServer,
) -> None:
    old, new = Worker(server, "old"), Worker(server, "new")
    await old.sweeps()
    server.rooms.clear()  # Somebody deletes the room, and the new worker is the first to see that.
    rollout = await new.sweeps()
    assert rollout is not None
    assert rollout.is_current("new")
    carries(server, newest("older", "old", "oldest"))
    rollout = await new.sweeps()
    assert rollout == written(server)
    assert rollout.is_current("new")
    assert new.following.takes("room", 0)


async def test_a_build_that_has_been_known_for_a_while_is_not_new_again(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "BELIEVED_S", 0.0)
    worker = Worker(server)
    await worker.sweeps()
    carries(server, newest("a", "b", "c"))
    rollout = await worker.sweeps()
    assert rollout is not None
    assert rollout.is_current("c")
    assert rollout.knows("ours")


async def test_a_new_build_makes_itself_current_and_the_old_one_follows(
    server: StubServer,
) -> None:
    old, new = Worker(server, "old"), Worker(server, "new")
    await old.sweeps()
    await new.sweeps()
    rollout = await old.sweeps(1)
    assert rollout is not None
    assert rollout.is_current("new")
    assert not old.following.takes("room", 0)
    assert rollout.previous is not None
    assert rollout.previous.build == "old"
    assert await old.sweeps(5) == rollout


async def test_not_before_it_has_been_registered_for_a_while(server: StubServer) -> None:
    carries(server, newest("old"))
    new = Worker(server, "new")
    now_s = time.monotonic()
    new.keeper.registered(now_s - STABLE_S + 5)
    await new.sweeps()
    assert written(server).is_current("old")
    assert new.following.takes("room", now_s)
    new.keeper.registered(now_s - STABLE_S)
    await new.sweeps()
    assert written(server).is_current("new")


async def test_its_time_is_not_waited_for_until_the_next_list(server: StubServer) -> None:
    worker = Worker(server)
    now_s = time.monotonic()
    worker.keeper.registered(now_s)
    assert not worker.keeper.is_due(now_s + STABLE_S - 1)
    assert worker.keeper.is_due(now_s + STABLE_S)
    worker.keeper.registered(now_s - STABLE_S)
    await worker.sweeps(1)
    assert not worker.keeper.is_due(now_s)


async def test_where_commands_decide_a_new_build_becomes_known(server: StubServer) -> None:
    carries(server, newest("old"))
    await Worker(server, "new", newest=False).sweeps()
    assert written(server).is_current("old")
    assert written(server).knows("new")


async def test_who_may_not_write_follows(server: StubServer) -> None:
    worker = Worker(server, may_write=False)
    assert await worker.sweeps() is None
    assert server.calls.total() == 0
    carries(server, newest("another", "new"))
    await worker.sweeps()
    assert not worker.following.takes("room", 0)
    assert server.calls.total() == 0


async def test_a_server_that_has_not_changed_is_not_called(server: StubServer) -> None:
    worker = Worker(server)
    await worker.sweeps()
    calls = server.calls.total()
    await worker.sweeps(10)
    assert server.calls.total() == calls


async def test_a_lost_document_is_put_back(server: StubServer) -> None:
    worker = Worker(server)
    before = await worker.sweeps()
    server.rooms = []
    assert await worker.sweeps() == before
    assert written(server) == before


async def test_also_by_a_worker_that_has_just_registered_again(server: StubServer) -> None:
    worker = Worker(server)
    before = await worker.sweeps()
    server.rooms = []
    worker.keeper.registered(time.monotonic())
    await worker.sweeps()
    assert written(server) == before


async def test_an_older_document_is_replaced_by_what_is_known(server: StubServer) -> None:
    worker = Worker(server)
    carries(server, newest("a", "b", "ours"))
    known = await worker.sweeps()
    carries(server, newest("a"))
    await worker.sweeps()
    assert written(server) == known


async def test_of_two_with_one_revision_the_one_in_the_server_is_right(server: StubServer) -> None:
    worker = Worker(server)
    carries(server, newest("a", "ours"))
    await worker.sweeps()
    carries(server, newest("ours", "b"))
    rollout = await worker.sweeps()
    assert rollout is not None
    assert rollout.is_current("b")


async def test_whoever_was_faster_is_not_overwritten(server: StubServer) -> None:
    """Between the list and the write the document has come back, newer than this worker's."""
    worker = Worker(server)
    before = await worker.sweeps()
    assert before is not None
    newer = before.appeared("newer", NOW, make_current=True)
    server.rooms = []
    worker.keeper.take_in(server.api, [], time.monotonic())
    carries(server, newer)
    assert worker.keeper._writing is not None
    await worker.keeper._writing
    assert written(server) == newer
    assert worker.following.rollout == newer


async def test_two_new_builds_at_the_same_moment_end_in_one_current_build(
    server: StubServer,
) -> None:
    workers = [Worker(server, build) for build in ("one", "two")]
    for worker in workers:
        worker.keeper.take_in(server.api, server.rooms, time.monotonic())
    await asyncio.gather(*(worker.keeper._writing for worker in workers if worker.keeper._writing))
    for _ in range(4):
        for worker in workers:
            await worker.sweeps(1)
    one, two = (worker.following.rollout for worker in workers)
    assert one == two
    assert one is not None
    assert one.knows("one")
    assert one.knows("two")
    calls = server.calls.total()
    for worker in workers:
        await worker.sweeps(3)
    assert server.calls.total() == calls


def finds_nobody(worker: Worker) -> None:
    """Nobody takes what the worker leaves: one job, then two probes."""
    following, now_s = worker.following, time.monotonic() - 1000
    assert not following.takes("room", now_s)
    following.doubt("room", "room", now_s)
    now_s += following.not_taken("room", "room", now_s)
    for _ in range(2):
        assert not following.takes("probe", now_s)
        now_s += following.not_taken("probe", "probe", now_s)


async def test_a_known_build_takes_over_when_nobody_of_the_current_one_objects(
    server: StubServer,
) -> None:
    old = Worker(server, "old")
    carries(server, newest("old", "new"))
    await old.sweeps()
    finds_nobody(old)
    await old.sweeps(UNOPPOSED_LISTS)
    assert written(server).is_current("new")
    assert written(server).challenger == "old"
    await old.sweeps(2)
    assert written(server).is_current("old")
    assert written(server).challenger is None
    assert old.following.takes("room", 0)


async def test_it_gives_busy_workers_the_time_to_object(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "UNOPPOSED_S", 1000.0)
    old = Worker(server, "old")
    carries(server, newest("old", "new"))
    await old.sweeps()
    finds_nobody(old)
    await old.sweeps(3 * UNOPPOSED_LISTS)
    assert written(server).is_current("new")


async def test_an_objection_counts_also_where_the_challenge_was_never_listed(
    server: StubServer,
) -> None:
    """The challenger knows what it wrote, so it does not challenge again."""
    old, new = Worker(server, "old"), Worker(server, "new")
    carries(server, newest("old", "new"))
    await old.sweeps()
    finds_nobody(old)
    await old.sweeps(1)
    await new.sweeps(1)
    before = written(server)
    assert before.challenger is None
    await old.sweeps(3 * UNOPPOSED_LISTS)
    assert written(server) == before


async def test_a_worker_that_drains_while_it_writes_does_not_write(server: StubServer) -> None:
    worker = Worker(server)
    worker.keeper.take_in(server.api, server.rooms, time.monotonic())
    worker.may_write = False
    assert worker.keeper._writing is not None
    await worker.keeper._writing
    assert server.rooms == []


async def test_but_not_when_somebody_does(server: StubServer) -> None:
    """The current build is full, say, or its workers are on another node."""
    old, new = Worker(server, "old"), Worker(server, "new")
    carries(server, newest("old", "new"))
    await old.sweeps()
    finds_nobody(old)
    await old.sweeps(2)
    assert written(server).challenger == "old"
    await new.sweeps(1)
    assert written(server).challenger is None
    before = written(server)
    await old.sweeps(3 * UNOPPOSED_LISTS)
    assert written(server) == before
    assert before.is_current("new")


async def test_a_current_build_that_is_back_objects_before_it_counts_itself(
    server: StubServer,
) -> None:
    carries(server, newest("old", "new").challenged("old"))
    new = Worker(server, "new")
    new.keeper.registered(time.monotonic())
    await new.sweeps(1)
    assert written(server).challenger is None


async def test_whoever_finds_nobody_goes_on_where_another_challenger_has_gone(
    server: StubServer,
) -> None:
    carries(server, newest("older", "old", "new").challenged("older"))
    old = Worker(server, "old")
    await old.sweeps(2 * UNOPPOSED_LISTS)
    assert written(server).is_current("new")
    finds_nobody(old)
    await old.sweeps()
    assert written(server).is_current("old")


async def test_a_challenger_that_has_found_the_current_build_again_does_not_take_over(
    server: StubServer,
) -> None:
    rollout = newest("ours", "new").challenged("ours")
    carries(server, rollout)
    await Worker(server).sweeps(2 * UNOPPOSED_LISTS)
    assert written(server) == rollout


@pytest.mark.parametrize("why", ["barred", "manual"])
async def test_nobody_takes_over_who_was_rolled_back_or_where_commands_decide(
    server: StubServer, why: str
) -> None:
    rollout = newest("old", "ours").rolled_back(NOW) if why == "barred" else newest("ours", "new")
    carries(server, rollout)
    worker = Worker(server, newest=why == "barred")
    await worker.sweeps()
    finds_nobody(worker)
    assert worker.following.current_is_gone(time.monotonic())
    await worker.sweeps(3 * UNOPPOSED_LISTS)
    assert written(server) == rollout


async def test_a_build_that_was_forgotten_after_many_others_is_not_a_new_one(
    server: StubServer,
) -> None:
    worker = Worker(server, "old")
    carries(server, newest("old", "new"))
    await worker.sweeps()
    rollout = newest("old", "new")
    forgotten = Rollout(9, current=rollout.current, known=rollout.known[1:])
    carries(server, forgotten)
    await worker.sweeps()
    assert written(server).is_current("new")
    assert written(server).knows("old")
    assert not worker.following.takes("room", time.monotonic())


@pytest.mark.parametrize(
    "garbage",
    [
        "garbage",
        64 * 1024 * "x",
        json.dumps({"format": 2, "revision": 9, "current": "something new"}),
    ],
    ids=["garbage", "64 KiB", "newer"],
)
async def test_what_cannot_be_read_is_warned_of_once_and_left_alone(
    server: StubServer, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(server, "old")
    carries(server, newest("old", "new"))
    before = await worker.sweeps()
    carries(server, garbage)
    assert await worker.sweeps(5) == before
    assert not worker.following.takes("room", 0)
    assert server.rooms[0].metadata == garbage
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert len(caplog.text) < 5000


async def test_a_new_build_leaves_it_alone_too(server: StubServer) -> None:
    carries(server, "garbage")
    await Worker(server).sweeps(5)
    assert server.rooms[0].metadata == "garbage"


async def test_a_room_whose_node_is_gone_is_made_anew(server: StubServer) -> None:
    worker = Worker(server)
    carries(server, newest("old"))
    api = server.api
    update, failures = api.room.update_room_metadata, 1

    async def unavailable_once(request: object) -> object:
        nonlocal failures
        failures -= 1
        if failures == 0:
            raise TwirpError(TwirpErrorCode.UNAVAILABLE, "no response from servers", status=503)
        return await update(request)  # type: ignore[arg-type]

    api.room.update_room_metadata = unavailable_once  # type: ignore[method-assign, assignment]
    worker.keeper.take_in(api, server.rooms, time.monotonic())
    assert worker.keeper._writing is not None
    await worker.keeper._writing
    assert written(server).is_current("ours")
    assert len(server.created) == 1


async def test_a_write_that_fails_is_told_and_tried_again_later(
    server: StubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(server)
    server.error = OSError("the network is down")
    await worker.sweeps(3)
    assert server.calls.total() == 1
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    server.error = None
    monkeypatch.setattr(worker.keeper, "_not_before_s", 0.0)
    await worker.sweeps()
    assert written(server).is_current("ours")


async def test_the_end_of_a_worker_ends_its_writing(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "SPREAD_S", 1000.0)
    worker = Worker(server)
    worker.keeper.take_in(server.api, server.rooms, time.monotonic())
    await worker.keeper.close()
    assert worker.keeper._writing is not None
    assert worker.keeper._writing.cancelled()
    await Worker(server).keeper.close()
