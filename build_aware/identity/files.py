"""Which files count for the build id, and the hash of them."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from build_aware.identity.errors import BuildError
from build_aware.identity.ignore import Ignore, dockerignore, gitignore
from build_aware.identity.project import TABLE, Project

if TYPE_CHECKING:
    from hashlib import _Hash

ID_LENGTH: Final = 12
"""Hex digits of a content id: 48 bits, so two of a million builds collide with odds of 1 in 500."""

MAX_BYTES: Final = 1_000_000_000
"""All files together may have no more, unless they are listed. LiveKit Cloud takes no more."""

NEVER: Final = frozenset({"__pycache__", "node_modules", "venv", "livekit.toml"})
"""Names that never count below a folder: caches, and what LiveKit Cloud does not upload."""

NEVER_ENDINGS: Final = (".pyc", ".egg-info")
"""The endings of such names."""

_PIECE_BYTES: Final = 1 << 20

_LIST_THEM: Final = f"List the files that count under [{TABLE}] files in pyproject.toml"


class Stat(NamedTuple):
    """What tells without a look into a file whether it has changed."""

    size: int
    mtime_ns: int


def counted(project: Project, *, strict: bool = True) -> dict[str, Stat]:
    """Find the files that count: their paths from the root, in the order in which they are hashed.

    If the project lists files and folders, these count, and what is below the folders. Otherwise
    everything below the root counts that neither `.gitignore` nor `.dockerignore` excludes.

    Below a folder these never count: hidden files and folders, links, caches, virtual
    environments, and what LiveKit Cloud does not upload. Neither does a file with `Dockerfile` in
    its name, unless it is listed: LiveKit Cloud uploads it even if it is ignored, docker does not.

    Args:
        project: whose files.
        strict: raise if there can be no id. Otherwise pass over what is in the way.

    Raises:
        BuildError: a listed file is missing or a link; a folder cannot be read; a name is not
            UTF-8; or nothing is listed and the files have more than `MAX_BYTES`.
    """
    search = _Search(project, strict=strict)
    if project.files is None:
        search.everything()
    else:
        for name in project.files:
            search.listed(name)
    return dict(sorted(search.found.items()))


def content_id(root: Path, files: Mapping[str, Stat]) -> str:
    r"""Hash files below `root`, path by path, to a build id.

    Paths and contents are framed by their lengths, so no two sets of files run together.
    Text counts with `\n` line endings, because git may check out `\r\n`; a file with a NUL
    byte is binary and counts as it is.

    Raises:
        BuildError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name, found in files.items():
        path = os.path.join(root, name)  # noqa: PTH118 twice as fast for many files
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                if found.size <= _PIECE_BYTES:
                    _hash_small(digest, name.encode(), file.read())
                else:
                    _hash_large(digest, name.encode(), file)
        except OSError as error:
            raise _unreadable(path, error) from None
    return digest.hexdigest()[:ID_LENGTH]


class _Search:
    """A search for the files that count.

    Attributes:
        found: the files so far.
    """

    def __init__(self, project: Project, *, strict: bool) -> None:
        self.found: dict[str, Stat] = {}
        self._root = str(project.root)
        self._strict = strict

    def everything(self) -> None:
        """Find everything that ships."""
        if self._strict and Path(self._root) == Path(self._root).parent:
            raise BuildError(
                f"cannot compute the build id: the agent is in {self._root}, with the whole system "
                f"below it. Move it into a folder of its own. Or: {_LIST_THEM}."
            )
        patterns = gitignore(self._text(".gitignore")) + dockerignore(self._text(".dockerignore"))
        self._below("", Ignore(patterns), MAX_BYTES)

    def listed(self, name: str) -> None:
        """Find a listed file, or all that counts below a listed folder."""
        found = self._look_at(name)
        mode = found.st_mode if found else 0
        if found and stat.S_ISREG(mode):
            self._add(name, found)
        elif stat.S_ISDIR(mode):
            self._below("" if name == "." else name, Ignore(()))
        elif self._strict and stat.S_ISLNK(mode):
            raise BuildError(
                f"cannot compute the build id: {name} in {self._root} is a symbolic link, and "
                "those are not shipped. Replace it with its content, or set AGENT_BUILD_ID."
            )
        elif self._strict:
            raise BuildError(
                f"cannot compute the build id: {name} is missing in {self._root}. Ship it beside "
                f"pyproject.toml, which lists it under [{TABLE}] files, or set AGENT_BUILD_ID."
            )

    def _look_at(self, name: str) -> os.stat_result | None:
        """What is at a listed path, or the link on the way to it; None if nothing is."""
        found = None
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            path = self._path("/".join(parts[:end]))
            try:
                found = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                self._cannot_read(path, error)
                return None
            if stat.S_ISLNK(found.st_mode):
                break
        return found

    def _below(self, start: str, ignore: Ignore, max_bytes: float = math.inf) -> None:
        folders = [start]
        size = 0
        while folders:
            folder = folders.pop()
            entries = self._entries(folder)
            if folder != start and any(entry.name == "pyvenv.cfg" for entry in entries):
                continue
            for entry in entries:
                if _never_counts(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not ignore.excludes(name) or ignore.may_keep_below(name):
                        folders.append(name)
                elif (
                    entry.is_file(follow_symlinks=False)
                    and "Dockerfile" not in entry.name
                    and not ignore.excludes(name)
                ):
                    size += self._add_entry(name, entry)
            if self._strict and size > max_bytes:
                raise BuildError(
                    f"cannot compute the build id: the files in {self._root} add up to more than "
                    f"{MAX_BYTES // 1_000_000_000} GB. {_LIST_THEM}, exclude what the "
                    "agent does not need in .dockerignore, or set AGENT_BUILD_ID."
                )

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._path(folder)) as entries:
                return list(entries)
        except OSError as error:
            self._cannot_read(self._path(folder), error)
            return []

    def _add_entry(self, name: str, entry: os.DirEntry[str]) -> int:
        """Add a file, and return its bytes."""
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError as error:  # It has just been removed.
            self._cannot_read(entry.path, error)
            return 0
        self._add(name, found)
        return found.st_size

    def _add(self, name: str, found: os.stat_result) -> None:
        if self._strict:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise BuildError(
                    f"cannot compute the build id: the file name {name!a} is not UTF-8. Rename it."
                ) from None
        self.found[name] = Stat(found.st_size, found.st_mtime_ns)

    def _text(self, name: str) -> str:
        try:
            return Path(self._path(name)).read_text("utf-8", errors="surrogateescape")
        except OSError:
            return ""

    def _cannot_read(self, path: str, error: OSError) -> None:
        if self._strict:
            raise _unreadable(path, error) from None

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)  # noqa: PTH118 twice as fast for many files


def _never_counts(name: str) -> bool:
    return name.startswith(".") or name in NEVER or name.endswith(NEVER_ENDINGS)


def _unreadable(path: str, error: OSError) -> BuildError:
    return BuildError(
        f"cannot compute the build id: {path} cannot be read: {error.strerror}. If the agent does "
        f"not need it, exclude it in .dockerignore. Or: {_LIST_THEM}, or set AGENT_BUILD_ID."
    )


def _hash_small(digest: _Hash, name: bytes, content: bytes) -> None:
    if b"\r" in content and b"\0" not in content:  # The search for two bytes takes far longer.
        content = content.replace(b"\r\n", b"\n")
    digest.update(b"%d %d\n" % (len(name), len(content)) + name + content)


def _hash_large(digest: _Hash, name: bytes, file: BinaryIO) -> None:
    """The same, for a file that is too large to be held in memory."""
    length = 0
    pieces = _normalised
    for piece in _normalised(file):
        if b"\0" in piece:
            pieces = _pieces
            length = os.fstat(file.fileno()).st_size
            break
        length += len(piece)
    file.seek(0)
    digest.update(b"%d %d\n" % (len(name), length) + name)
    for piece in pieces(file):
        digest.update(piece)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _normalised(file: BinaryIO) -> Iterator[bytes]:
    held = b""
    for piece in _pieces(file):
        text = held + piece
        # The other half of a line ending may be the start of the next piece.
        held = b"\r" if text.endswith(b"\r") else b""
        yield text.removesuffix(held).replace(b"\r\n", b"\n")
    yield held
