"""Which files count for the build id, and the hash of them."""

from __future__ import annotations

import hashlib
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
"""The most that files may have without being listed. LiveKit Cloud uploads no more either."""

NEVER: Final = frozenset({"__pycache__", "node_modules", "venv", "livekit.toml"})
"""Names that never count below a folder: caches, and what LiveKit Cloud never uploads."""

NEVER_ENDINGS: Final = (".pyc", ".egg-info")
"""The endings of such names."""

_PIECE_BYTES: Final = 1 << 20

_LIST_THEM: Final = f"List what counts under [{TABLE}] files in pyproject.toml"


class Stat(NamedTuple):
    """What tells without a look into a file whether it has changed."""

    size: int
    mtime_ns: int


def counted(project: Project, *, strict: bool = True) -> dict[str, Stat]:
    """Find the files that count: their paths from the root, in the order in which they are hashed.

    If the project lists files and folders, these count, and what is below the folders. Otherwise
    everything below the root counts that neither `.gitignore` nor `.dockerignore` excludes.

    Below a folder these never count: hidden files and folders, links, caches, virtual
    environments, and what LiveKit Cloud never uploads. Neither does a file with `Dockerfile` in
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
        self._below("", Ignore(patterns))

    def listed(self, name: str) -> None:
        """Find a listed file, or all that counts below a listed folder."""
        mode = 0
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            try:
                found = os.lstat(self._path("/".join(parts[:end])))
            except (FileNotFoundError, NotADirectoryError):
                mode = 0
                break
            except OSError as error:
                if self._strict:
                    raise _unreadable(self._path(name), error) from None
                return
            mode = found.st_mode
            if stat.S_ISLNK(mode):
                break
        if stat.S_ISDIR(mode):
            self._below("" if name == "." else name, Ignore(()))
        elif stat.S_ISREG(mode):
            self._add(name, found)
        elif self._strict and stat.S_ISLNK(mode):
            raise BuildError(
                f"cannot compute the build id: {name} in {self._root} is a symbolic link, and "
                "those are not shipped. Replace it by its content, or set AGENT_BUILD_ID."
            )
        elif self._strict:
            raise BuildError(
                f"cannot compute the build id: {name} is missing in {self._root}. Ship it beside "
                f"pyproject.toml, which lists it under [{TABLE}] files, or set AGENT_BUILD_ID."
            )

    def _below(self, start: str, ignore: Ignore) -> None:
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
                    self._add(name, found := entry.stat(follow_symlinks=False))
                    size += found.st_size
            if self._strict and size > MAX_BYTES:
                raise BuildError(
                    f"cannot compute the build id: the files in {self._path(start)} have more than "
                    f"{MAX_BYTES // 1_000_000_000} GB. {_LIST_THEM}, exclude what is not the "
                    "agent's in .dockerignore, or set AGENT_BUILD_ID."
                )

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._path(folder)) as entries:
                return list(entries)
        except OSError as error:
            if self._strict:
                raise _unreadable(self._path(folder), error) from None
            return []

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

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)  # noqa: PTH118 twice as fast for many files


def _never_counts(name: str) -> bool:
    return name.startswith(".") or name in NEVER or name.endswith(NEVER_ENDINGS)


def _unreadable(path: str, error: OSError) -> BuildError:
    return BuildError(
        f"cannot compute the build id: {path} cannot be read: {error.strerror}. If it is not the "
        f"agent's, exclude it in .dockerignore. Or: {_LIST_THEM}, or set AGENT_BUILD_ID."
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
