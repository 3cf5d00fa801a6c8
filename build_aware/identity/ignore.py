r"""Which paths an ignore file excludes, by docker's rules.

They are not git's: a pattern is compared with the whole path from the root, so `*.log` excludes
`a.log` and not `logs/a.log`, which `**/*.log` does. `*` and `?` stop at a slash. A pattern that
matches a folder excludes all that is in it. The last pattern that matches decides, and one with a
`!` before it keeps. Docker and LiveKit Cloud's upload both use moby's `patternmatcher`; this
module does as that does.

A malformed pattern excludes nothing here. Docker and LiveKit Cloud build no image with one.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_WILD: Final = frozenset("*?[]\\")
"""The characters that make a pattern more than a path."""

_BELOW: Final = "(?:/.*)?"
"""A pattern that matches a folder matches all that is in it."""


def dockerignore(text: str) -> list[str]:
    """The patterns of a `.dockerignore`, as docker reads them: `/docs` means `docs`."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        keeps = pattern.startswith("!")
        path = _clean(pattern[keeps:].strip())
        patterns.append("!" * keeps + path.removeprefix("/"))
    return patterns


def gitignore(text: str) -> list[str]:
    """The patterns of a `.gitignore`, as LiveKit Cloud's upload reads them.

    Every line is one. A slash at its start stays, so `/docs` excludes nothing: that folder is
    uploaded.
    """
    return text.split("\n")


class Ignore:
    """What a list of patterns excludes.

    Args:
        patterns: docker's patterns. Paths have slashes, and are relative to the root.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        parsed = [pattern for text in patterns if (pattern := _parse(text))]
        self._keeping = [pattern for pattern in parsed if pattern.keeps]
        # The last match decides, so look from the end, at all neighbours of one kind at once.
        self._last_first = [
            _Run.of(keeps, tuple(patterns))
            for keeps, patterns in itertools.groupby(reversed(parsed), lambda each: each.keeps)
        ]

    def excludes(self, path: str) -> bool:
        """Whether this file or folder is excluded, by itself or by a folder above it."""
        return next((not run.keeps for run in self._last_first if run.matches(path)), False)

    def may_keep_below(self, folder: str) -> bool:
        """Whether something in this folder, which is excluded, may be kept all the same."""
        parts = folder.split("/")
        return any(pattern.reaches_below(parts) for pattern in self._keeping)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One pattern.

    Attributes:
        path: the pattern itself, cleaned.
        keeps: whether a `!` was before it.
        regex: what it means, if it is more than a path.
    """

    path: str
    keeps: bool
    regex: str | None

    def reaches_below(self, folder: list[str]) -> bool:
        """Whether it may match something in the folder that it does not match itself.

        It looks at the parts of the path one by one, and does not look into wildcards, so it may
        say yes where no is true: then a folder is walked in vain.
        """
        parts = self.path.split("/")
        for part, name in itertools.zip_longest(parts, folder):
            if part is None:
                return False
            if "**" in part or "[" in part:  # Both may match a slash.
                return True
            if name is None:
                return True
            if part != name and _WILD.isdisjoint(part):
                return False
        return False


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring patterns of one kind, as quick to look at as one."""

    keeps: bool
    paths: frozenset[str]
    regex: re.Pattern[str] | None

    @classmethod
    def of(cls, keeps: bool, patterns: Iterable[_Pattern]) -> _Run:
        patterns = list(patterns)
        wild = "|".join(pattern.regex for pattern in patterns if pattern.regex is not None)
        return cls(
            keeps,
            frozenset(pattern.path for pattern in patterns if pattern.regex is None),
            re.compile(f"(?:{wild}){_BELOW}", re.DOTALL) if wild else None,
        )

    def matches(self, path: str) -> bool:
        if self.paths and any(each in self.paths for each in _with_folders_above(path)):
            return True
        return self.regex is not None and self.regex.fullmatch(path) is not None


def _with_folders_above(path: str) -> Iterator[str]:
    yield path
    slash = path.find("/")
    while slash >= 0:
        yield path[:slash]
        slash = path.find("/", slash + 1)


def _parse(text: str) -> _Pattern | None:
    text = text.strip()
    if not text:
        return None
    # The `!` is cleaned along with the path behind it: moby does so.
    path = _clean(text)
    keeps = path.startswith("!")
    path = path[keeps:]
    if not path:
        return None
    try:
        return _Pattern(path, keeps, None if _WILD.isdisjoint(path) else _regex(path))
    except _MalformedError:
        return None


def _clean(path: str) -> str:
    """The shortest form of a path, as Go's `filepath.Clean` has it."""
    clean = posixpath.normpath(path)
    return clean[1:] if clean.startswith("//") else clean


class _MalformedError(ValueError):
    """A pattern that docker refuses."""


def _regex(pattern: str) -> str:
    if pattern.startswith("**") and _WILD.isdisjoint(pattern[2:]) and pattern[2:3] != "/":
        # Without a slash behind it, `**` is also a part of a name: `**.log` is the end of a path.
        return ".*" + re.escape(pattern[2:])
    regex = ""
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and pattern.startswith("*", at):
            at += 2 if pattern.startswith("/", at + 1) else 1
            regex += "(?:.*/)?" if at < len(pattern) else ".*"
        elif character == "*":
            regex += "[^/]*"
        elif character == "?":
            regex += "[^/]"
        elif character == "[":
            characters, at = _class(pattern, at)
            regex += characters
        elif character == "\\":
            literal, at = _escaped(pattern, at)
            regex += re.escape(literal)
        else:
            regex += re.escape(character)
    return regex


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class of characters that begins behind a bracket, and where the pattern goes on."""
    characters = "["
    if pattern.startswith("^", at):
        characters += "^"
        at += 1
    first = at
    while at == first or not pattern.startswith("]", at):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        if high < low:
            raise _MalformedError
        characters += f"{re.escape(low)}-{re.escape(high)}"
    return characters + "]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at : at + 1]
    if character in ("", "-", "]"):
        raise _MalformedError
    return _escaped(pattern, at + 1) if character == "\\" else (character, at + 1)


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at : at + 1]
    # A letter or digit would be a class of Go's regular expressions, or no expression at all.
    if not character or (character.isascii() and character.isalnum()):
        raise _MalformedError
    return character, at + 1
