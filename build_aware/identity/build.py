"""Who am I: the identity of the build that this process runs.

The default build id is a hash of the shipped files themselves, read at start-up and never
stored, so a laptop, CI and LiveKit Cloud's builder agree on it without git, build arguments
or a network, and it cannot go stale.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that is shipped: it holds `agent.py` and everything beside it."""

SHIPPED: Final = ("agent.py", "agent", "build_aware", "pyproject.toml", "uv.lock", "Dockerfile")
"""What makes the agent what it is: these files, and for a folder every file below it."""

ID_LENGTH: Final = 12
"""Hex digits of a content id: 48 bits, so two of a million builds collide with odds of 1 in 500."""

MIN_PREFIX: Final = 7
"""The shortest prefix of a hash that counts as its name, as `git log --oneline` prints it."""

_HASH: Final = re.compile(r"[0-9a-f]{12}|[0-9a-f]{40}|[0-9a-f]{64}")
"""An id that is a hash: a content id, or a whole git commit (SHA-1 or SHA-256)."""

_GIT_TIMEOUT_S: Final = 5.0


class BuildError(ValueError):
    """Raised when this build cannot be identified; the message says what to do about it."""


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
    root: Path = ROOT,
    *,
    build_id: str | None = None,
    commit: str | None = None,
    deployment: str | None = None,
) -> Build:
    """Identify the build whose shipped files are in `root`.

    Args:
        root: the folder that holds `agent.py`.
        build_id: overrides the content id (`AGENT_BUILD_ID`).
        commit: overrides what git says (`AGENT_BUILD_COMMIT`).
        deployment: the LiveKit deployment name (`LIVEKIT_AGENT_DEPLOYMENT`).

    Raises:
        BuildError: a shipped file is missing, or `pyproject.toml` is not TOML.
    """
    dirty: bool | None = None
    if commit is None:
        commit, dirty = _git_state(root)
    return Build(
        id=build_id or content_id(root),
        version=_version(root),
        commit=commit,
        dirty=dirty,
        deployment=deployment or None,
        origin="env" if build_id else "files",
    )


def content_id(root: Path = ROOT) -> str:
    r"""Hash the shipped files below `root`, path by path, to a build id.

    Paths and contents are framed by their lengths, so no two sets of files run together.
    Text counts with `\n` line endings, because git may check out `\r\n`; a file with a NUL
    byte is binary and counts as it is. Caches, hidden files and symbolic links do not count:
    none of them is shipped.

    Raises:
        BuildError: a file of `SHIPPED` is missing.
    """
    digest = hashlib.sha256()
    for path in _shipped_files(root):
        name = _name(path, root)
        content = path.read_bytes()
        if b"\0" not in content:
            content = content.replace(b"\r\n", b"\n")
        digest.update(b"%d %d\n" % (len(name), len(content)) + name + content)
    return digest.hexdigest()[:ID_LENGTH]


def _shipped_files(root: Path) -> list[Path]:
    files: list[Path] = []
    for name in SHIPPED:
        path = root / name
        if path.is_symlink():
            raise BuildError(
                f"cannot compute the build id: {name} in {root} is a symbolic link, and those "
                "are not shipped. Replace it by its content, or set AGENT_BUILD_ID."
            )
        if path.is_dir():
            files += [file for file in path.rglob("*") if _is_shipped(file, root)]
        elif path.is_file():
            files.append(path)
        else:
            raise BuildError(
                f"cannot compute the build id: {name} is missing in {root}. "
                "Ship it beside agent.py, or set AGENT_BUILD_ID."
            )
    return sorted(files, key=lambda file: _name(file, root))


def _name(file: Path, root: Path) -> bytes:
    name = file.relative_to(root).as_posix()
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise BuildError(
            f"cannot compute the build id: the file name {name!a} is not UTF-8. Rename it."
        ) from None


def _is_shipped(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    return (
        file.is_file()
        and not file.is_symlink()
        and file.suffix != ".pyc"
        and not any(part == "__pycache__" or part.startswith(".") for part in parts)
    )


def _version(root: Path) -> str | None:
    path = root / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text("utf-8")).get("project")
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"cannot read the version: {path} is not valid TOML: {error}") from None
    except OSError as error:
        raise BuildError(f"cannot read the version: {error}") from None
    version = project.get("version") if isinstance(project, dict) else None
    return version if isinstance(version, str) and version else None


def _git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout and whether it is dirty; (None, None) where git cannot tell."""
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or not _HASH.fullmatch(commit):
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
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
