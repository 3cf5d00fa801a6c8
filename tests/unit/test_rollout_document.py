from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.dispatch.rollout import KNOWN_AT_MOST, Ramp, Rollout, Standing, digest
from build_aware.dispatch.rollout_document import (
    MAX_BYTES,
    Unreadable,
    is_rollout_room,
    read,
    room_of,
    write,
)
from tests.support.metadata import METADATA

IDS: Final = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9.-]{0,62}\Z")
SINCE: Final = st.just("2026-11-26T10:00:00Z")
STANDINGS: Final = st.none() | st.builds(Standing, IDS, SINCE)
DIGESTS: Final = st.lists(IDS.map(digest), unique=True).map(tuple)
ROLLOUTS: Final = st.builds(
    Rollout,
    revision=st.integers(1, 2**31 - 1),
    current=STANDINGS,
    previous=STANDINGS,
    ramp=st.none() | st.builds(Ramp, IDS, st.floats(0.001, 100), SINCE),
    known=DIGESTS,
    barred=DIGESTS,
    challenger=st.none() | IDS,
)
GOOD: Final[dict[str, Any]] = {
    "format": 1,
    "revision": 3,
    "current": {"build": "a", "since": "2026-11-26T10:00:00Z"},
    "previous": None,
    "ramp": None,
    "known": [],
    "barred": [],
}


@given(ROLLOUTS)
def test_what_is_written_is_read(rollout: Rollout) -> None:
    assert read(write(rollout)) == rollout


def test_the_largest_document_fits() -> None:
    longest = 63 * "x"
    standing = Standing(longest, "2026-11-26T10:00:00Z")
    rollout = Rollout(
        2**31 - 1,
        current=standing,
        previous=standing,
        ramp=Ramp(longest, 99.999999999999, standing.since),
        known=KNOWN_AT_MOST * ("0123abcd",),
        barred=100 * ("0123abcd",),
        challenger=longest,
    )
    assert len(write(rollout).encode()) <= MAX_BYTES
    assert read(write(rollout)) == rollout


@given(METADATA | st.text() | st.recursive(st.none(), st.lists).map(json.dumps))
def test_reading_raises_nothing_else(text: str) -> None:
    try:
        rollout = read(text)
    except Unreadable as error:
        assert str(error).isascii()
    else:
        assert read(write(rollout)) == rollout


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"format": 2}, "format '2', where this release reads 1"),
        ({"format": True}, "format 'True'"),
        ({"format": None}, "format 'None'"),
        ({"revision": 0}, "a revision out of range"),
        ({"revision": 2**31}, "a revision out of range"),
        ({"revision": "3"}, "no revision"),
        ({"revision": True}, "no revision"),
        ({"current": "a"}, "'current' without build"),
        ({"current": {"build": "", "since": "2026"}}, "'current' without build"),
        ({"current": {"build": "a"}}, "'current' without since"),
        ({"previous": {"build": 64 * "a", "since": "2026"}}, "'previous' without build"),
        ({"current": {"build": "\ud800", "since": "2026"}}, "'current' without build"),
        ({"current": {"build": "a", "since": "\ud800"}}, "'current' without since"),
        ({"challenger": "not a build"}, "'the document' without challenger"),
        ({"note": 9000 * "x"}, "characters, of 8192 at most"),
        ({"challenger": 5}, "'the document' without challenger"),
        ({"ramp": {"build": "a", "since": "2026"}}, "a ramp without percent"),
        ({"ramp": {"build": "a", "since": "2026", "percent": True}}, "a ramp without percent"),
        ({"ramp": {"build": "a", "since": "2026", "percent": 0}}, "a ramp's percent out of range"),
        (
            {"ramp": {"build": "a", "since": "2026", "percent": 101}},
            "a ramp's percent out of range",
        ),
        ({"known": {}}, "'known' is no list"),
        ({"known": ["0123ABCD"]}, "'known' has what is no digest"),
        ({"known": ["0123"]}, "'known' has what is no digest"),
        ({"known": [1]}, "'known' has what is no digest"),
        ({"barred": 501 * ["0123abcd"]}, "'barred' is no list"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], found: str) -> None:
    assert read(json.dumps(GOOD)).revision == GOOD["revision"]
    with pytest.raises(Unreadable) as raised:
        read(json.dumps(GOOD | change))
    assert found in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "nonsense", "{", "[" * 4000, 64 * 1024 * "x", json.dumps("x" * 9000)],
)
def test_what_is_no_document_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


def test_what_a_later_release_may_add_is_no_fault() -> None:
    assert read(json.dumps(GOOD | {"note": "added"})) == read(json.dumps(GOOD))


@pytest.mark.parametrize(
    ("agent_name", "deployment", "room"),
    [
        ("", "", "_builds."),
        ("front-desk", "", "_builds.front-desk"),
        ("front-desk", "staging", "_builds.front-desk@staging"),
        ("", "staging", "_builds.@staging"),
    ],
)
def test_each_agent_name_and_deployment_has_a_room(
    agent_name: str, deployment: str, room: str
) -> None:
    assert room_of(agent_name, deployment) == room
    assert is_rollout_room(room)


@given(st.text("ab@%4025"), st.text("ab@%4025"))
def test_no_two_of_them_have_one_room(agent_name: str, deployment: str) -> None:
    room = room_of(agent_name, deployment)
    name, _, found = room.removeprefix("_builds.").partition("@")
    assert (unquote(name), found) == (agent_name, deployment)
