"""The worker's connection to LiveKit: whether it stands, and an end to hopeless attempts.

livekit-agents reconnects without a pause, and for ever, to a server that closes the connection
instead of registering the worker, as one does that finds the deployment name not valid. And it
has no public way to tell that the connection is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from livekit.agents import AgentServer

MAX_REFUSALS: Final = 5
"""Refused registrations in a row after which the worker gives up."""

_FIRST_PAUSE_S: Final = 0.5
_UNAUTHORIZED: Final = (401, 403)


class Connection:
    """Stands between an `AgentServer` and its HTTP session.

    Args:
        on_refused: called once, with the reason, when LiveKit keeps refusing this worker.
    """

    def __init__(self, on_refused: Callable[[str], None]) -> None:
        self._on_refused = on_refused
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._registered = False
        self._refusals = 0
        self.was_up = False
        """Whether this worker has ever been registered."""

    @property
    def up(self) -> bool:
        """Whether LiveKit can reach this worker: connected and registered.

        A connection that is cut without a word counts as up until LiveKit's heartbeat misses
        its answer, within 45 seconds.
        """
        return self._registered and self._socket is not None and not self._socket.closed

    def attach(self, server: AgentServer) -> None:
        """Watch the connections of `server`; to be called on its event `worker_started`.

        Uses the private `AgentServer._http_session`; tests fail when that moves.
        """
        self._session = server._http_session
        server._http_session = self  # type: ignore[assignment]
        server.on("worker_registered", self._on_registered)

    async def ws_connect(self, *args: Any, **kwargs: Any) -> aiohttp.ClientWebSocketResponse:
        """Connect as `aiohttp.ClientSession.ws_connect` does, with a pause after a refusal."""
        assert self._session is not None, "attached by now"  # noqa: S101
        self._registered = False
        if self._refusals:
            if self._refusals == MAX_REFUSALS:
                self._on_refused("the connection was closed instead of registering this worker")
            if self._refusals >= MAX_REFUSALS:
                await asyncio.Event().wait()  # until the server is closed
            await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (self._refusals - 1))
        try:
            self._socket = await self._session.ws_connect(*args, **kwargs)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in _UNAUTHORIZED:
                self._on_refused(f"it answered {error.status} to this API key and secret")
                await asyncio.Event().wait()
            raise
        self._refusals += 1
        return self._socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def _on_registered(self, *_: object) -> None:
        self._registered = self.was_up = True
        self._refusals = 0
