"""What all job processes of a worker share. Only its fork server imports this module."""

from __future__ import annotations

import contextlib
import gc
import os
from typing import cast

from . import job_signals, models, session, settings

__all__ = ["session"]

job_signals.ignore_in_children()

# It was for the start of this process alone: programs that a session runs must not inherit it.
os.environ.pop("PYTHONSAFEPATH", None)

# Imports make much and free nothing: looking for garbage meanwhile takes half a second. A job
# process switches it on again (`session.prepare`).
gc.disable()

# `forkserver.prepare_environment` has set it.
_chosen = cast(settings.Models, os.environ["AGENT_MODELS"])
models.import_plugins(_chosen)
with contextlib.suppress(Exception):  # A job process tries again, and reports what is wrong.
    models.load_vad(_chosen)
