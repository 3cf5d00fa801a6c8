"""What git knows about a checkout."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_TIMEOUT_S: Final = 5.0


def state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout and whether it is dirty; (None, None) where git cannot tell."""
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None, None
    changes = _git(root, "status", "--porcelain", "--untracked-files=normal")
    return commit, None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 fixed arguments, no shell
            ["git", "-C", str(root), *arguments],  # noqa: S607 git is where the user has it
            capture_output=True,
            check=True,
            # A git hook sets GIT_DIR, which would name another repository.
            env={name: value for name, value in os.environ.items() if name[:4] != "GIT_"},
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
