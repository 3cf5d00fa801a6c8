"""Who am I: the identity of the build that this process runs.

The default build id is a hash of the shipped files themselves, read at start-up and never
stored, so a laptop, CI and LiveKit Cloud's builder agree on it without git, build arguments
or a network. docs/build-id.md says which files count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from build_aware.identity import git
from build_aware.identity.errors import BuildError
from build_aware.identity.project import read_project
from build_aware.identity.snapshot import Snapshot, take

__all__ = ["MIN_PREFIX", "Build", "BuildError", "identify"]

MIN_PREFIX: Final = 7
"""The shortest prefix of a hash that counts as its name, as `git log --oneline` prints it."""

_HASH: Final = re.compile(r"[0-9a-f]{12}|[0-9a-f]{40}|[0-9a-f]{64}")
"""An id that is a hash: a content id, or a whole git commit (SHA-1 or SHA-256)."""


@dataclass(frozen=True, slots=True)
class Build:
    """The identity of one immutable set of shipped files.

    Attributes:
        id: the build id.
        version: `project.version` of `pyproject.toml`.
        commit: the git commit, or None where there is no checkout and no `AGENT_BUILD_COMMIT`.
        dirty: whether the checkout differs from `commit`; None where that cannot be known.
        deployment: the LiveKit deployment this worker registers under; None for production.
        origin: where the id comes from, the shipped `files` or the environment (`env`).
    """

    id: str
    version: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    deployment: str | None = None
    origin: Literal["files", "env"] = "files"

    def answers_to(self, name: str) -> bool:
        """Whether `name` is a name of this build.

        Names are whole, case-sensitive values: id, version, commit, deployment. Only hashes
        may be shortened, to 7 characters or more: any other id may be the start of another
        one by accident, as `release-1` is of `release-10`. A dirty checkout is not its commit.
        """
        commit = None if self.dirty else self.commit
        if name in (self.id, self.version, commit, self.deployment):
            return bool(name)
        if len(name) < MIN_PREFIX:
            return False
        by_id = _HASH.fullmatch(self.id) is not None and self.id.startswith(name)
        return by_id or (commit is not None and commit.startswith(name))

    def attributes(self) -> dict[str, str]:
        """The participant attributes by which users and tools see who serves them."""
        known = {"build.id": self.id, "build.version": self.version, "build.commit": self.commit}
        return {key: value for key, value in known.items() if value}

    def facts(self) -> dict[str, Any]:
        """All that is known, in the form `agent.py build --json` prints."""
        return {
            "id": self.id,
            "version": self.version,
            "commit": self.commit,
            "dirty": self.dirty,
            "deployment": self.deployment,
            "origin": self.origin,
        }


def identify(
    root: Path,
    *,
    snapshot: Snapshot | None = None,
    build_id: str | None = None,
    commit: str | None = None,
    deployment: str | None = None,
) -> Build:
    """Identify the build whose files are in `root`.

    Args:
        root: the project's folder; `project.root_of` finds it for an entry file.
        snapshot: its files, if they have been hashed already.
        build_id: overrides the content id (`AGENT_BUILD_ID`); then no file is hashed.
        commit: overrides what git says (`AGENT_BUILD_COMMIT`).
        deployment: the LiveKit deployment name (`LIVEKIT_AGENT_DEPLOYMENT`).

    Raises:
        BuildError: `pyproject.toml` says something wrong, or the files cannot be hashed.
    """
    project = snapshot.project if snapshot else read_project(root)
    dirty: bool | None = None
    if commit is None:
        commit, dirty = git.state(root)
    return Build(
        id=build_id or (snapshot or take(project)).id,
        version=project.version,
        commit=commit,
        dirty=dirty,
        deployment=deployment or None,
        origin="env" if build_id else "files",
    )
