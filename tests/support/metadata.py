"""Metadata that nobody should write, but somebody will."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MAX_METADATA_BYTES = 64 * 1024
"""LiveKit's own limit for room metadata."""


def asking_for(value: Any) -> str:
    """Metadata that asks for a build, beside something of the application's own."""
    return json.dumps({"agent_build": value, "tenant": "acme"})


NAMES = st.sampled_from(["f" * 12, "other", "", "\ud800", "é" * 300])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | NAMES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "fallback", "wait", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
METADATA = st.one_of(
    st.text(),
    VALUES.map(json.dumps),
    VALUES.map(asking_for),
    st.sampled_from(
        [
            '{"agent_build": ',
            '{"agent_build": "a", "agent_build": 7, "agent_build": null}',
            '{"agent_build": {"id": "a", "wait": 1e999}}',
            '{"agent_build": {"id": "a", "wait": ' + "9" * 5000 + "}}",
            '{"agent_build": ' + "[" * 50_000,
            '{"agent_build": ' + "[" * 30_000 + "]" * 30_000 + "}",
            '{"agent_build": "' + "a" * 60_000 + '"}',
            '{"agent_build": ["' + '","'.join(["a"] * 15_000) + '"]}',
            '"agent_build"',
            '["agent_build"]',
            "\ufeff{}",
            "\0",
        ]
    ),
).map(lambda text: text.encode("utf-8", "replace")[:MAX_METADATA_BYTES].decode("utf-8", "ignore"))


def strange_metadata(count: int) -> list[str]:
    """The same `count` or so texts each time, from not JSON to nested beyond reason."""
    strange: list[str] = []

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(METADATA)
    def collect(metadata: str) -> None:
        strange.append(metadata)

    collect()
    return strange
