"""The command line of an agent: LiveKit's commands, and ours."""

from __future__ import annotations

from build_aware.cli.env import load_env
from build_aware.cli.main import run_app

__all__ = ["load_env", "run_app"]
