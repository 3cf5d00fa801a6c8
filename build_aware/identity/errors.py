"""What goes wrong when a build is identified."""

from __future__ import annotations


class BuildError(ValueError):
    """Raised when this build cannot be identified; the message says what to do about it."""
