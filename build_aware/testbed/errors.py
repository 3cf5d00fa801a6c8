"""Why a test bed cannot be set up."""

from __future__ import annotations


class StartError(Exception):
    """Raised when a server, a worker or a user does not start; the message has its last output."""


class NotInstalledError(StartError):
    """Raised when a program is missing; the message says how to get it."""
