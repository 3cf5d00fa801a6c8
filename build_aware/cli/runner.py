"""Runs an agent server in this process until a stop signal, then lets it drain and close.

LiveKit's own command line does the same and is about to go; this stands on what stays: `run`,
`drain` and `aclose` of `AgentServer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from livekit.agents import AgentServer

from build_aware import livekit_private
from build_aware.drain.exit_codes import ExitCode
from build_aware.drain.signals import StopSignals
from build_aware.drain.wakeup import Preempted, Wakeup

logger = logging.getLogger(__name__)

DEV_MODE: Final = "LIVEKIT_DEV_MODE"
"""livekit-agents' variable for `utils.is_dev_mode`; job processes inherit it."""

TIDY_S: Final = 1.0
"""What each step of tidying up the event loop may take. All sessions have ended by then, and a
task or a thread that does not end must not keep the process."""


def run(server: AgentServer, *, dev: bool, signals: StopSignals) -> None:
    """Run a server until a stop signal comes or it ends by itself.

    Must be called on the main thread. Logging is set up by then; see `logs.set_up`.

    Args:
        server: the server.
        dev: whether it runs for development: LiveKit's defaults for that, and no drain.
        signals: the handlers of its stop signals, which this puts in place. The server tells
            them how far it is.

    Raises:
        SystemExit: with the exit code, if that is not 0.
    """
    if dev:
        os.environ[DEV_MODE] = "1"
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(_on_error)
    wakeup = Wakeup(loop)
    signals.stand_before(wakeup)
    end_monitor = livekit_private.monitor(loop)
    try:
        error = _serve(loop, server, wakeup, dev=dev)
    finally:
        end_monitor()
        _tidy_up(loop)
    if error is not None:
        raise SystemExit(ExitCode.CRASHED)


def _serve(
    loop: asyncio.AbstractEventLoop, server: AgentServer, wakeup: Wakeup, *, dev: bool
) -> Exception | None:
    """The life of the server; the error that ended it, if one did."""
    # It goes on in the drain: a stop signal ends the wait for it and not the task.
    serving = loop.create_task(server.run(devmode=dev), name="agent_server")
    with contextlib.suppress(Preempted):
        loop.run_until_complete(
            asyncio.wait({serving, wakeup.requested}, return_when=asyncio.FIRST_COMPLETED)
        )
    error = _error_of(serving)
    if error is not None:
        logger.error("the worker failed", exc_info=error)
    try:
        if not dev:
            _drain(loop, server)
        _complete(loop, server.aclose())
    except Exception:
        # What failed before it was started cannot drain or close, and says nothing new by that.
        if error is None:
            raise
    return error


def _drain(loop: asyncio.AbstractEventLoop, server: AgentServer) -> None:
    try:
        _complete(loop, server.drain())
    except TimeoutError:
        logger.warning("the drain timed out; remaining sessions are ended. Set a longer timeout")


def _error_of(serving: asyncio.Task[None]) -> Exception | None:
    if not serving.done() or serving.cancelled():
        return None
    error = serving.exception()
    return error if isinstance(error, Exception) else None


def _complete(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end.

    What was raised out of a blocked loop may be in a task that others wait for, and comes up again.
    """
    task = loop.create_task(work)
    while not task.done():
        with contextlib.suppress(Preempted):
            loop.run_until_complete(task)


def _tidy_up(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs, end asynchronous generators and threads, and close the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        _wait(loop, asyncio.gather(*tasks, return_exceptions=True))
    _wait(loop, loop.shutdown_asyncgens())
    _wait(loop, loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


def _wait(loop: asyncio.AbstractEventLoop, work: Awaitable[object]) -> None:
    task = asyncio.ensure_future(work, loop=loop)
    # The exit code is settled by now. And what takes too long is not cancelled: that might take as
    # long again.
    with contextlib.suppress(SystemExit):
        loop.run_until_complete(asyncio.wait({task}, timeout=TIDY_S))


def _on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # A task that was preempted has said all that there is to say.
    if not isinstance(context.get("exception"), Preempted):
        loop.default_exception_handler(context)
