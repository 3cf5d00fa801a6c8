"""Copies of the agent: builds of their own, some of them with a fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from build_aware.identity.project import read_project
from build_aware.identity.snapshot import take
from tests.support.paths import ROOT

SHIPPED = read_project(ROOT).files or ()
"""What of this checkout counts for its build id."""

WAYS_IN = [
    ("agent.py", "start"),
    ("-m", "livekit.agents", "start", "agent.py"),
]
"""The commands, behind `python`, that start a production worker."""

WAYS_IN_ONE_SLOW = [
    pytest.param(WAYS_IN[0], id=" ".join(WAYS_IN[0])),
    pytest.param(WAYS_IN[1], id=" ".join(WAYS_IN[1]), marks=pytest.mark.slow),
]
"""The same as parameters, for tests in which the second one tells little more."""


def content_id(root: Path = ROOT) -> str:
    """The build id of the project in this folder, as its files make it."""
    return take(read_project(root)).id


def copy_of_the_agent(folder: Path, *, version: str | None = None, change: str = "") -> Path:
    """Copy the shipped files to `folder`, as a build of their own.

    Args:
        folder: an empty or missing folder.
        version: the version that the copy has.
        change: text that is added to its assistant, to make it another build.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    if version is not None:
        project = folder / "pyproject.toml"
        text = project.read_text().splitlines(keepends=True)
        lines = [f'version = "{version}"\n' if x.startswith("version = ") else x for x in text]
        project.write_text("".join(lines))
    if change:
        with (folder / "agent" / "assistant.py").open("a") as file:
            file.write(f"\n# {change}\n")
    return folder
