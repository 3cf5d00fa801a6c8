"""What a worker says of itself when it starts."""

from __future__ import annotations

import json
import logging

from build_aware.dispatch import target
from build_aware.drain import signals
from build_aware.drain.budget import Budget
from build_aware.identity.build import Build
from build_aware.settings import Untargeted

logger = logging.getLogger(__name__)


def introduce(
    build: Build, budget: Budget, *, untargeted: Untargeted, in_threads: bool, dev: bool
) -> None:
    """Log the build, the parts of the drain, and what an operator has to know.

    Args:
        build: the worker's build.
        budget: the parts of its drain.
        untargeted: what it does with jobs that name no build.
        in_threads: whether jobs run in threads of the worker.
        dev: whether it runs for development.
    """
    logger.info(
        "worker build and drain budget",
        extra=build.facts()
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
            "put this metadata on a room or dispatch to reach this worker, "
            "or set AGENT_UNTARGETED=accept",
            extra={"metadata": json.dumps({target.KEY: build.id})},
        )
    if in_threads and not dev:
        logger.warning(
            "jobs run in threads of the worker: one that crashes or blocks takes the others "
            "down with it; use JobExecutorType.PROCESS in production"
        )
