"""`console --text`: talk to any agent in this terminal, without a room, a server or audio.

The agent runs as in LiveKit's own console: its entrypoint serves a job that nobody dispatched, in a
thread of this process. The `AgentSession` that it starts asks LiveKit's `AgentsConsole` for input
and output, and gets the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import typer
from livekit.agents import AgentServer, AgentSession, JobContext, JobExecutorType, JobProcess
from livekit.agents.cli import AgentsConsole

from build_aware import livekit_private
from build_aware.cli.conversation import Conversation, in_one_line
from build_aware.cli.runner import DEV_MODE
from build_aware.cli.screen import Screen
from build_aware.drain.exit_codes import ExitCode

logger = logging.getLogger(__name__)

LEAVE: Final = "Press Ctrl+C or Ctrl+D to leave."

CLOSE_S: Final = 2.0
"""The longest that leaving waits for the job to end."""

STARTS_S: Final = 20.0
"""How long an entrypoint may run before it starts its session. Models that load take seconds."""

FOLLOWS_S: Final = 1.0
"""How long after its entrypoint has returned a session may start."""

INTERRUPT_S: Final = 0.2
"""From one attempt to interrupt the wait for the person to the next."""

NO_SESSION: Final = (
    "this agent did not start an AgentSession, so there is nobody to talk to; "
    "run it with `dev`, and join a room"
)

SEE_WHERE: Final = "--log-level error shows where"

Entrypoint = Callable[[JobContext], Awaitable[None]]


def run(server: AgentServer, *, header: Sequence[str] = (), log_level: str | None = None) -> int:
    """Talk until the input ends, Ctrl+C is pressed, or the agent ends its session.

    This thread reads the input, and Ctrl+C interrupts it. The server and its job have threads of
    their own, which hold up nobody's exit: leave with `leaving.leave`.

    Args:
        server: the server, which has not started. Its plugins must be imported by now: LiveKit
            registers them on the main thread only.
        header: lines that say who is there; two at most.
        log_level: the level from which on logs go to stderr; None: nothing is logged, the
            terminal is for the talk.

    Returns:
        The exit code.
    """
    log_to_stderr(log_level)
    screen = Screen()
    typer.echo("\n".join([*header, LEAVE, ""]))
    job = _Job(server, screen)
    try:
        job.start()
        if (conversation := job.conversation.result()) is not None:
            conversation.listen()
            while not job.over:
                if said := screen.read():
                    conversation.say(said)
    except (EOFError, KeyboardInterrupt):
        screen.end()
    # Another Ctrl+C leaves at once.
    with contextlib.suppress(KeyboardInterrupt):
        job.close()
    return job.exit_code


def log_to_stderr(level: str | None) -> None:
    """Log from this level on; None: nothing at all, whatever handlers the agent's code has set."""
    if level is None:
        logging.disable()
    else:
        logging.basicConfig(
            level=level.upper(), format="%(levelname)s %(name)s: %(message)s", force=True
        )


class _Job:
    """The one job, and the server that runs it on an event loop of its own.

    Attributes:
        conversation: done when the agent's session starts; None if it will not.
        over: whether the job has ended by itself.
        exit_code: what the end means.
    """

    def __init__(self, server: AgentServer, screen: Screen) -> None:
        self.conversation: Future[Conversation | None] = Future()
        self.over = False
        self.exit_code: int = ExitCode.DRAINED
        self._server = server
        self._screen = screen
        self._loop = asyncio.new_event_loop()
        self._entrypoint: asyncio.Future[None] | None = None
        self._returned = False
        self._closing = False

    def start(self) -> None:
        """Start the server, and the job on it."""
        os.environ[DEV_MODE] = "1"
        server = self._server
        server.update_options(job_executor_type=JobExecutorType.THREAD, num_idle_processes=0)
        server.setup_fnc = self._around_setup(server.setup_fnc)
        livekit_private.wrap_entrypoint(server, self._around_entrypoint)
        livekit_private.put_in_place(_Console(self._on_session))
        server.once("worker_started", self._launch)
        threading.excepthook = _log_thread
        threading.Thread(target=self._run, name="agent_server", daemon=True).start()

    def close(self) -> None:
        """End the job and the server, if they mind."""
        self._closing = True
        if (running := self._entrypoint) is not None:
            # One that never returns; LiveKit would wait 15 s for it, before callbacks run.
            running.get_loop().call_soon_threadsafe(running.cancel)
        if self._loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self._server.aclose(), self._loop)
            try:
                closing.result(CLOSE_S)
            except Exception as error:
                logger.debug("the server did not close", exc_info=error)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._server.run(devmode=True, unregistered=True))
        except SystemExit as end:
            # It has said why.
            self._end(None, end.code if isinstance(end.code, int) else ExitCode.CRASHED)
        except Exception as error:
            self._end(in_one_line(error), ExitCode.CONFIGURATION)
        else:
            self._end(None, ExitCode.DRAINED)

    def _launch(self) -> None:
        job = self._server.simulate_job("console", agent_identity="console", fake_job=True)
        self._launching = asyncio.ensure_future(job)
        self._launching.add_done_callback(self._on_launched)

    def _on_launched(self, launching: asyncio.Future[None]) -> None:
        if not launching.cancelled() and (error := launching.exception()) is not None:
            self._fail(error)

    def _around_setup(
        self, setup: Callable[[JobProcess], Any] | None
    ) -> Callable[[JobProcess], Any]:
        def run_setup(process: JobProcess) -> None:
            try:
                if setup is not None:
                    setup(process)
            except Exception as error:
                self._fail(error)
                raise

        return run_setup

    def _around_entrypoint(self, entrypoint: Entrypoint) -> Entrypoint:
        async def run_entrypoint(ctx: JobContext) -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(STARTS_S, self._give_up)
            self._entrypoint = asyncio.ensure_future(entrypoint(ctx))
            try:
                await self._entrypoint
            except Exception as error:
                self._fail(error)
                raise
            finally:
                self._entrypoint = None
            self._returned = True
            loop.call_later(FOLLOWS_S, self._give_up)
            if self.conversation.done() and (conversation := self.conversation.result()):
                conversation.entrypoint_returned()

        return run_entrypoint

    def _on_session(self, loop: asyncio.AbstractEventLoop, session: AgentSession[Any]) -> None:
        conversation = Conversation(loop, session, self._screen, self._on_closed)
        if self._returned:
            conversation.entrypoint_returned()
        if not self.conversation.done():
            self.conversation.set_result(conversation)

    def _on_closed(self, error: BaseException | None) -> None:
        if error is None:
            self._end(None, ExitCode.DRAINED)
        else:
            self._end(in_one_line(error), ExitCode.CRASHED)

    def _give_up(self) -> None:
        if not self.conversation.done():
            self._end(NO_SESSION, ExitCode.CONFIGURATION)

    def _fail(self, error: BaseException) -> None:
        """The team's code has raised."""
        self._end(f"{type(error).__name__}: {in_one_line(error)}; {SEE_WHERE}", ExitCode.CRASHED)

    def _end(self, error: str | None, code: int) -> None:
        """The job has come to an end that the person has not asked for."""
        if self._closing or self.over:
            return
        self.over = True
        self.exit_code = code
        if error is not None:
            self._screen.show_error(error)
        if self.conversation.done():
            threading.Thread(target=self._interrupt, name="interrupt", daemon=True).start()
        else:
            self.conversation.set_result(None)

    def _interrupt(self) -> None:
        """End the wait for the person, who need not write any more.

        Again and again: a signal that comes in the moment before the wait begins is not heard.
        """
        main = threading.main_thread().ident
        while main is not None:
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(INTERRUPT_S)
            if not self._screen.reads:
                return


class _Console(AgentsConsole):
    """Stands for LiveKit's own console; gives each session that asks for one to `on_session`.

    LiveKit lets one session have it; others get a room, of which there is none here.
    """

    def __init__(
        self, on_session: Callable[[asyncio.AbstractEventLoop, AgentSession[Any]], None]
    ) -> None:
        super().__init__()
        self.enabled = True
        self._given = False
        self._on_session = on_session

    @property
    def io_acquired(self) -> bool:
        """Whether a session has it."""
        return self._given

    def acquire_io(self, *, loop: asyncio.AbstractEventLoop, session: AgentSession[Any]) -> None:
        """Give it to a session that starts."""
        self._given = True
        self._on_session(loop, session)


def _log_thread(failed: threading.ExceptHookArgs) -> None:
    """Keep tracebacks of threads, such as the job's, out of the talk."""
    logger.error("a thread has failed", exc_info=failed.exc_value)
