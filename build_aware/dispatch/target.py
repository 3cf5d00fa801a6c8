"""What does this job ask for: the target in room or dispatch metadata.

Metadata is untrusted text that others write. Reading it never raises, whatever it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

KEY: Final = "agent_build"
"""The key in the metadata's JSON object. All other keys belong to the application."""

ANY: Final = "any"
"""The name that every build answers to."""

MAX_WAIT: Final = timedelta(hours=1)
"""The longest `wait`: a user who waits that long has left."""

DEFAULT_WAIT: Final = timedelta(seconds=20)
"""`wait` where only `fallback` is given, the example of the contract."""

EXPECTED: Final = (
    f'"{KEY}" as a build name, a list of build names, or '
    '{"id": name or list, "fallback": "none" or "any", "wait": seconds}'
)
"""The accepted forms in words, for messages."""

_SHOWN_CHARACTERS: Final = 80
_MAX_INT_DIGITS: Final = 20


def _number(digits: str) -> int | float:
    # Python refuses to read integers of thousands of digits, and with them the whole metadata.
    return int(digits) if len(digits) < _MAX_INT_DIGITS else float(digits)


# Made once: an offer has to be answered at once.
_READ: Final = json.JSONDecoder(parse_int=_number).decode
_WRITE: Final = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Target:
    """The builds that may serve a job.

    Attributes:
        names: build names, of which the serving build must answer to one.
        fallback: `none` if only the target may serve, `any` if any build may after `wait`.
        wait: how long the target is waited for before the fallback comes due.
    """

    names: tuple[str, ...]
    fallback: Literal["none", "any"] = "none"
    wait: timedelta = DEFAULT_WAIT

    def met_by(self, answers_to: Callable[[str], bool]) -> bool:
        """Whether a build that answers to names as `answers_to` says may serve this target."""
        return any(name == ANY or answers_to(name) for name in self.names)

    def only_met_by(self, answers_to: Callable[[str], bool]) -> bool:
        """Whether no other build than the one that answers to names so may ever serve this."""
        return self.fallback == "none" and all(
            name != ANY and answers_to(name) for name in self.names
        )


@dataclass(frozen=True, slots=True)
class Untargeted:
    """Nobody asked for a build."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Somebody asked for a build in no known form.

    Attributes:
        found: what the metadata holds, in short and in ASCII, so that it is safe to log.
    """

    found: str


Asked: TypeAlias = Target | Untargeted | Malformed


def asked_by(*, dispatch_metadata: str, room_metadata: str) -> Asked:
    """What a job asks for.

    Dispatch metadata wins, because it always travels with the job; room metadata may be set
    too late to be seen (livekit/agents#713, #2672).
    """
    asked = parse(dispatch_metadata)
    return parse(room_metadata) if isinstance(asked, Untargeted) else asked


def parse(metadata: str) -> Asked:
    """Read the target from the text of one piece of metadata."""
    # Most metadata never mentions the key: no need to parse up to 64 KiB of JSON for that.
    # A backslash may spell the key in escapes.
    if KEY not in metadata and "\\" not in metadata:
        return Untargeted()
    try:
        content = _READ(metadata)
    except ValueError:
        return Untargeted()
    except RecursionError:
        return Malformed("JSON that is nested too deeply")
    if not isinstance(content, dict) or KEY not in content:
        return Untargeted()
    return of_value(content[KEY])


def beside(metadata: str) -> str:
    """What metadata says beside the target, in one form for all ways to write it.

    Two texts that differ in nothing but the build that they name give the same, and one that names
    a build and nothing else gives what no metadata gives: nothing.
    """
    if not metadata.lstrip().startswith("{"):
        return metadata
    try:
        content = _READ(metadata)
        if not isinstance(content, dict):
            return metadata
        content.pop(KEY, None)
        return _WRITE(content) if content else ""
    except (ValueError, RecursionError):
        return metadata


def of_value(value: Any) -> Target | Malformed:
    """Read the target from the value of the key `agent_build`."""
    if isinstance(value, dict):
        names = _names(value.get("id"))
        fallback = value.get("fallback", "none")
        wait = _wait(value.get("wait", DEFAULT_WAIT.total_seconds()))
        known = value.keys() <= {"id", "fallback", "wait"}
        if known and names and fallback in ("none", "any") and wait is not None:
            return Target(names, fallback, wait)
    elif names := _names(value):
        return Target(names)
    return Malformed(_shown(value))


def _names(value: Any) -> tuple[str, ...] | None:
    names = value if isinstance(value, list) else [value]
    if names and all(isinstance(name, str) and name for name in names):
        return tuple(names)
    return None


def _wait(value: Any) -> timedelta | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared as a number first: infinity and 10**400 do not fit a timedelta, NaN fails both.
    if not 0 <= value <= MAX_WAIT.total_seconds():
        return None
    return timedelta(seconds=value)


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
