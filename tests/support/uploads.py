"""What of a project reaches a builder of images: docker's context, LiveKit Cloud's upload.

Neither runs here. The rules are those of livekit-server-sdk-go's `pkg/cloudagents` and of moby;
only how a pattern is matched comes from the code under test, and has tests of its own.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from build_aware.identity.ignore import Ignore, dockerignore

NEVER_UPLOADED: Final = (
    "**/livekit.toml",
    "**/Dockerfile",
    "**/.dockerignore",
    "**/.gitignore",
    "**/.git",
    "**/node_modules",
    "**/.env",
    "**/.env.*",
    "**/.venv",
    "**/venv",
)
"""What `lk agent deploy` leaves out, unless one of the project's ignore files says otherwise."""


def livekit_cloud_upload(project: Path) -> bytes:
    """The gzip tar that `lk agent deploy` would upload: regular files only.

    Both ignore files are read as lists of docker's patterns, `.dockerignore` last, without regard
    to comments or slashes at the start. Whatever has `Dockerfile` in its name is always there.
    """
    patterns = [*NEVER_UPLOADED]
    for name in (".gitignore", ".dockerignore"):
        if (project / name).exists():
            patterns += (project / name).read_text().split("\n")
    ignore = Ignore(patterns)
    uploaded = io.BytesIO()
    with tarfile.open(fileobj=uploaded, mode="w:gz") as tar:
        for path in _files(project):
            name = path.relative_to(project).as_posix()
            kept = "Dockerfile" in path.name or not ignore.excludes(name)
            if kept and path.is_file() and not path.is_symlink():
                tar.add(path, name)
    return uploaded.getvalue()


def unpack(upload: bytes, folder: Path) -> Path:
    """Unpack an upload into a new folder, as LiveKit Cloud does before it builds the image."""
    with tarfile.open(fileobj=io.BytesIO(upload)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def copy_all(project: Path, folder: Path) -> Path:
    """What `COPY . .` puts into an image that docker builds in this project, in a new folder."""
    file = project / ".dockerignore"
    ignore = Ignore(dockerignore(file.read_text()) if file.exists() else ())
    for path in _files(project):
        name = path.relative_to(project).as_posix()
        if not ignore.excludes(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name, follow_symlinks=False)
    return folder


def _files(project: Path) -> Iterator[Path]:
    """All files and links, those in excluded folders too: a later pattern may keep them."""
    for folder, folders, names in os.walk(project):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (Path(folder) / name for name in (*names, *links))
