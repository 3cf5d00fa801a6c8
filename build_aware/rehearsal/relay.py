"""A door of its own for each worker to livekit-server, at which one sees who goes through.

Nothing here is told by workers: a connection is theirs because it comes through their door, its
token names the room and the agent's identity, and its end is the operating system's word. Only
signalling goes through; audio, video and text go directly.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from build_aware.testbed.proxy import Proxy

_DATA_FRAMES: Final = (1, 2)
"""The WebSocket opcodes of text and binary messages."""

_JOINS: Final = ("/rtc", "/rtc/v1")
"""The paths at which participants join a room."""

_BEARER: Final = re.compile(rb"^authorization:\s*bearer\s+(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Passage:
    """An agent's connection to a room.

    Attributes:
        room: the room's name.
        identity: the agent's identity in it.
        worker: whose door it went through.
        from_s: when it began.
        to_s: when it ended; None while it lasts.
    """

    room: str
    identity: str
    worker: str
    from_s: float
    to_s: float | None = None


def relay(
    worker: str,
    server_port: int,
    *,
    clock: Callable[[], float],
    on_registered: Callable[[], None],
    passages: list[Passage],
) -> Proxy:
    """One worker's door.

    Args:
        worker: the worker's name.
        server_port: where livekit-server listens.
        clock: the time in seconds.
        on_registered: called when livekit-server confirms a registration of the worker.
        passages: where agents' connections are noted.
    """
    return Proxy(server_port, lambda: _Connection(worker, clock, on_registered, passages))


class _Connection:
    """What is seen of one connection: its request, and whether the server confirms."""

    def __init__(
        self,
        worker: str,
        clock: Callable[[], float],
        on_registered: Callable[[], None],
        passages: list[Passage],
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._on_registered = on_registered
        self._passages = passages
        self._path = ""
        self._passage: Passage | None = None
        self._answer: bytearray | None = bytearray()

    def from_client(self, data: bytes) -> None:
        # A connection may carry calls to the API first: they begin a chunk as well.
        if data.startswith(b"GET ") and self._passage is None:
            target = data[4 : data.find(b" ", 4)].decode("ascii", "replace")
            url = urlsplit(target)
            self._path = url.path
            bearer = _BEARER.search(data)
            query = parse_qs(url.query).get("access_token")
            token = bearer[1].decode("ascii", "replace") if bearer else query[0] if query else ""
            self._begin(token)

    def from_server(self, data: bytes) -> None:
        if self._answer is None or self._path.rstrip("/") != "/agent":
            return
        self._answer += data
        head, end, frames = self._answer.partition(b"\r\n\r\n")
        if not end or not frames:
            return
        # The first message to a worker is the answer to its registration.
        if b" 101 " in head.partition(b"\r\n")[0] and frames[0] & 0x0F in _DATA_FRAMES:
            self._on_registered()
        self._answer = None

    def ended(self) -> None:
        if self._passage is not None:
            self._passage.to_s = self._clock()

    def _begin(self, token: str) -> None:
        claims = _claims(token)
        room, identity = claims.get("video", {}).get("room"), claims.get("sub")
        if self._path in _JOINS and room and identity:
            self._passage = Passage(room, identity, self._worker, self._clock())
            self._passages.append(self._passage)


def _claims(token: str) -> dict[str, Any]:
    """What a token claims. The server checks its signature, and turns a false one away."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}
