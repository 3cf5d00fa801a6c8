"""Which project an agent belongs to, and what its `pyproject.toml` says about the build."""

from __future__ import annotations

import os
import posixpath
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from build_aware.identity.errors import BuildError

TABLE: Final = "tool.build-aware"
"""The table of `pyproject.toml` that is ours."""


@dataclass(frozen=True, slots=True)
class Project:
    """The files of an agent, as its team sees them.

    Attributes:
        root: the folder that holds them.
        version: `project.version` of its `pyproject.toml`.
        files: what counts for the build id, as paths from the root; None: all that ships.
    """

    root: Path
    version: str | None = None
    files: tuple[str, ...] | None = None


def root_of(entry: Path) -> Path:
    """The root of the project that an entry file belongs to.

    That is the nearest folder at or above it with a `Dockerfile`, else the nearest one with a
    `pyproject.toml` or a `requirements.txt`, else its own. Links are not followed: where a
    deploy moves a link to another release, the worker's own files have changed.
    """
    own = Path(os.path.abspath(entry)).parent  # noqa: PTH100 Path.absolute() keeps `..`
    for names in (("Dockerfile",), ("pyproject.toml", "requirements.txt")):
        for folder in (own, *own.parents):
            if any((folder / name).is_file() for name in names):
                return folder
    return own


def read_project(root: Path) -> Project:
    """Read what the project below `root` says about itself.

    Raises:
        BuildError: `pyproject.toml` cannot be read, is not TOML, or has something else in
            `[tool.build-aware]` than a list of `files`.
    """
    path = root / "pyproject.toml"
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Project(root)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"cannot identify the build: {path} is not valid TOML: {error}") from None
    except OSError as error:
        raise BuildError(
            f"cannot identify the build: {path} cannot be read: {error.strerror}"
        ) from None
    version = _table(content, "project").get("version")
    return Project(
        root,
        version if isinstance(version, str) and version else None,
        _files(_table(content, *TABLE.split(".")), path),
    )


def _table(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        value = content.get(key)
        content = value if isinstance(value, dict) else {}
    return content


def _files(table: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    if not table:
        return None
    files = table.get("files")
    named = isinstance(files, list) and all(isinstance(each, str) and each for each in files)
    if list(table) != ["files"] or not files or not named:
        raise BuildError(
            f"cannot identify the build: [{TABLE}] in {path} must have `files`, a list of files "
            f"and folders, and nothing else."
        )
    if absolute := next((each for each in files if each.startswith("/")), None):
        raise BuildError(
            f"cannot identify the build: {absolute!a} in [{TABLE}] of {path} is an absolute "
            "path. Make it relative to the folder of that file."
        )
    return tuple(posixpath.normpath(each) for each in files)
