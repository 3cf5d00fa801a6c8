"""One `AgentSession` that has a screen for its room: what it says, is asked, and suffers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final

from livekit.agents import AgentSession, APIStatusError, CloseEvent, ErrorEvent

from build_aware.cli.screen import Screen

SETTLED_S: Final = 0.2
"""How long an agent is silent before it is taken to be waiting for the person."""

STARTED_S: Final = 1.0
"""The same while the entrypoint still runs: it may be about to greet."""

_UNHEARD: Final = ("stt_error", "tts_error")
"""Errors of models that a conversation in writing has no use for."""


class Conversation:
    """Drives one session, which runs on the event loop of its job, from another thread.

    Args:
        loop: that event loop.
        session: the session, which is about to start.
        screen: where it is held.
        on_close: called on the event loop when the session has closed; its argument is the error
            that closed it, if one did.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: AgentSession[Any],
        screen: Screen,
        on_close: Callable[[BaseException | None], None],
    ) -> None:
        self._loop = loop
        # Tools ask it for their job.
        self._context = contextvars.copy_context()
        self._session = session
        self._screen = screen
        self._on_close = on_close
        self._error: BaseException | None = None
        self._closed = False
        self._waits = True
        self._started = asyncio.Event()
        self._stirred = asyncio.Event()
        self._entrypoint_returned = False
        session.input.audio = None
        session.output.audio = None
        session.output.transcription = screen
        # The person sees each error and asks again; a session would retry, and close after a few.
        options = session.conn_options
        options.llm_conn_options = dataclasses.replace(options.llm_conn_options, max_retry=0)
        options.max_unrecoverable_errors = sys.maxsize
        session.on("agent_state_changed", self._on_state)
        session.on("speech_created", self._stir)
        session.on("error", self._on_error)
        session.on("close", self._on_closed)

    def listen(self) -> None:
        """Wait until the agent has said what it says by itself, such as a greeting."""
        self._run(self._settle())

    def say(self, said: str) -> None:
        """Let the agent answer, and wait for the end of that."""
        self._run(self._answer(said))

    def entrypoint_returned(self) -> None:
        """The agent's entrypoint has come to its end; to be called on its event loop."""
        self._entrypoint_returned = True
        self._stirred.set()

    def _run(self, turn: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = Future()

        async def take() -> None:
            self._waits = True
            try:
                await turn
            finally:
                self._waits = False
                self._screen.flush()
                self._show(self._error)
                self._error = None
                done.set_result(None)

        def start() -> None:
            self._task = asyncio.ensure_future(take())

        try:
            self._loop.call_soon_threadsafe(start, context=self._context)
        except RuntimeError:
            turn.close()  # The loop is closed: the job has just ended.
        else:
            done.result()

    async def _settle(self) -> None:
        await self._started.wait()
        while not self._closed:
            with contextlib.suppress(Exception):  # It is closing, or changes to another agent.
                await self._session.wait_for_idle()
            self._stirred.clear()
            quiet_s = SETTLED_S if self._entrypoint_returned else STARTED_S
            try:
                await asyncio.wait_for(self._stirred.wait(), quiet_s)
            except TimeoutError:
                return

    async def _answer(self, said: str) -> None:
        try:
            await self._session.run(user_input=said)
        except Exception as error:
            # A session that closes in a turn says so by an error, too.
            if not self._closed:
                self._error = self._error or error

    def _on_state(self, _: object) -> None:
        self._started.set()

    def _stir(self, _: object) -> None:
        self._stirred.set()

    def _on_error(self, event: ErrorEvent) -> None:
        if event.error.recoverable or event.error.type in _UNHEARD:
            return
        if self._waits:
            self._error = event.error.error
        else:
            self._show(event.error.error)

    def _on_closed(self, event: CloseEvent) -> None:
        self._closed = True
        self._started.set()
        self._stirred.set()
        self._on_close(event.error.error if event.error is not None else None)

    def _show(self, error: BaseException | None) -> None:
        if error is not None:
            self._screen.show_error(in_one_line(error))


def in_one_line(error: BaseException) -> str:
    """What an error says, without its traceback."""
    text = str(error)
    if isinstance(error, APIStatusError):
        # The provider's own words are in the body; the message quotes all of it.
        told = error.body.get("message") if isinstance(error.body, dict) else None
        text = f"{told or error.message} (HTTP {error.status_code})"
    return " ".join(text.split()) or type(error).__name__
