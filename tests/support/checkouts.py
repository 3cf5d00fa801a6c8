"""Small projects, and checkouts of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below `root`, and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return root


def git(folder: Path, *arguments: str) -> str:
    """Run git, without the configuration or the repository of whoever runs the tests."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    identity = {
        f"GIT_{who}_{what}": f"{what.lower()}@example.test"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    isolation = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=environ | identity | isolation,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit_all(folder: Path) -> str:
    """Make a checkout of the folder, and return its commit."""
    git(folder, "init", "--quiet")
    git(folder, "config", "core.autocrlf", "false")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "everything")
    return git(folder, "rev-parse", "HEAD")
