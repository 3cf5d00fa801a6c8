"""The worker's connection to LiveKit: whether it stands, and an end to hopeless attempts.

livekit-agents reconnects without a pause, and for ever, to a server that closes the connection
instead of registering the worker, as one does that finds the deployment name not valid. And it
has no public way to tell that the connection is lost.

A server that answers 401 or 403 may be right, or a gateway in the middle of a deploy. So the
worker tries on for a while, and as long as it has sessions, which such an answer does not touch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from livekit.agents import AgentServer

from build_aware import livekit_private

MAX_REFUSALS: Final = 5
"""Refused registrations in a row after which the worker gives up."""

PATIENCE_S: Final = 30.0
"""How long a worker without sessions tries on after a 401 or 403, and how often one with sessions
does after that."""

_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 5.0
_UNAUTHORIZED: Final = (401, 403)

logger = logging.getLogger(__name__)


class Connection:
    """Stands between an `AgentServer` and its HTTP session.

    Args:
        on_refused: called once, with the reason, when LiveKit keeps refusing this worker.
        session_count: how many sessions run.
    """

    def __init__(self, on_refused: Callable[[str], None], session_count: Callable[[], int]) -> None:
        self._on_refused = on_refused
        self._session_count = session_count
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._registered = False
        self._refusals = 0
        self._unauthorized_since: float | None = None
        self._told: set[int] = set()
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
        """Watch the connections of `server`; to be called on its event `worker_started`."""

        def stand_between(session: aiohttp.ClientSession) -> Connection:
            self._session = session
            return self

        livekit_private.replace_http_session(server, stand_between)
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
        self._socket = socket = await self._let_in(*args, **kwargs)
        self._refusals += 1
        return socket

    async def _let_in(self, *args: Any, **kwargs: Any) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None, "attached by now"  # noqa: S101
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                socket: aiohttp.ClientWebSocketResponse = await self._session.ws_connect(
                    *args, **kwargs
                )
            except aiohttp.WSServerHandshakeError as error:
                self._tell(error)
                if error.status not in _UNAUTHORIZED:
                    raise
                # Not raised: LiveKit would soon give up, whatever sessions there are.
                status = error.status
            else:
                return socket
            if self._unauthorized_since is None:
                self._unauthorized_since = time.monotonic()
            left_s = self._unauthorized_since + PATIENCE_S - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
            elif self._session_count():
                await asyncio.sleep(PATIENCE_S)
            else:
                self._on_refused(f"the server answers {status} to this API key and secret")
                await asyncio.Event().wait()

    def _tell(self, error: aiohttp.WSServerHandshakeError) -> None:
        """Log an HTTP error, once until the worker is registered."""
        if error.status in self._told:
            return
        self._told.add(error.status)
        # The query may hold a token.
        found = {"status": error.status, "url": str(error.request_info.real_url.with_query(None))}
        if error.status in _UNAUTHORIZED:
            logger.warning(
                "LiveKit refuses this worker, which keeps trying; check the API key and secret, "
                "this machine's clock, and any proxy in front of the server",
                extra=found | {"patience_s": PATIENCE_S, "sessions": self._session_count()},
            )
        else:
            logger.warning(
                "LiveKit's URL answers with an HTTP error, and the worker keeps trying; "
                "check the URL's host and path, and any proxy in front of the server",
                extra=found,
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def _on_registered(self, *_: object) -> None:
        self._registered = self.was_up = True
        self._refusals = 0
        self._unauthorized_since = None
        self._told.clear()
