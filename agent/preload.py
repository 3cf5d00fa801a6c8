"""What all job processes of a worker share. Only its fork server imports this module."""

from __future__ import annotations

from . import job_signals, session

__all__ = ["session"]

job_signals.ignore_in_children()
