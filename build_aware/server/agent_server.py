"""LiveKit's agent server, made build-aware: the class that a team's agent uses."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, overload

import livekit.agents
from livekit.agents import NOT_GIVEN, JobContext, JobRequest, NotGivenOr
from livekit.agents.worker import ServerType

from build_aware import livekit_private, settings
from build_aware.dispatch import capacity
from build_aware.dispatch.acceptance import RequestHandler
from build_aware.drain import signals, starting
from build_aware.drain.budget import Budget
from build_aware.drain.exit_codes import fail
from build_aware.identity import whose
from build_aware.identity.build import Build
from build_aware.identity.errors import BuildError
from build_aware.job.entrypoint import Entrypoint, SessionEnd
from build_aware.job.facts import JobFacts, Prepare
from build_aware.job.shared import Shared
from build_aware.server import forkserver, garbage, logs
from build_aware.server.worker import Worker
from build_aware.settings import Command, Options, Settings

Function = Callable[[JobContext], Awaitable[None]]


class AgentServer(livekit.agents.AgentServer):
    """An agent server whose worker knows its build, takes its own jobs, and leaves cleanly.

    LiveKit's keywords and decorators are unchanged.

    Args:
        aware: options of this package; what they leave open, the environment decides.
        **livekit: LiveKit's own keywords. A `drain_timeout` is the whole budget, from the stop
            signal to the exit; `shutdown_process_timeout` is what each shutdown callback gets.
    """

    def __init__(self, *, aware: Options | None = None, **livekit: Any) -> None:
        super().__init__(**livekit)
        self._aware = aware or Options()
        self._function: Function | None = None
        self._team_request: RequestHandler | None = None
        self._type = ServerType.ROOM
        self._identity: whose.Identity | None = None
        self._signals: signals.StopSignals | None = None
        self._worker: Worker | None = None
        if starting.run_by_livekit:
            # Only in such a program: not in its job processes, in tests or in tools.
            self.stop_signals().await_livekit()

    @property
    def build(self) -> Build:
        """The build that this process runs; identified when first asked.

        Raises:
            SettingsError: the environment is not valid.
            SystemExit: it cannot be identified.
        """
        return self._identify(settings.load(os.environ, "build")).build

    def status(self) -> dict[str, Any]:
        """What `/status` says: build, state, sessions and more.

        Raises:
            RuntimeError: the worker does not run.
        """
        if self._worker is None:
            raise RuntimeError("the worker does not run")
        return self._worker.status()

    @overload
    def rtc_session(self, func: Function, **options: Any) -> Function: ...

    @overload
    def rtc_session(self, **options: Any) -> Callable[[Function], Function]: ...

    def rtc_session(
        self,
        func: Function | None = None,
        *,
        type: ServerType = ServerType.ROOM,  # noqa: A002 LiveKit's name
        on_request: RequestHandler | None = None,
        on_session_end: Callable[[JobContext], Any] | None = None,
        **livekit: Any,
    ) -> Any:
        """Register what runs a session; see `livekit.agents.AgentServer.rtc_session`.

        The build is checked first: `on_request` is asked only about jobs that this build may serve.
        """

        def register(function: Function) -> Function:
            super(AgentServer, self).rtc_session(
                Entrypoint(function),
                type=type,
                on_request=self._on_request,
                on_session_end=SessionEnd(on_session_end),
                **livekit,
            )
            self._function, self._team_request, self._type = function, on_request, type
            return function

        return register if func is None else register(func)

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """Run until the stop signal; see `livekit.agents.AgentServer.run`."""
        command: Command = "console" if unregistered else "dev" if devmode else "start"
        garbage.begin_to_look()
        try:
            config = self.settings_for(command)
            if not livekit_private.has_entrypoint(self):
                fail("no function runs sessions; decorate one with @server.rtc_session()")
            identity = self._identify(config)
        except SystemExit:
            _tell_no_more()
            raise
        logs.install(identity.build.id)
        if identity.counted is not None:
            whose.warn(identity.counted)
        shared = Shared()
        callbacks_s, session_end_s = livekit_private.limits_s(self)
        facts = JobFacts(
            build=identity.build,
            counted=identity.counted,
            shared=shared,
            end_with_last_user=config.end_with_last_user,
            join_timeout_s=config.join_timeout_s,
            callbacks_s=callbacks_s,
            session_end_s=session_end_s,
            shutdown_s=Budget.of(config.drain_timeout_s).shutdown_s,
            hidden=bool(livekit_private.permissions(self).hidden),
            presence=config.presence,
        )
        # As late as this: teams set it after construction.
        self.setup_fnc = Prepare(facts, self.setup_fnc)
        if unregistered:
            # `console` and `connect` serve one room and end with it.
            await super().run(devmode=devmode, unregistered=True)
            return
        stop_signals = self.stop_signals()
        stop_signals.install()
        worker = self._worker = Worker(
            self,
            config,
            identity.build,
            shared=shared,
            stop_signals=stop_signals,
            team=self._team_request,
            server_type=self._type,
            dev=devmode,
        )
        if config.max_sessions is not None and not livekit_private.measures_itself(self):
            limit = config.max_sessions
            # Without a threshold LiveKit refuses nothing by itself. Its own estimate of what
            # accepted jobs will cost would turn down most of a burst, and lose those sessions.
            livekit_private.set_load(
                self, lambda: capacity.load(worker.session_count(), limit), math.inf
            )
        if config.health_port is not None and not livekit_private.says_port(self):
            livekit_private.set_port(self, config.health_port)
        if livekit_private.uses_fork_server(self):
            forkserver.release_when_needed()
        else:
            forkserver.end()
        await worker.run(lambda: livekit.agents.AgentServer.run(self, devmode=devmode))

    async def drain(self, timeout: NotGivenOr[int | None] = NOT_GIVEN) -> None:  # noqa: ASYNC109
        """Let sessions end, within the budget; see `livekit.agents.AgentServer.drain`."""
        if self._worker is None:
            return

        async def drain(timeout_s: float) -> None:
            await livekit.agents.AgentServer.drain(self, timeout_s)  # type: ignore[arg-type]

        await self._worker.drain(drain)

    async def aclose(self) -> None:
        """Shut down, and end the process with this worker's exit code if it is not 0."""
        if self._worker is None:
            await super().aclose()
        else:
            await self._worker.close(super().aclose)

    def stop_signals(self) -> signals.StopSignals:
        """The handlers of this worker's stop signals; to be asked for by what runs it."""
        if self._signals is None:
            self._signals = signals.StopSignals(starting.leave, self._on_stop, self._on_force)
        return self._signals

    def _on_stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    def _on_force(self) -> None:
        if self._worker is not None:
            self._worker.force()

    async def _on_request(self, request: JobRequest) -> None:
        assert self._worker is not None, "LiveKit offers jobs only to a running worker"  # noqa: S101
        await self._worker.acceptance(request)

    def settings_for(self, command: Command) -> Settings:
        """What this server is set to, by its code and the environment, when it runs `command`.

        Raises:
            SystemExit: something is wrong; every problem has been named.
        """
        if moved := livekit_private.problems():
            fail(*moved)
        url, api_key, api_secret = livekit_private.credentials(self)
        drain_timeout_s = livekit_private.drain_timeout_s(self)
        said = {
            "LIVEKIT_URL": url,
            "LIVEKIT_API_KEY": api_key,
            "LIVEKIT_API_SECRET": api_secret,
            "AGENT_DRAIN_TIMEOUT": f"{drain_timeout_s:g}" if drain_timeout_s else None,
        }
        environ = os.environ | {name: value for name, value in said.items() if value}
        try:
            return settings.load(environ, command, self._aware)
        except settings.SettingsError as error:
            fail(*error.problems)

    def _identify(self, config: Settings) -> whose.Identity:
        if self._identity is None:
            try:
                self._identity = whose.identify(
                    _file_of(self._function),
                    build_id=config.build_id,
                    commit=config.build_commit,
                    deployment=config.deployment,
                )
            except BuildError as error:
                fail(str(error))
        return self._identity


def _tell_no_more() -> None:
    """Keep asyncio from telling again, with a traceback, why this task ends the program."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _file_of(function: Any) -> Path | None:
    """Where a function is written; None if that is not known."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not inspect.isroutine(function):
        function = type(function)  # An object that can be called.
    try:
        file = inspect.getsourcefile(function)
    except TypeError:
        return None
    return Path(file) if file else None
