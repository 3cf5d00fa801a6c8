"""The rollout as text: the JSON document that LiveKit carries as the metadata of a room. Pure.

Metadata is text that others can write: reading it never raises anything but `Unreadable`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from build_aware.dispatch.rollout import (
    BARRED_AT_MOST,
    KNOWN_AT_MOST,
    Ramp,
    Rollout,
    Standing,
)

FORMAT: Final = 1
"""The format of the documents that are written, and the newest that is read."""

MAX_BYTES: Final = 8 * 1024
"""The size of the largest document."""

_PREFIX: Final = "_builds."
_MAX_REVISION: Final = 2**31
"""Far below what JSON carries exactly: whatever is read can still be changed many times."""

_BUILD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
"""What a build id looks like; see `AGENT_BUILD_ID`."""

_SINCE: Final = re.compile(r"[0-9A-Z:.+-]{1,40}")
_DIGITS: Final = frozenset("0123456789abcdef")
_DIGEST_DIGITS: Final = 8

_T = TypeVar("_T")


class Unreadable(Exception):  # noqa: N818 what a reader would say
    """A document that this release does not read; the message says what was found."""


def room_of(agent_name: str, deployment: str) -> str:
    """The name of the room whose metadata is the rollout of an agent name and a deployment.

    No two of them have one room: an `@` of a name is written as `%40`.
    """
    name = agent_name.replace("%", "%25").replace("@", "%40")
    return f"{_PREFIX}{name}" + (f"@{deployment}" if deployment else "")


def is_rollout_room(name: str) -> bool:
    """Whether a room is that of a rollout, of whatever agent."""
    return name.startswith(_PREFIX)


def write(rollout: Rollout) -> str:
    """The document of a rollout."""
    ramp = rollout.ramp
    return json.dumps(
        {
            "format": FORMAT,
            "revision": rollout.revision,
            "current": _standing(rollout.current),
            "previous": _standing(rollout.previous),
            "ramp": ramp and {"build": ramp.build, "percent": ramp.percent, "since": ramp.since},
            "known": rollout.known,
            "barred": rollout.barred,
            "challenger": rollout.challenger,
        },
        separators=(",", ":"),
    )


def read(text: str) -> Rollout:
    """The rollout of a document.

    Raises:
        Unreadable: it is no document of this format.
    """
    if len(text) > MAX_BYTES:
        raise Unreadable(f"{len(text)} characters, of {MAX_BYTES} at most")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    if not isinstance(content, dict):
        raise Unreadable("no JSON object")
    found = content.get("format")
    if found != FORMAT or isinstance(found, bool):
        raise Unreadable(f"format {str(found)[:20]!a}, where this release reads {FORMAT}")
    revision = content.get("revision")
    if isinstance(revision, bool) or not isinstance(revision, int):
        raise Unreadable("no revision")
    if not 0 < revision < _MAX_REVISION:
        raise Unreadable("a revision out of range")
    return Rollout(
        revision=revision,
        current=_read_standing(content, "current"),
        previous=_read_standing(content, "previous"),
        ramp=_read_ramp(content),
        known=_read_digests(content, "known", KNOWN_AT_MOST),
        barred=_read_digests(content, "barred", BARRED_AT_MOST),
        challenger=_read_challenger(content),
    )


def _standing(standing: Standing | None) -> dict[str, str] | None:
    return None if standing is None else {"build": standing.build, "since": standing.since}


def _read_standing(content: Mapping[str, Any], key: str) -> Standing | None:
    if (found := content.get(key)) is None:
        return None
    return Standing(_text(found, key, "build", _BUILD), _text(found, key, "since", _SINCE))


def _read_ramp(content: Mapping[str, Any]) -> Ramp | None:
    if (found := content.get("ramp")) is None:
        return None
    build, since = _text(found, "ramp", "build", _BUILD), _text(found, "ramp", "since", _SINCE)
    percent = found.get("percent")
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        raise Unreadable("a ramp without percent")
    if not 0 < percent <= 100:  # noqa: PLR2004 percent
        raise Unreadable("a ramp's percent out of range")
    return Ramp(build, percent, since)


def _read_challenger(content: Mapping[str, Any]) -> str | None:
    if content.get("challenger") is None:
        return None
    return _text(content, "the document", "challenger", _BUILD)


def is_build_id(text: str) -> bool:
    """Whether a text can be the id of a build."""
    return _BUILD.fullmatch(text) is not None


def _text(found: object, place: str, key: str, looks_like: re.Pattern[str]) -> str:
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, str) or looks_like.fullmatch(value) is None:
        raise Unreadable(f"{place!a} without {key}")
    return value


def _read_digests(content: Mapping[str, Any], key: str, at_most: int) -> tuple[str, ...]:
    found = content.get(key, [])
    if not isinstance(found, list) or len(found) > at_most:
        raise Unreadable(f"{key!a} is no list of at most {at_most}")
    for each in found:
        if not isinstance(each, str) or len(each) != _DIGEST_DIGITS or not _DIGITS.issuperset(each):
            raise Unreadable(f"{key!a} has what is no digest of a build")
    return tuple(found)
