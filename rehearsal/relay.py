"""A door of its own for each worker to livekit-server, at which one sees who goes through.

Nothing here is told by workers: a connection is theirs because it comes through their door, its
token names the room and the agent's identity, and its end is the operating system's word. Only
signalling goes through; audio, video and text go directly.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_CHUNK_BYTES: Final = 65536
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


class Relay:
    """One worker's door.

    Args:
        worker: the worker's name.
        server_port: where livekit-server listens.
        clock: the time in seconds.
        on_registered: called when livekit-server confirms a registration of the worker.
        passages: where agents' connections are noted.
    """

    def __init__(
        self,
        worker: str,
        server_port: int,
        *,
        clock: Callable[[], float],
        on_registered: Callable[[], None],
        passages: list[Passage],
    ) -> None:
        self._worker = worker
        self._server_port = server_port
        self._clock = clock
        self._on_registered = on_registered
        self._passages = passages
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen, and return the URL for the worker."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}"

    async def close(self) -> None:
        """Close the door, and all connections through it."""
        if self._listener is not None:
            self._listener.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 streams are served in tasks
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        server: asyncio.StreamWriter | None = None
        connection = _Connection(self)
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._server_port)
            pumps = [
                asyncio.create_task(_pump(reader, server, connection.from_worker)),
                asyncio.create_task(_pump(answers, writer, connection.from_server)),
            ]
            try:
                # Whoever ends it ends it for both.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                connection.ended()
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # The worker or the server is gone, or the rehearsal ends.
        finally:
            for end in (writer, server):
                if end is not None:
                    end.close()

    def _begin(self, path: str, token: str) -> Passage | None:
        claims = _claims(token)
        room, identity = claims.get("video", {}).get("room"), claims.get("sub")
        if path not in _JOINS or not room or not identity:
            return None
        passage = Passage(room, identity, self._worker, self._clock())
        self._passages.append(passage)
        return passage


class _Connection:
    """What is seen of one connection: its request, and whether the server confirms."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._path = ""
        self._passage: Passage | None = None
        self._answer: bytearray | None = bytearray()

    def from_worker(self, data: bytes) -> None:
        # A connection may carry calls to the API first: they begin a chunk as well.
        if data.startswith(b"GET ") and self._passage is None:
            target = data[4 : data.find(b" ", 4)].decode("ascii", "replace")
            url = urlsplit(target)
            self._path = url.path
            bearer = _BEARER.search(data)
            query = parse_qs(url.query).get("access_token")
            token = bearer[1].decode("ascii", "replace") if bearer else query[0] if query else ""
            self._passage = self._relay._begin(url.path, token)

    def from_server(self, data: bytes) -> None:
        if self._answer is None or self._path.rstrip("/") != "/agent":
            return
        self._answer += data
        head, end, frames = self._answer.partition(b"\r\n\r\n")
        if not end or not frames:
            return
        # The first message to a worker is the answer to its registration.
        if b" 101 " in head.partition(b"\r\n")[0] and frames[0] & 0x0F in _DATA_FRAMES:
            self._relay._on_registered()
        self._answer = None

    def ended(self) -> None:
        if self._passage is not None:
            self._passage.to_s = self._relay._clock()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[bytes], None]
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            see(data)
            writer.write(data)
            await writer.drain()


def _claims(token: str) -> dict[str, Any]:
    """What a token claims. The server checks its signature, and turns a false one away."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}
