"""The composition root: the one place that knows all the others."""

from __future__ import annotations

import functools
import json
import logging
import math
from typing import Any, Final

from livekit.agents import AgentServer, JobRequest

from . import capacity, forkserver, session, target
from .acceptance import Acceptance
from .build import Build
from .settings import Settings

logger = logging.getLogger(__name__)

BUILD_FIELD: Final = "build.id"
"""The field of every log record that carries the build id."""


class Worker(AgentServer):
    """LiveKit's agent server, with this build's rule for taking jobs.

    Its fields are its own; what LiveKit's class keeps to itself stays untouched.
    """

    def __init__(self, config: Settings, build: Build) -> None:
        super().__init__(
            setup_fnc=functools.partial(session.prepare, build, config),
            drain_timeout=config.drain_timeout_s,
            preload_modules=forkserver.modules(config.models),
            **self._options(config),
        )
        self.build = build
        self.config = config
        self._acceptance: Acceptance | None = None
        self.rtc_session(session.run, agent_name=config.agent_name, on_request=self._on_request)

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """Run until shut down; see `AgentServer.run`."""
        forkserver.prepare_environment(self.config.models)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._add_build)
        untargeted = self.config.untargeted_policy(dev=devmode)
        self._acceptance = Acceptance(self.build, untargeted=untargeted, is_full=self._is_full)
        logger.info("this worker's build", extra=self.build.facts() | {"untargeted": untargeted})
        if untargeted == "reject" and not unregistered:
            logger.warning(
                "jobs that name no build are refused; "
                "put the metadata below on a room or dispatch to reach this worker, "
                "or set AGENT_UNTARGETED=accept",
                extra={"metadata": json.dumps({target.KEY: self.build.id})},
            )
        await super().run(devmode=devmode, unregistered=unregistered)

    def session_count(self) -> int:
        """Sessions that run here or are about to."""
        accepting = self._acceptance.accepting if self._acceptance else frozenset()
        return len({running.job.id for running in self.active_jobs} | accepting)

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

    async def _on_request(self, request: JobRequest) -> None:
        assert self._acceptance is not None, "LiveKit offers jobs only to a running worker"  # noqa: S101
        await self._acceptance(request)

    def _is_full(self) -> bool:
        return capacity.is_full(self.session_count(), self.config.max_sessions)

    def _add_build(self, record: logging.LogRecord) -> bool:
        # Records of job processes pass here too: they are forwarded to the main process.
        setattr(record, BUILD_FIELD, self.build.id)
        return True
