"""One user of the plan: what it does, each in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import aiohttp
from livekit import api, rtc

from bench.soak import plan
from bench.soak.guest import GIVE_UP_S, Guest
from bench.soak.plan import STEADY_BUILD, WAIT_S, Way
from bench.soak.seen import Stay, UserSeen
from bench.soak.troubles import room_name
from build_aware.rehearsal.relay import Passage
from build_aware.testbed import StartError
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.proxy import Proxy

T = TypeVar("T")

_RETRY_S: Final = 0.5
_CLIENT_GIVES_UP_S: Final = 10.0


class Visitor:
    """One user of the plan, from the backend's request for the room to the last goodbye.

    Args:
        user: the plan.
        server: where it happens.
        target: the build that the backend targets now.
        clock: the time in seconds.
        passages: the connections of agents.
        here: where the guest of each room is noted while it is there.
    """

    def __init__(
        self,
        user: plan.User,
        server: LiveKitServer,
        *,
        target: str,
        clock: Callable[[], float],
        passages: Sequence[Passage],
        here: dict[str, Guest],
    ) -> None:
        self._user = user
        self._server = server
        self._clock = clock
        self._passages = passages
        self._here = here
        self._room = room_name(user.number)
        self._target = {
            "nothing": None,
            "steady": STEADY_BUILD,
        }.get(user.asks, target)
        self._stays: list[Stay] = []

    async def come(self) -> UserSeen:
        """Do all of it, and tell what was seen."""
        asked_s = self._clock()
        await self._made()
        made_s = self._clock()
        await asyncio.sleep(self._user.late_s)
        await WAYS[self._user.way](self)
        return UserSeen(
            number=self._user.number,
            way=self._user.way,
            target=self._target,
            wait_s=WAIT_S if self._user.asks == "fallback" else None,
            asked_s=asked_s,
            made_s=made_s,
            stays=tuple(self._stays),
        )

    async def _made(self) -> None:
        """Create the room, as soon as there is a server."""
        target = (
            {"id": self._target, "fallback": "any", "wait": WAIT_S}
            if self._user.asks == "fallback"
            else self._target
        )
        await _insist(
            lambda: self._server.create_room(self._room, target),
            (aiohttp.ClientError, api.TwirpError, TimeoutError),
            f"{self._room}: {json.dumps(target)} could not be created",
        )

    async def _join(self, url: str = "") -> Guest:
        """A guest that is in the room, as soon as there is a server."""

        async def joined() -> Guest:
            guest = Guest(self._server, self._room, url=url, clock=self._clock)
            await guest.join()
            guest.from_s = self._clock()
            return guest

        guest = await _insist(joined, (rtc.ConnectError,), f"{self._room}: a user could not join")
        self._here[self._room] = guest
        await guest.be_noticed()
        return guest

    async def _talk(self, guest: Guest, end_s: float, url: str = "") -> Guest:
        """Talk until `end_s`; one whose client has given up joins again, as its app does."""
        while True:
            await guest.talk(end_s)
            if not guest.gone.is_set() or self._clock() >= end_s:
                return guest
            await self._leave(guest)
            guest = await self._join(url)

    async def _leave(self, guest: Guest) -> None:
        if guest.to_s is None:
            guest.to_s = self._clock()
        if self._here.get(self._room) is guest:
            del self._here[self._room]
        await guest.leave()
        # Taken now: an agent that leaves because its user did left later.
        self._stays.append(guest.seen(self._passages))

    async def _stay(self) -> None:
        guest = await self._join()
        await self._leave(await self._talk(guest, self._clock() + self._user.length_s))

    async def _reload(self) -> None:
        guest = await self._join()
        await self._leave(await self._talk(guest, self._half_s))
        await self._stay_half()

    async def _take_over(self) -> None:
        """Join again in another tab: the server throws out the first one."""
        first = await self._talk(await self._join(), self._half_s)
        second = await self._join()
        await self._leave(first)
        await self._leave(await self._talk(second, self._half_s))

    async def _blip(self) -> None:
        async with _proxied(self._server) as proxy:
            guest = await self._join(proxy.url)
            cut = asyncio.get_running_loop().call_later(self._user.length_s / 2, proxy.cut)
            end_s = self._clock() + self._user.length_s
            try:
                await self._leave(await self._talk(guest, end_s, proxy.url))
            finally:
                cut.cancel()

    async def _vanish(self) -> None:
        """Be there, and then not, without a goodbye."""
        async with _proxied(self._server) as proxy:
            guest = await self._join(proxy.url)
            guest = await self._talk(guest, self._clock() + self._user.length_s, proxy.url)
            guest.to_s = guest.to_s or self._clock()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(guest.gone.wait(), _CLIENT_GIVES_UP_S)
        await self._leave(guest)

    async def _stay_half(self) -> None:
        await self._leave(await self._talk(await self._join(), self._half_s))

    @property
    def _half_s(self) -> float:
        return self._clock() + self._user.length_s / 2


WAYS: Final[Mapping[Way, Callable[[Visitor], Awaitable[None]]]] = {
    "stay": Visitor._stay,
    "late": Visitor._stay,
    "reload": Visitor._reload,
    "takeover": Visitor._take_over,
    "blip": Visitor._blip,
    "vanish": Visitor._vanish,
}


@contextlib.asynccontextmanager
async def _proxied(server: LiveKitServer) -> AsyncIterator[Proxy]:
    proxy = await Proxy(server.port).start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def _insist(
    attempt: Callable[[], Awaitable[T]], errors: tuple[type[BaseException], ...], problem: str
) -> T:
    """Try again until it works: the server may be down.

    Raises:
        StartError: it did not work in time.
    """
    give_up = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return await attempt()
        except errors as error:
            if time.monotonic() > give_up:
                raise StartError(f"{problem}: {error}") from error
        await asyncio.sleep(_RETRY_S)
