"""The composition root: the one place that knows all the others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import multiprocessing
import os
import time
from typing import Any, Final

from livekit.agents import NOT_GIVEN, AgentServer, JobRequest, NotGivenOr
from livekit.protocol.agent import Job
from livekit.protocol.models import ServerInfo

from agent import session
from build_aware.adoption.adoption import Adoption
from build_aware.adoption.client import client
from build_aware.adoption.judgement import Candidate
from build_aware.adoption.launch import busy, launch
from build_aware.dispatch import attributes, capacity, target
from build_aware.dispatch.acceptance import Acceptance
from build_aware.dispatch.rooms import Rooms
from build_aware.drain import signals, starting
from build_aware.drain.budget import Budget, Drain
from build_aware.drain.exit_codes import ExitCode
from build_aware.identity.build import Build
from build_aware.job import ending
from build_aware.job.shared import Shared
from build_aware.server import forkserver, idle
from build_aware.server.connection import Connection
from build_aware.server.status import DEFAULT_PORT, State, StatusServer
from build_aware.settings import Settings

logger = logging.getLogger(__name__)

BUILD_FIELD: Final = "build.id"
"""The field of every log record that carries the build id."""

SESSIONS_CHECK_S: Final = 0.1
"""How often it is looked whether sessions that were adopted in the drain have ended."""


class Worker(AgentServer):
    """LiveKit's agent server, which takes this build's jobs and leaves cleanly.

    LiveKit's command line runs it in three steps: `run`, which ends with the stop signal,
    `drain` (not in `dev`), and `aclose`. Each is LiveKit's own, with what it lacks around it.
    """

    def __init__(self, config: Settings, build: Build) -> None:
        self._shared = Shared()
        super().__init__(
            setup_fnc=functools.partial(session.prepare, build, config, self._shared),
            preload_modules=[forkserver.PRELOAD],
            session_end_timeout=ending.SESSION_END_S,
            **self._options(config),
        )
        self.build = build
        self.config = config
        self._drain = Drain(Budget.of(config.drain_timeout_s))
        self._link = Connection(self._on_refused, self.session_count)
        self._signals = signals.StopSignals(starting.leave, self._on_stop, self._on_force)
        self._rooms = Rooms()
        self._acceptance: Acceptance | None = None
        self._adoption: Adoption | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._entered = False
        self._started = False
        self._refused = asyncio.Event()
        self._forced = asyncio.Event()
        self._exit_code = ExitCode.DRAINED
        self.once("worker_started", self._on_started)
        self.on("worker_registered", self._on_registered)
        self.rtc_session(
            session.run,
            agent_name=config.agent_name,
            on_request=self._on_request,
            on_session_end=session.end,
        )

    def await_stop_signals(self) -> None:
        """Have this worker's handlers in place as soon as LiveKit's command line has its own."""
        self._signals.await_livekit()

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """Run until the stop signal; see `AgentServer.run`."""
        if not unregistered:
            self._signals.install()
        self._loop_of_run = asyncio.get_running_loop()
        forkserver.prepare_environment(self.config.models)
        forkserver.mend_exit_codes()
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._add_build)
        logging.getLogger("livekit.agents").addFilter(_is_no_offer)
        if unregistered:
            # `console` and `connect` serve one room and end with it.
            self._entered = True
            await super().run(devmode=devmode, unregistered=True)
            return
        self._introduce(dev=devmode)
        self._watching = asyncio.gather(self._signals.watch(), forkserver.keep_running())
        try:
            await self._serve_status(dev=devmode)
            await self._run_until_refused(devmode)
        except OSError as error:
            logger.error("a port cannot be listened on; set another one", extra={"error": error})
            self._exit_code = ExitCode.CONFIGURATION
        except RuntimeError as error:
            if not self._started:
                raise
            self._give_up(str(error))

    async def drain(self, timeout: NotGivenOr[int | None] = NOT_GIVEN) -> None:  # noqa: ASYNC109
        """Let sessions end, within the budget; see `AgentServer.drain`."""
        self._drain.begin()
        self._signals.drain_begins()
        self._shared.drains = True
        if not self._started:
            return  # There can be no session yet, and LiveKit's own `drain` would fail.
        idle.stop_refilling(self)
        if self._adoption is not None:
            self._adoption.drain_begins()
        draining = asyncio.ensure_future(self._let_sessions_end())
        forced = asyncio.ensure_future(self._forced.wait())
        await asyncio.wait(
            {draining, forced},
            timeout=self._drain.sessions_left_s(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        forced.cancel()
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await draining
        rooms = sorted(running.job.room.name for running in self.active_jobs)
        if rooms:
            self._exit_code = ExitCode.SESSIONS_CUT
            logger.error(
                "sessions cut; give them more time with AGENT_DRAIN_TIMEOUT, "
                "or look at why they did not end",
                extra={
                    "rooms": rooms,
                    "cause": "second SIGINT" if self._forced.is_set() else "drain timeout",
                    "drained_s": round(self._drain.elapsed_s(), 1),
                },
            )
        elif self._shared.cut:
            # The job has said which room, and why.
            self._exit_code = ExitCode.SESSIONS_CUT

    async def _let_sessions_end(self) -> None:
        # LiveKit takes 0 for no limit at all.
        left_s = max(self._drain.sessions_left_s(), 0.001)
        await super().drain(timeout=left_s)  # type: ignore[arg-type]
        while self._adoption is not None and await self._adoption.last_look():
            while self.session_count():  # noqa: ASYNC110 LiveKit tells of no end of a job
                await asyncio.sleep(SESSIONS_CHECK_S)

    async def aclose(self) -> None:
        """Shut down, and end the process with this worker's exit code if it is not 0."""
        cuts = self.session_count() > 0
        self._signals.close_begins(ExitCode.SESSIONS_CUT if cuts else self._exit_code)
        await self._stop_adopting()
        if self._entered:
            await self._close_in_time()
        if self._exit_code != ExitCode.DRAINED:
            raise SystemExit(self._exit_code)

    async def _close_in_time(self) -> None:
        closing = asyncio.ensure_future(super().aclose())
        done, _ = await asyncio.wait({closing}, timeout=self._shutdown_timeout_s())
        if not done:
            left = multiprocessing.active_children()
            logger.error("killing job processes that do not end", extra={"count": len(left)})
            for process in left:
                process.kill()
            done, _ = await asyncio.wait({closing}, timeout=self._drain.budget.exit_s / 2)
        if not done:
            logging.shutdown()
            os._exit(self._exit_code)
        closing.result()

    def session_count(self) -> int:
        """Sessions that run here or are about to."""
        accepting = self._acceptance.accepting if self._acceptance else frozenset()
        adopting = self._adoption.starting if self._adoption else frozenset()
        return len(self._sessions().keys() | accepting | adopting)

    def state(self) -> State:
        """Where this worker is between its start and its end."""
        if self._drain.began:
            return "draining"
        if self._link.up:
            return "ready"
        return "disconnected" if self._link.was_up else "starting"

    def status(self) -> dict[str, Any]:
        """The body of `/status`."""
        return {
            "build": self.build.facts(),
            "state": self.state(),
            "agent_name": self.config.agent_name,
            "sessions": self.session_count(),
            "adoption": "off" if self._adoption is None else self._adoption.state,
            "drain_left_s": round(self._drain.left_s(), 1) if self._drain.began else None,
        }

    def _options(self, config: Settings) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if config.health_port is not None:
            options["port"] = config.health_port
        if (limit := config.max_sessions) is not None:
            # Without a threshold LiveKit refuses nothing by itself. Its own estimate of what
            # accepted jobs will cost would turn down most of a burst, and lose those sessions.
            options["load_threshold"] = math.inf
            options["load_fnc"] = lambda: capacity.load(self.session_count(), limit)
        return options

    def _introduce(self, *, dev: bool) -> None:
        untargeted = self._untargeted = self.config.untargeted_policy(dev=dev)
        self._acceptance = Acceptance(
            self.build,
            untargeted=untargeted,
            is_full=self._is_full,
            rooms=self._rooms,
            on_refused=self._on_refused_job,
        )
        budget = self._drain.budget
        logger.info(
            "this worker's build and drain",
            extra=self.build.facts()
            | {
                "untargeted": untargeted,
                "drain_sessions_s": budget.sessions_s,
                "drain_shutdown_s": budget.shutdown_s,
                "drain_exit_s": budget.exit_s,
            },
        )
        signals.warn_of_a_shell()
        if untargeted == "reject":
            logger.warning(
                "jobs that name no build are refused; "
                "put the metadata below on a room or dispatch to reach this worker, "
                "or set AGENT_UNTARGETED=accept",
                extra={"metadata": json.dumps({target.KEY: self.build.id})},
            )

    async def _serve_status(self, *, dev: bool) -> None:
        port = self.config.status_port
        if port is None:
            if dev:
                return
            port = DEFAULT_PORT
        # Never stopped: a supervisor may watch the drain to its end.
        self._status_server = StatusServer(self.status, port)
        logger.info("status is served", extra={"port": await self._status_server.start()})

    async def _run_until_refused(self, devmode: bool) -> None:
        self._entered = True
        running = asyncio.ensure_future(super().run(devmode=devmode))
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
        if self._acceptance is not None:
            self._link.attach(self)

    def _on_registered(self, _: str, server: ServerInfo) -> None:
        if self._adoption is not None:
            self._rooms.connected_again(time.monotonic())
            self._adoption.sweep_soon()
        if self._acceptance is None or self._adoption is not None or self._drain.began:
            return
        is_cloud = server.edition == ServerInfo.Edition.Cloud
        switch = self.config.adoption
        self._shared.adopts = switch == "on" or (switch == "auto" and not is_cloud)
        if not self._shared.adopts:
            logger.info(
                "waiting rooms are left alone",
                extra={"adoption": switch, "cloud": is_cloud},
            )
            return
        candidate = Candidate(
            agent_name=self.config.agent_name,
            deployment=self.config.deployment or "",
            answers_to=self.build.answers_to,
            untargeted=self._untargeted,
        )
        self._adoption = Adoption(
            candidate,
            self._rooms,
            api=functools.partial(client, self.config.credentials),
            sessions=self._sessions,
            may_adopt=self._may_adopt,
            busy=functools.partial(busy, self),
            launch=functools.partial(
                launch, self, ask=self._accept_adopted, credentials=self.config.credentials
            ),
        )
        self._adopting = asyncio.create_task(self._adoption.run())

    async def _stop_adopting(self) -> None:
        if self._adopting is not None:
            self._adopting.cancel()
            await asyncio.wait({self._adopting})

    def _sessions(self) -> dict[str, Job]:
        running = self.active_jobs if self._started else []
        # LiveKit lists None for a job whose launch has just failed.
        return {info.job.id: info.job for info in running if info}

    def _may_adopt(self) -> bool:
        return self._link.up and not self._is_full()

    async def _accept_adopted(self, request: JobRequest) -> None:
        await request.accept(attributes=attributes.of_job(self.build, request.job))

    def _on_refused_job(self, room: str) -> None:
        if self._adoption is not None:
            self._adoption.refused(room)

    def _on_refused(self, reason: str) -> None:
        self._give_up(reason)
        self._refused.set()

    def _give_up(self, reason: str) -> None:
        self._exit_code = ExitCode.UNREACHABLE
        logger.error(
            "giving up on LiveKit; check its URL, API key, secret and deployment name, "
            "and the server's log",
            extra={
                "reason": reason,
                "url": self.config.url,
                "deployment": self.config.deployment,
                "agent_name": self.config.agent_name,
            },
        )

    def _on_stop(self) -> None:
        self._drain.begin()

    def _on_force(self) -> None:
        self._loop_of_run.call_soon_threadsafe(self._forced.set)

    def _shutdown_timeout_s(self) -> float | None:
        left_s = self._drain.shutdown_left_s()
        return None if math.isinf(left_s) else left_s

    async def _on_request(self, request: JobRequest) -> None:
        assert self._acceptance is not None, "LiveKit offers jobs only to a running worker"  # noqa: S101
        await self._acceptance(request)

    def _is_full(self) -> bool:
        return capacity.is_full(self.session_count(), self.config.max_sessions)

    def _add_build(self, record: logging.LogRecord) -> bool:
        # Records of job processes pass here too: they are forwarded to the main process.
        setattr(record, BUILD_FIELD, self.build.id)
        return True


def _is_no_offer(record: logging.LogRecord) -> bool:
    """Leave out LiveKit's line for each offer: ours has the same fields and the answer.

    Writing a line is most of the time that an answer takes.
    """
    return record.msg != "received job request"
