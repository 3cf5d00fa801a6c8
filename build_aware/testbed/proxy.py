"""A TCP proxy on loopback: its connections can be watched, cut, and answered by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, Protocol

_CHUNK_BYTES: Final = 65536


class Observer(Protocol):
    """Sees what goes through one connection, in the chunks in which it comes."""

    def from_client(self, data: bytes) -> None:
        """The client has sent this."""

    def from_server(self, data: bytes) -> None:
        """The server has sent this."""

    def ended(self) -> None:
        """The connection is over."""


class Blind:
    """The observer that sees nothing."""

    def from_client(self, data: bytes) -> None:
        """See nothing."""

    def from_server(self, data: bytes) -> None:
        """See nothing."""

    def ended(self) -> None:
        """See nothing."""


class Proxy:
    """Forwards connections to a port of this machine.

    Args:
        to_port: where the connections go.
        observe: makes the observer of each new connection.

    Attributes:
        turned_away: how many connections were answered instead of forwarded.
    """

    def __init__(self, to_port: int, observe: Callable[[], Observer] = Blind) -> None:
        self._to_port = to_port
        self._observe = observe
        self.turned_away = 0
        self._listener: asyncio.Server | None = None
        self._answer: HTTPStatus | None = None
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def start(self) -> Proxy:
        """Listen on a free port."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        """Where to connect instead of to the server."""
        assert self._listener is not None, "started by now"  # noqa: S101
        return f"ws://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def cut_oldest(self) -> None:
        """Cut the connection that was made first, in both directions at once."""
        for writer in next(iter(self._open.values())):
            writer.transport.abort()

    def cut(self) -> None:
        """Cut all connections, in both directions at once."""
        for writers in self._open.values():
            for writer in writers:
                writer.transport.abort()

    @contextlib.contextmanager
    def answering(self, status: int) -> Iterator[None]:
        """Meanwhile answer new connections with this HTTP status, as a load balancer does."""
        self._answer = HTTPStatus(status)
        try:
            yield
        finally:
            self._answer = None

    async def stop(self) -> None:
        """Stop listening, and cut all connections."""
        if self._listener is not None:
            self._listener.close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served in tasks"  # noqa: S101
        ends = self._open[task] = [writer]
        if self._answer is not None:
            self.turned_away += 1
            try:
                await _answer(reader, writer, self._answer)
            finally:
                del self._open[task]
                writer.close()
            return
        observer = self._observe()
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._to_port)
            ends.append(server)
            pumps = [
                asyncio.create_task(_pump(reader, server, observer.from_client)),
                asyncio.create_task(_pump(answers, writer, observer.from_server)),
            ]
            try:
                # Whoever ends it ends it for both.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                observer.ended()
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client or the server is gone, or the proxy is stopped.
        finally:
            del self._open[task]
            for end in ends:
                end.close()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: HTTPStatus
) -> None:
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n"
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{head}\r\n".encode())
        await writer.drain()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[bytes], None]
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            see(data)
            writer.write(data)
            await writer.drain()
