"""What all job processes of a worker share. Only its fork server imports this module."""
# ruff: noqa: E402

from __future__ import annotations

import gc

from build_aware.job import signals as job_signals

# Both before the imports below, which take seconds: a signal must not end the fork server
# meanwhile, and they make much and free nothing, so that looking for garbage only costs time.
# A job process switches that on again (`session.prepare`).
job_signals.ignore_in_children()
gc.disable()

import contextlib
import os
from typing import cast

from agent import models, session
from build_aware import settings

__all__ = ["session"]

# It was for the start of this process alone: programs that a session runs must not inherit it.
os.environ.pop("PYTHONSAFEPATH", None)

# `forkserver.prepare_environment` has set it.
_chosen = cast(settings.Models, os.environ["AGENT_MODELS"])
models.import_plugins(_chosen)
with contextlib.suppress(Exception):  # A job process tries again, and reports what is wrong.
    models.load_vad(_chosen)
