"""Whose build is this: the identity of the agent that a file begins. Looked at once."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from build_aware.identity import cautions, imports
from build_aware.identity.build import Build
from build_aware.identity.build import identify as identify_build
from build_aware.identity.errors import BuildError
from build_aware.identity.project import read_project, root_of
from build_aware.identity.snapshot import Snapshot, take

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """A build, and the files that make it.

    Attributes:
        build: the build.
        counted: its files, as they were when they were hashed; None if they were not.
    """

    build: Build
    counted: Snapshot | None


_program: Path | None = None
_early: Snapshot | None = None


def begins_with(file: Path) -> None:
    """Say which file this program begins with: then that says whose build this is.

    An entrypoint may be written elsewhere, as in a library that several agents share.
    """
    global _program  # noqa: PLW0603 a process has one program
    _program = file


def look_early(file: Path) -> None:
    """Hash the files of the agent that `file` begins, before its code runs.

    What is wrong with them is told when the build is asked for.
    """
    global _early  # noqa: PLW0603 a process has one program
    begins_with(file)
    try:
        _early = take(read_project(root_of(file)))
    except BuildError:
        _early = None


def count(file: Path | None) -> Snapshot:
    """Hash the files of the agent that `file` begins; None takes the program's.

    Raises:
        BuildError: they cannot be hashed.
    """
    return take(read_project(root_of(file or Path(sys.argv[0]))))


def identify(
    file: Path | None,
    *,
    build_id: str | None = None,
    commit: str | None = None,
    deployment: str | None = None,
) -> Identity:
    """Identify the build of the agent that `file` begins.

    Args:
        file: the file of its entrypoint, where it is not known which the program begins with; None
            takes the program's name.
        build_id: overrides the content id (`AGENT_BUILD_ID`).
        commit: overrides what git says (`AGENT_BUILD_COMMIT`).
        deployment: the LiveKit deployment name (`LIVEKIT_AGENT_DEPLOYMENT`).

    Raises:
        BuildError: it cannot be identified.
    """
    file = _program or file
    root = root_of(file or Path(sys.argv[0]))
    counted = _early if _early is not None and _early.project.root == root else None
    if counted is None and not build_id:
        counted = count(file)
    build = identify_build(
        root, snapshot=counted, build_id=build_id, commit=commit, deployment=deployment
    )
    return Identity(build, counted)


def warn(counted: Snapshot) -> None:
    """Log what an operator should know about the files that count, once all is imported."""
    found = (
        cautions.expensive(counted),
        cautions.imported_from_outside(imports.imported(), counted, imports.installed()),
    )
    for caution in found:
        if caution is not None:
            logger.warning(caution.message, extra=dict(caution.fields))
