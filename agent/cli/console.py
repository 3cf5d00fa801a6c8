"""`console --text`: talk to the assistant in this terminal, without a room, a server or audio."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final

import typer
from livekit.agents import AgentSession, APIConnectOptions, APIStatusError, ErrorEvent
from livekit.agents.voice.agent_session import SessionConnectOptions
from livekit.agents.voice.io import TextOutput

from agent.assistant import Assistant
from build_aware.identity.build import Build

AGENT: Final = "agent: "
USER: Final = "you: "
ERROR: Final = "error: "

CLOSE_S: Final = 2.0
"""The longest that leaving waits for the session to close."""


def run(build: Build, models: dict[str, Any]) -> None:
    """Talk until the input ends or Ctrl+C is pressed.

    This thread reads the input, and Ctrl+C interrupts it. The session has an event loop in a
    thread of its own, which holds up nobody's exit.

    Args:
        build: the build that the assistant knows.
        models: keyword arguments for `AgentSession`, from `models.create_for_text`.
    """
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with contextlib.suppress(ImportError):
        # The import alone gives `input` line editing and a history.
        import readline  # noqa: F401, PLC0415
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def there(work: Coroutine[Any, Any, None], timeout_s: float | None = None) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)

    talk = _Talk(build, models)
    try:
        there(talk.turn(None))
        while True:
            if said := _read_line():
                there(talk.turn(said))
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            typer.echo()
    with contextlib.suppress(TimeoutError):
        there(talk.end(), CLOSE_S)


def log_to_stderr(level: str | None) -> None:
    """Log from this level on; None: nothing, the terminal is for the talk."""
    if level is None:
        logging.getLogger().addHandler(logging.NullHandler())
    else:
        logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s")


def _read_line() -> str:
    if sys.stdin.isatty():
        return input(USER).strip()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    # What comes out of a pipe is on no terminal yet.
    typer.echo(f"{USER}{line.strip()}")
    return line.strip()


class _Talk:
    """A session without a room; after an error of the models a new one takes it up."""

    def __init__(self, build: Build, models: dict[str, Any]) -> None:
        self._build = build
        self._models = models
        self._screen = _Screen()
        self._assistant = Assistant(build)
        self._session: AgentSession[None] | None = None
        self._error: BaseException | None = None

    async def turn(self, said: str | None) -> None:
        """Let the assistant answer; None: let it speak first."""
        if self._error is not None:
            await self.end()
        self._error = None
        try:
            session = self._session or await self._start()
            if said is None:
                speech = self._assistant.greet()
            else:
                speech = session.generate_reply(user_input=said)
            await speech
            self._error = self._error or speech.exception()
        except Exception as error:
            self._error = self._error or error
        self._screen.flush()
        if self._error is not None:
            typer.echo(f"{ERROR}{_in_one_line(self._error)}", err=True)

    async def end(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            # One that has lost its model raises that error again.
            with contextlib.suppress(Exception):
                await session.aclose()

    async def _start(self) -> AgentSession[None]:
        # No retries: the person at the keyboard sees the error, and asks again.
        options = SessionConnectOptions(llm_conn_options=APIConnectOptions(max_retry=0))
        self._session = AgentSession(**self._models, conn_options=options)
        self._session.on("error", self._on_error)
        self._session.output.transcription = self._screen
        so_far = self._assistant.chat_ctx.copy(exclude_instructions=True)
        self._assistant = Assistant(self._build)
        await self._assistant.update_chat_ctx(so_far)
        await self._session.start(self._assistant)
        return self._session

    def _on_error(self, event: ErrorEvent) -> None:
        if not event.error.recoverable:
            self._error = event.error.error


class _Screen(TextOutput):
    """Shows what the assistant says while it says it."""

    def __init__(self) -> None:
        super().__init__(label="terminal", next_in_chain=None)
        self._in_line = False

    async def capture_text(self, text: str) -> None:
        """Show a piece of a speech."""
        if not self._in_line and (text := text.lstrip()):
            self._in_line = True
            text = f"{AGENT}{text}"
        typer.echo(text, nl=False)

    def flush(self) -> None:
        """End the line of a speech."""
        if self._in_line:
            self._in_line = False
            typer.echo()


def _in_one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, APIStatusError):
        # The provider's own words are in the body; the message quotes all of it.
        told = error.body.get("message") if isinstance(error.body, dict) else None
        text = f"{told or error.message} (HTTP {error.status_code})"
    return " ".join(text.split()) or type(error).__name__
