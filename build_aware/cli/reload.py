"""`dev` starts its worker again when a file changes.

This process watches, and runs the same command line with `--no-reload` as a child. A change stops
the worker as a stop signal does; in `dev` that ends its sessions within seconds. Rooms whose users
stay then wait for an agent, and the new worker adopts them, unless they ask for the old build.

Nothing of livekit-agents is imported: to watch needs none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import watchfiles

from build_aware.drain.exit_codes import ExitCode
from build_aware.drain.starting import STOP_SIGNALS

logger = logging.getLogger(__name__)

NO_RELOAD: Final = "--no-reload"
"""LiveKit's option of `dev`: run the worker in this process, and watch nothing."""

STOP_S: Final = 15.0
"""What a worker gets to stop before it is killed. LiveKit gives its shutdown callbacks 10 s."""


def command_line() -> list[str]:
    """The command line of this process, for a child that does not reload."""
    return [sys.executable, *sys.orig_argv[1:], NO_RELOAD]


def run(command: Sequence[str], folder: Path) -> int:
    """Run a worker until it ends by itself or a stop signal comes; start it again on changes.

    Args:
        command: the command line of the worker.
        folder: where Python files are watched, also those in folders below.

    Returns:
        The exit code of the worker that ran last.
    """
    return asyncio.run(_Reloader(command, folder).run())


def exit_code(returncode: int, *, stopped: bool) -> int:
    """What a worker's end means to whoever started this process.

    Args:
        returncode: as `subprocess` tells it: negative if a signal has killed the worker.
        stopped: whether a stop signal has come.
    """
    # It was killed before it could handle the signal: nothing had begun.
    if stopped and -returncode in STOP_SIGNALS:
        return ExitCode.DRAINED
    return returncode if returncode >= 0 else 128 - returncode


class _Reloader:
    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._worker: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        watching = loop.create_task(self._watch())
        try:
            return await self._run_workers()
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _run_workers(self) -> int:
        while True:
            self._changed.clear()
            code = await self._run_worker()
            if self._stopped.is_set():
                return code
            if self._changed.is_set():
                continue
            if code != ExitCode.CRASHED:
                return code
            # Often a slip of the pen that the next change mends.
            logger.error("the worker has crashed; it restarts when a file changes")
            await _first(self._changed.wait(), self._stopped.wait())
            if self._stopped.is_set():
                return code

    async def _run_worker(self) -> int:
        """Run one worker until it ends, by itself or because of a change."""
        worker = self._worker = await asyncio.create_subprocess_exec(*self._command)
        if self._stopped.is_set():
            self._send(signal.SIGTERM)  # The signal came before there was a worker.
        await _first(worker.wait(), self._changed.wait())
        if worker.returncode is None and not self._stopped.is_set():
            self._send(signal.SIGTERM)
            await _first(worker.wait(), asyncio.sleep(STOP_S), self._stopped.wait())
        if worker.returncode is None and not self._stopped.is_set():
            logger.warning("the worker did not stop in time and is killed; see what held it up")
            self._send(signal.SIGKILL)
        return exit_code(await worker.wait(), stopped=self._stopped.is_set())

    async def _watch(self) -> None:
        try:
            async for changes in watchfiles.awatch(
                self._folder, watch_filter=watchfiles.PythonFilter()
            ):
                logger.info(
                    "files have changed, restarting the worker",
                    extra={"files": sorted({path for _, path in changes})},
                )
                self._changed.set()
        except (OSError, RuntimeError) as error:
            logger.warning(
                "cannot watch files, so the worker will not restart when they change; raise the "
                "limit that the error names, or set WATCHFILES_FORCE_POLLING=1",
                extra={"folder": str(self._folder), "error": str(error)},
            )

    def _stop(self, number: int) -> None:
        # A terminal has told the worker already, which takes this for one press of the key.
        self._stopped.set()
        self._send(number)

    def _send(self, number: int) -> None:
        if self._worker is not None and self._worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._worker.send_signal(number)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of these is over, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
