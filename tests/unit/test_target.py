from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from build_aware.dispatch.target import (
    DEFAULT_WAIT,
    KEY,
    MAX_WAIT,
    Asked,
    Malformed,
    Target,
    Untargeted,
    asked_by,
    beside,
    of_value,
    parse,
)
from tests.support.metadata import METADATA

LONGEST_FOUND: Final = 100
SIXTY_FOUR_KIB: Final = 64 * 1024


def with_key(value_as_json: str) -> str:
    return f'{{"{KEY}": {value_as_json}}}'


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ('"7f3c9a1e52d0"', Target(("7f3c9a1e52d0",))),
        ('["7f3c9a1e52d0", "1.4.2"]', Target(("7f3c9a1e52d0", "1.4.2"))),
        ('["a", "a"]', Target(("a", "a"))),
        ('{"id": "a"}', Target(("a",))),
        ('{"id": ["a", "b"]}', Target(("a", "b"))),
        ('{"id": "a", "fallback": "none"}', Target(("a",), "none")),
        ('{"id": "a", "fallback": "any"}', Target(("a",), "any", DEFAULT_WAIT)),
        (
            '{"id": "a", "fallback": "any", "wait": 5}',
            Target(("a",), "any", timedelta(seconds=5)),
        ),
        ('{"wait": 0.5, "id": "a"}', Target(("a",), "none", timedelta(seconds=0.5))),
        ('{"id": "a", "wait": 0}', Target(("a",), "none", timedelta(0))),
        ('{"id": "a", "wait": 3600}', Target(("a",), "none", MAX_WAIT)),
        ('"any"', Target(("any",))),
        ('"\\u00fcber \\ud83d\\ude80"', Target(("über 🚀",))),
    ],
)
def test_every_form_of_the_contract_is_read(value: str, target: Target) -> None:
    assert parse(with_key(value)) == target


def test_only_the_target_serves_unless_a_fallback_is_asked_for() -> None:
    assert Target(("a",)).fallback == "none"
    assert timedelta(seconds=20) == DEFAULT_WAIT


def test_other_keys_belong_to_the_application() -> None:
    metadata = json.dumps({"user": {KEY: 5}, KEY: "a", "": None, "id": "b"})
    assert parse(metadata) == Target(("a",))


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param('{"\\u0061gent_build": "a"}', id="one letter escaped"),
        pytest.param(
            "{" + '"' + "".join(f"\\u{ord(c):04x}" for c in KEY) + '": "a"}', id="all escaped"
        ),
        pytest.param('\n\t {"agent_build"\n:\r "a"} ', id="spread out"),
    ],
)
def test_the_key_is_found_however_json_spells_it(metadata: str) -> None:
    assert parse(metadata) == Target(("a",))


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parse('{"agent_build": "a", "agent_build": "b"}') == Target(("b",))
    assert isinstance(parse('{"agent_build": "a", "agent_build": 1}'), Malformed)
    assert parse('{"agent_build": {"id": "a", "id": "b"}}') == Target(("b",))


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param("hello", id="words"),
        pytest.param("agent_build", id="the key as a word"),
        pytest.param("agent_build=7f3c9a1e52d0", id="not JSON"),
        pytest.param("{'agent_build': 'a'}", id="Python, not JSON"),
        pytest.param('{"agent_build": "a"', id="JSON cut short"),
        pytest.param('{"agent_build": "a"} x', id="JSON and more"),
        pytest.param('\ufeff{"agent_build": "a"}', id="a byte order mark"),
        pytest.param("{}", id="no key"),
        pytest.param('{"agent": "agent_build"}', id="the key as a value"),
        pytest.param('{"Agent_build": "a"}', id="the key in another case"),
        pytest.param('{"agent_build ": "a"}', id="the key with a space"),
        pytest.param('{"nested": {"agent_build": "a"}}', id="the key further down"),
        pytest.param('"agent_build"', id="a string"),
        pytest.param('["agent_build"]', id="a list"),
        pytest.param('[{"agent_build": "a"}]', id="a list with an object"),
        pytest.param("null", id="null"),
        pytest.param("5", id="a number"),
        pytest.param('{"path": "C:\\\\"}', id="a backslash"),
    ],
)
def test_metadata_without_the_key_is_untargeted(metadata: str) -> None:
    assert parse(metadata) == Untargeted()


def test_a_target_beside_a_number_beyond_reason_still_counts() -> None:
    assert parse('{"agent_build": "a", "x": ' + "9" * 5000 + "}") == Target(("a",))


def test_metadata_nested_beyond_reason_is_malformed_and_not_silently_ignored() -> None:
    assert isinstance(parse('{"agent_build": "a", "x": ' + "[" * 100_000), Malformed)


MALFORMED: Final = (
    "5",
    "1e3",
    "null",
    "true",
    "false",
    '""',
    "{}",
    "[]",
    "[1]",
    '[""]',
    "[null]",
    '["a", 1]',
    '["a", ""]',
    '[["a"]]',
    '[{"id": "a"}]',
    "NaN",
    "Infinity",
    str(10**400),
    '{"name": "a"}',
    '{"fallback": "any", "wait": 20}',
    '{"id": null}',
    '{"id": ""}',
    '{"id": []}',
    '{"id": 7}',
    '{"id": {"id": "a"}}',
    '{"id": "a", "unknown": 1}',
    '{"id": "a", "Wait": 1}',
    '{"id": "a", "fallback": "all"}',
    '{"id": "a", "fallback": "Any"}',
    '{"id": "a", "fallback": ""}',
    '{"id": "a", "fallback": null}',
    '{"id": "a", "fallback": true}',
    '{"id": "a", "fallback": ["any"]}',
    '{"id": "a", "fallback": {}}',
    '{"id": "a", "wait": -1}',
    '{"id": "a", "wait": -0.001}',
    '{"id": "a", "wait": 3600.001}',
    '{"id": "a", "wait": 3601}',
    '{"id": "a", "wait": NaN}',
    '{"id": "a", "wait": Infinity}',
    '{"id": "a", "wait": -Infinity}',
    '{"id": "a", "wait": 1e999}',
    '{"id": "a", "wait": true}',
    '{"id": "a", "wait": false}',
    '{"id": "a", "wait": "20"}',
    '{"id": "a", "wait": null}',
    '{"id": "a", "wait": [20]}',
    f'{{"id": "a", "wait": {10**400}}}',
    f'{{"id": "a", "wait": -{10**400}}}',
    '{"id": "a", "\\ud800": "über"}',
    '["\\ud800", 1]',
    json.dumps(["a" * SIXTY_FOUR_KIB, 1]),
)


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: value[:40])
def test_any_other_value_is_malformed_and_safe_to_show(value: str) -> None:
    asked = parse(with_key(value))
    assert isinstance(asked, Malformed)
    assert_safe_to_show(asked)


def test_what_was_found_is_shown_as_it_was_written() -> None:
    assert parse(with_key('["a", 1]')) == Malformed('["a", 1]')


def test_a_value_too_deep_to_print_is_named_by_its_type() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert of_value(value) == Malformed("list")


def assert_safe_to_show(asked: Malformed) -> None:
    assert asked.found
    assert asked.found.isascii()
    assert asked.found.isprintable()
    assert len(asked.found) <= LONGEST_FOUND


@pytest.mark.parametrize(
    ("dispatch", "room", "asked"),
    [
        ("", "", Untargeted()),
        ("", with_key('"b"'), Target(("b",))),
        ("not JSON", with_key('"b"'), Target(("b",))),
        ('{"other": 1}', with_key('"b"'), Target(("b",))),
        (with_key('"a"'), "", Target(("a",))),
        (with_key('"a"'), with_key('"b"'), Target(("a",))),
        (with_key("5"), with_key('"b"'), Malformed("5")),
        ("", with_key("5"), Malformed("5")),
        (with_key('"a"'), with_key("5"), Target(("a",))),
    ],
)
def test_dispatch_metadata_wins(dispatch: str, room: str, asked: Asked) -> None:
    assert asked_by(dispatch_metadata=dispatch, room_metadata=room) == asked


@pytest.mark.parametrize(
    ("names", "met"),
    [
        (("a",), True),
        (("b", "a"), True),
        (("b",), False),
        (("A",), False),
        (("b", "c"), False),
        (("any",), True),
        (("b", "any"), True),
        (("Any",), False),
        (("anything",), False),
    ],
)
def test_a_target_is_met_by_one_of_its_names_or_by_any(names: tuple[str, ...], met: bool) -> None:
    assert Target(names).met_by(lambda name: name == "a") is met


# Whatever others write, reading it never raises

CHARACTERS: Final = st.characters(exclude_categories=())
"""Every character, lone surrogates among them."""

TEXTS: Final = st.text(CHARACTERS, max_size=200)

VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)

NEAR_MISSES: Final = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "any", "", ["a"], []]) | VALUES,
        "fallback": st.sampled_from(["none", "any"]) | VALUES,
        "wait": st.floats() | st.integers() | VALUES,
        "other": VALUES,
    },
)


def assert_read(asked: Asked) -> None:
    assert isinstance(asked, Target | Untargeted | Malformed)
    if isinstance(asked, Malformed):
        assert_safe_to_show(asked)
    if isinstance(asked, Target):
        assert asked.names
        assert all(isinstance(name, str) and name for name in asked.names)
        assert asked.fallback in ("none", "any")
        assert timedelta(0) <= asked.wait <= MAX_WAIT


@given(metadata=TEXTS | TEXTS.map(with_key) | TEXTS.map(lambda text: f"{text}\\{KEY}"))
@example(metadata="[" * 100_000)
@example(metadata=KEY + "[" * 100_000)
@example(metadata="\\" + "[" * 100_000)
@example(metadata=with_key("[" * 100_000 + "]" * 100_000))
@example(metadata=f'{{"{KEY}": ' * 100_000)
@example(metadata=with_key("9" * SIXTY_FOUR_KIB))
@example(metadata=with_key('"' + "a" * SIXTY_FOUR_KIB + '"'))
@example(metadata=with_key('["' + "\ud800" * SIXTY_FOUR_KIB + '", 1]'))
@example(metadata=with_key('["\0", 1]'))
def test_reading_any_text_gives_one_of_three_answers(metadata: str) -> None:
    assert_read(parse(metadata))


@given(value=VALUES | NEAR_MISSES, ascii_only=st.booleans())
def test_reading_any_json_value_gives_a_target_or_says_it_is_none(
    value: Any, ascii_only: bool
) -> None:
    asked = parse(json.dumps({KEY: value}, ensure_ascii=ascii_only))
    assert not isinstance(asked, Untargeted)
    assert_read(asked)


@given(depth=st.integers(1, 3000), opening=st.sampled_from(["[", '{"id": ']))
def test_reading_any_depth_gives_one_of_three_answers(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    assert_read(parse(with_key(opening * depth + "1" + closing * depth)))


# What is beside the target


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("", ""),
        ("{}", ""),
        ('{"agent_build": "build-A"}', ""),
        ('{"agent_build": 5}', ""),
        ('{"agent_build": "build-A", "b": 1, "a": [2]}', '{"a": [2], "b": 1}'),
        ('{ "b":1,"a":[2] }', '{"a": [2], "b": 1}'),
        ('\n {"agent_build": "build-A", "b": 1}', '{"b": 1}'),
        ('{"agent\\u005fbuild": "build-A"}', ""),
        ('{"tenant": {"agent_build": "build-A"}}', '{"tenant": {"agent_build": "build-A"}}'),
        ("free text", "free text"),
        ("agent_build", "agent_build"),
        ('["agent_build"]', '["agent_build"]'),
        ('{"agent_build": ', '{"agent_build": '),
    ],
)
def test_what_metadata_says_beside_the_target(metadata: str, said: str) -> None:
    assert beside(metadata) == said


@given(METADATA)
def test_it_never_raises_and_says_the_same_of_what_it_said(metadata: str) -> None:
    assert beside(beside(metadata)) == beside(metadata)
