"""What is seen at a worker's door, and how it is put together with what users saw."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit import api

from build_aware.rehearsal.relay import Passage, relay
from build_aware.rehearsal.stage import visit
from build_aware.testbed.user import Heard, Sighting
from build_aware.testbed.waiting import until

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
MESSAGE = b"\x82\x02hi"
PING = b"\x89\x00"

TOKEN = (
    api.AccessToken("key", "secret" * 8)
    .with_identity("agent-1")
    .with_grants(api.VideoGrants(room_join=True, room="session-3"))
    .to_jwt()
)


class Door:
    """A relay to a server that says what the test wants."""

    def __init__(self) -> None:
        self.registered = 0
        self.passages: list[Passage] = []
        self.url = ""

    def on_registered(self) -> None:
        self.registered += 1

    @asynccontextmanager
    async def goes(self, request: bytes, *answers: bytes) -> AsyncIterator[asyncio.StreamWriter]:
        """Send a request through the door, and wait for the answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.split(":")[-1]))
        writer.write(request)
        await reader.readexactly(len(b"".join(answers)))
        try:
            yield writer
        finally:
            writer.close()


@asynccontextmanager
async def a_door(*answers: bytes) -> AsyncIterator[Door]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for answer in answers:
            writer.write(answer)
            await writer.drain()
        await reader.read()
        writer.close()

    door = Door()
    ticks = itertools.count(1)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = relay(
        "build-1.1",
        server.sockets[0].getsockname()[1],
        clock=lambda: float(next(ticks)),
        on_registered=door.on_registered,
        passages=door.passages,
    )
    await proxy.start()
    door.url = proxy.url
    try:
        yield door
    finally:
        await proxy.stop()
        server.close()


async def test_a_worker_is_ready_when_the_server_has_answered_its_registration() -> None:
    request = b"GET /agent HTTP/1.1\r\n\r\n"
    async with a_door(SWITCHED, MESSAGE) as door, door.goes(request, SWITCHED, MESSAGE):
        assert door.registered == 1
        assert door.passages == []


@pytest.mark.parametrize(
    "answers",
    [(SWITCHED,), (SWITCHED, PING), (b"HTTP/1.1 401 Unauthorized\r\n\r\n", MESSAGE)],
    ids=["connected", "pinged", "refused"],
)
async def test_a_worker_is_not_ready_before_that(answers: tuple[bytes, ...]) -> None:
    async with a_door(*answers) as door, door.goes(b"GET /agent HTTP/1.1\r\n\r\n", *answers):
        assert door.registered == 0


@pytest.mark.parametrize(
    "request_line",
    [
        f"GET /rtc?access_token={TOKEN}&v=1 HTTP/1.1\r\n\r\n",
        f"GET /rtc/v1?x=1 HTTP/1.1\r\nHost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
    ],
    ids=["in the query", "in a header"],
)
async def test_an_agents_way_into_a_room_is_noted_until_it_ends(request_line: str) -> None:
    async with a_door(SWITCHED, MESSAGE) as door:
        async with door.goes(request_line.encode(), SWITCHED, MESSAGE):
            (passage,) = door.passages
            assert (passage.room, passage.identity) == ("session-3", "agent-1")
            assert (passage.worker, passage.to_s) == ("build-1.1", None)
            assert door.registered == 0
        await until(lambda: passage.to_s is not None, "the end of the connection")
        assert passage.to_s is not None
        assert passage.to_s > passage.from_s


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /rtc?access_token=nonsense HTTP/1.1\r\n\r\n",
        "GET /rtc HTTP/1.1\r\n\r\n",
        f"GET /rtc/validate?access_token={TOKEN} HTTP/1.1\r\n\r\n",
        f"POST /twirp/x HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
    ],
    ids=["nonsense", "no token", "validation", "a call"],
)
async def test_other_requests_are_no_way_into_a_room(request_line: str) -> None:
    request = request_line.encode()
    async with a_door(SWITCHED, MESSAGE) as door, door.goes(request, SWITCHED, MESSAGE):
        assert door.passages == []


# Putting together


def passage(from_s: float, to_s: float | None) -> Passage:
    return Passage("session-3", "agent-1", "build-1.1", from_s, to_s)


def test_an_agent_came_when_it_connected_not_when_the_user_was_told() -> None:
    seen = visit("agent-1", Sighting(8.0, heard=[Heard(9, "I am build-1.")]), [passage(5.0, None)])
    assert (seen.from_s, seen.to_s, seen.worker) == (5.0, None, "build-1.1")
    assert seen.builds == ("build-1",)


def test_a_killed_agent_left_when_its_connection_ended() -> None:
    assert visit("agent-1", Sighting(5.1), [passage(5.0, 7.0)]).to_s == 7.0
    assert visit("agent-1", Sighting(5.1, to_s=30), [passage(5.0, 7.0)]).to_s == 7.0


def test_an_agent_that_connects_again_has_not_left() -> None:
    assert visit("agent-1", Sighting(5.1), [passage(5.0, 7.0), passage(7.5, None)]).to_s is None


def test_an_agent_that_the_user_never_saw_was_there_all_the_same() -> None:
    seen = visit("agent-1", None, [passage(5.0, 5.2)])
    assert (seen.from_s, seen.to_s, seen.heard, seen.published) == (5.0, 5.2, (), False)


def test_an_agent_from_elsewhere_has_no_worker() -> None:
    seen = visit("agent-1", Sighting(5.0, to_s=6.0), [])
    assert (seen.worker, seen.from_s, seen.to_s) == (None, 5.0, 6.0)
