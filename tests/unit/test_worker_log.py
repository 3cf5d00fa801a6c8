"""What a worker says of itself, and adds to what LiveKit logs."""

from __future__ import annotations

import inspect
import json
import logging
from typing import Any

import pytest
from livekit.agents import AgentServer

from build_aware.drain import signals
from build_aware.drain.budget import Budget
from build_aware.identity.build import Build
from build_aware.server import introduction, logs
from build_aware.settings import Untargeted

BUILD = Build("7f3c9a1e52d0", version="1.4.2")


def record(message: str = "hello", name: str = "team") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, message, None, None)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> logging.Handler:
    """The one handler of the root logger; other filters are as before after the test."""
    handler = logging.NullHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger("livekit.agents"), "filters", [])
    return handler


def test_every_record_names_the_build(root: logging.Handler) -> None:
    logs.install(BUILD.id)
    seen = record()
    assert root.filter(seen)
    assert vars(seen)["build.id"] == BUILD.id


def test_livekits_line_for_each_offer_is_left_out(root: logging.Handler) -> None:
    logs.install(BUILD.id)
    livekits = logging.getLogger("livekit.agents")
    assert not livekits.filter(record("received job request"))
    assert livekits.filter(record("registered worker"))
    # If it is another one some day, there are two lines.
    assert '"received job request"' in inspect.getsource(AgentServer._answer_availability)


def introduce(caplog: pytest.LogCaptureFixture, **options: Any) -> list[logging.LogRecord]:
    caplog.set_level(logging.INFO)
    said: dict[str, Any] = {"untargeted": "accept", "in_threads": False, "dev": False}
    introduction.introduce(BUILD, Budget.of(3300), **(said | options))
    return caplog.records


@pytest.fixture(autouse=True)
def no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "warn_of_a_shell", lambda: None)


@pytest.mark.parametrize("untargeted", ["accept", "reject"])
def test_it_says_its_build_and_the_parts_of_its_drain(
    untargeted: Untargeted, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_ = introduce(caplog, untargeted=untargeted)
    fields = vars(first)
    assert (fields["id"], fields["version"]) == (BUILD.id, "1.4.2")
    assert fields["untargeted"] == untargeted
    parts = [fields[f"drain_{part}_s"] for part in ("sessions", "shutdown", "exit")]
    assert sum(parts) == 3300


def test_one_that_takes_nothing_by_itself_says_how_to_reach_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, warning = introduce(caplog, untargeted="reject")
    assert warning.levelno == logging.WARNING
    assert json.loads(vars(warning)["metadata"]) == {"agent_build": BUILD.id}


@pytest.mark.parametrize(
    ("in_threads", "dev", "warns"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_threads_are_warned_of_in_production(
    in_threads: bool, dev: bool, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    records = introduce(caplog, in_threads=in_threads, dev=dev)
    found = [each for each in records if "threads" in each.getMessage()]
    assert len(found) == warns
