"""One worker while it runs: the composition root, the one place that knows all the others."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from livekit.agents import AgentServer
from livekit.agents.worker import ServerType
from livekit.protocol.agent import Job
from livekit.protocol.models import ServerInfo

from build_aware import livekit_private
from build_aware.adoption.adoption import Adoption
from build_aware.adoption.launch import busy
from build_aware.dispatch import capacity
from build_aware.dispatch.acceptance import Acceptance, RequestHandler
from build_aware.dispatch.answers import Answers
from build_aware.dispatch.following import Following
from build_aware.dispatch.rooms import Rooms
from build_aware.drain import signals
from build_aware.drain.budget import Budget, Drain
from build_aware.drain.exit_codes import ExitCode
from build_aware.identity.build import Build
from build_aware.job.shared import Shared
from build_aware.server import adopting, introduction, watch_forkserver
from build_aware.server.connection import Connection
from build_aware.server.shutdown import Shutdown
from build_aware.server.status import State, StatusServer
from build_aware.settings import Settings

logger = logging.getLogger(__name__)

Run = Callable[[], Awaitable[None]]

_NO_PORT: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
"""What an operating system says of a port that cannot be listened on."""


class Worker:
    """Runs an agent server as the worker of one build.

    LiveKit's command line and ours run it in three steps: `run`, which ends with the stop signal,
    `drain` (not in `dev`), and `close`. Each is LiveKit's own, with what it lacks around it.

    Args:
        server: the server, which has not started.
        settings: what the worker is set to.
        build: the build that it is.
        shared: what its jobs are told, and tell.
        stop_signals: the handlers of its stop signals.
        team: the team's own `on_request`, if it has one.
        server_type: what its jobs are for; only rooms are adopted.
        dev: whether it runs for development.
    """

    def __init__(
        self,
        server: AgentServer,
        settings: Settings,
        build: Build,
        *,
        shared: Shared,
        stop_signals: signals.StopSignals,
        team: RequestHandler | None,
        server_type: ServerType,
        dev: bool,
    ) -> None:
        self._server = server
        self._settings = settings
        self._build = build
        self._shared = shared
        self._signals = stop_signals
        self._server_type = server_type
        self._dev = dev
        self._clock = Drain(Budget.of(settings.drain_timeout_s))
        self._shutdown = Shutdown(server, self._clock, shared, self.session_count)
        self._link = Connection(self._on_refused, self.session_count)
        self._rooms = Rooms()
        self._following = Following(build.id)
        self._untargeted = settings.untargeted_policy(dev=dev)
        self._measures_itself = livekit_private.measures_itself(server)
        self._answers = Answers(then=self._rooms.take_in_offers)
        self.acceptance = Acceptance(
            build,
            untargeted=self._untargeted,
            is_full=self._is_full,
            rooms=self._rooms,
            team=team,
            on_answered=self._answers.given,
            takes=self._following.takes,
            on_left=self._on_left_job,
            on_refused=self._on_refused_job,
            on_accepted=self._on_accepted_job,
        )
        self._adoption: Adoption | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._entered = False
        self._started = False
        self._refused = asyncio.Event()
        server.once("worker_started", self._on_started)
        server.on("worker_registered", self._on_registered)

    async def run(self, run: Run) -> None:
        """Run until the stop signal, or until LiveKit does not want this worker.

        Args:
            run: LiveKit's own `run`.
        """
        self._loop = asyncio.get_running_loop()
        introduction.introduce(
            self._build,
            self._clock.budget,
            untargeted=self._untargeted,
            in_threads=livekit_private.runs_in_threads(self._server),
            dev=self._dev,
        )
        watch_forkserver.mend_exit_codes()
        # Not gathered: the end of the event loop would log that, with a traceback.
        watches = (self._signals.watch(), watch_forkserver.keep_running())
        self._watching = [asyncio.ensure_future(watch) for watch in watches]
        try:
            await self._serve_status()
            await self._run_until_refused(run)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_PORT:
                logger.error("cannot listen on a port; set another one", extra={"error": error})
                self._shutdown.exit_code = ExitCode.CONFIGURATION
            elif isinstance(error, RuntimeError) and self._started:
                self._give_up(str(error))
            else:
                # LiveKit's command line logs what is raised, and would exit with 0.
                self._shutdown.exit_code = ExitCode.CRASHED
                raise

    async def drain(self, drain: Callable[[float], Awaitable[None]]) -> None:
        """Let sessions end, within the budget; `drain` is LiveKit's own, with its limit."""
        self.stop()
        self._signals.drain_begins()
        if not self._started:
            return  # There can be no session yet, and LiveKit's own `drain` would fail.
        livekit_private.stop_refilling(self._server)
        if self._adoption is not None:
            self._adoption.drain_begins()
        await self._shutdown.let_sessions_end(drain, self._last_look)

    async def close(self, aclose: Run) -> None:
        """Shut down by LiveKit's own `aclose`, and raise this worker's exit code if it is not 0.

        Raises:
            SystemExit: with the exit code.
        """
        code = ExitCode.SESSIONS_CUT if self.session_count() else self._shutdown.exit_code
        self._signals.close_begins(code)
        if self._adopting is not None:
            self._adopting.cancel()
            await asyncio.wait({self._adopting})
        if self._entered:
            await self._shutdown.close(aclose)
        self._answers.tell_all()
        if self._shutdown.exit_code != ExitCode.DRAINED:
            raise SystemExit(self._shutdown.exit_code)

    def stop(self) -> None:
        """The stop signal has come; may be called in its handler."""
        self._clock.begin()
        self._shared.drains = True

    def force(self) -> None:
        """Somebody is in a hurry; may be called in a signal handler."""
        self._loop.call_soon_threadsafe(self._shutdown.force)

    def session_count(self) -> int:
        """Sessions that run here or are about to."""
        adopting = self._adoption.starting if self._adoption else frozenset()
        return capacity.count(self.acceptance.accepting, self._sessions(), adopting)

    def state(self) -> State:
        """Where this worker is between its start and its end."""
        if self._clock.began:
            return "draining"
        if self._link.up:
            return "ready"
        return "disconnected" if self._link.was_up else "starting"

    def status(self) -> dict[str, Any]:
        """The body of `/status`."""
        return {
            "build": self._build.facts(),
            "state": self.state(),
            "agent_name": livekit_private.agent_name(self._server),
            "sessions": self.session_count(),
            "adoption": "off" if self._adoption is None else self._adoption.state,
            "rollout": self._following.facts(time.monotonic()),
            "drain_left_s": round(self._clock.left_s(), 1) if self._clock.began else None,
            "stale": self._shared.stale,
        }

    async def _serve_status(self) -> None:
        if self._settings.status_port is None:
            return
        # Never stopped: a supervisor may watch the drain to its end.
        self._status_server = StatusServer(self.status, self._settings.status_port)
        logger.info("status is served", extra={"port": await self._status_server.start()})

    async def _run_until_refused(self, run: Run) -> None:
        self._entered = True
        running = asyncio.ensure_future(run())
        refused = asyncio.ensure_future(self._refused.wait())
        await asyncio.wait({running, refused}, return_when=asyncio.FIRST_COMPLETED)
        refused.cancel()
        if running.done():
            running.result()
        else:
            running.cancel()

    def _on_started(self) -> None:
        self._started = True
        self._signals.begin()
        self._link.attach(self._server)

    def _on_registered(self, _: str, server: ServerInfo) -> None:
        if self._adoption is not None:
            self._rooms.connected_again(time.monotonic())
            self._adoption.registered()
        elif not self._clock.began:
            self._adopt(is_cloud=server.edition == ServerInfo.Edition.Cloud)

    def _adopt(self, *, is_cloud: bool) -> None:
        self._adoption = adopting.adoption(
            self._server,
            self._settings,
            self._build,
            server_type=self._server_type,
            is_cloud=is_cloud,
            dev=self._dev,
            untargeted=self._untargeted,
            rooms=self._rooms,
            acceptance=self.acceptance,
            following=self._following,
            sessions=self._sessions,
            connected=lambda: self._link.up,
            may_adopt=self._may_adopt,
            is_replaced=lambda: self._clock.began or self._shared.stale,
        )
        if self._adoption is None:
            return
        self._shared.adopts = True
        self._adopting = asyncio.create_task(self._adoption.run())

    async def _last_look(self) -> bool:
        return self._adoption is not None and await self._adoption.last_look()

    def _sessions(self) -> dict[str, Job]:
        running = self._server.active_jobs if self._started else []
        # LiveKit lists None for a job whose launch has just failed.
        return {info.job.id: info.job for info in running if info}

    def _is_full(self) -> bool:
        return capacity.is_full(self.session_count, self._settings.max_sessions)

    def _may_adopt(self) -> bool:
        may = self._link.up and not self._is_full()
        return may and not (self._measures_itself and busy(self._server) is not None)

    def _on_refused_job(self, room: str) -> None:
        if self._adoption is not None:
            self._adoption.refused(room)

    def _on_left_job(self, job: Job) -> None:
        if self._adoption is not None:
            self._adoption.left(job)

    def _on_accepted_job(self, job: Job) -> None:
        if self._adoption is not None:
            self._adoption.accepted(job)

    def _on_refused(self, reason: str) -> None:
        self._give_up(reason)
        self._refused.set()

    def _give_up(self, reason: str) -> None:
        self._shutdown.exit_code = ExitCode.UNREACHABLE
        logger.error(
            "giving up on LiveKit; check its URL, API key, secret and deployment name, "
            "and the server's log",
            extra={
                "reason": reason,
                "url": livekit_private.credentials(self._server)[0],
                "deployment": self._settings.deployment,
                "agent_name": livekit_private.agent_name(self._server),
            },
        )
