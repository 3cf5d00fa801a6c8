"""Which models the agent speaks with, and what is wrong with a choice."""

from __future__ import annotations

import os
import sys
from typing import Final

import pytest
from livekit.plugins import openai

from agent import models, vad
from agent.models import LOCAL_INFERENCE, PLUGINS, Models
from agent.offline import OfflineLLM

KEY: Final = {"OPENAI_API_KEY": "the-openai-key"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENT_MODELS", "OPENAI_API_KEY", LOCAL_INFERENCE):
        monkeypatch.delenv(name, raising=False)
    runs(monkeypatch, "start")


def runs(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Have the program run with these arguments."""
    monkeypatch.setattr(sys, "argv", ["agent.py", *arguments])


def is_set(monkeypatch: pytest.MonkeyPatch, **environ: str) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("arguments", "without_key", "with_key"),
    [
        (("start",), "openai", "openai"),
        (("connect",), "openai", "openai"),
        (("download-files",), "openai", "openai"),
        (("dev",), "offline", "openai"),
        (("console",), "offline", "openai"),
        (("start", "agent.py", "--dev"), "offline", "openai"),
    ],
)
def test_the_default_never_goes_mute_in_production(
    arguments: tuple[str, ...],
    without_key: Models,
    with_key: Models,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "import_plugins", lambda: None)
    runs(monkeypatch, *arguments)
    models.choose()
    assert models.chosen() == without_key
    monkeypatch.delenv("AGENT_MODELS", raising=False)
    is_set(monkeypatch, **KEY)
    models.choose()
    assert models.chosen() == with_key


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, AGENT_MODELS="", OPENAI_API_KEY="")
    assert models.chosen() == "openai"
    runs(monkeypatch, "dev")
    models.choose()
    assert models.chosen() == "offline"


@pytest.mark.parametrize("chosen", ["openai", "realtime"])
def test_models_that_need_a_key_say_so(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, AGENT_MODELS=chosen)
    (problem,) = models.problems()
    assert problem.startswith(f"OPENAI_API_KEY is not set; AGENT_MODELS={chosen} needs it")
    is_set(monkeypatch, **KEY)
    assert models.problems() == []


def test_the_default_needs_a_key() -> None:
    (problem,) = models.problems()
    assert problem.startswith("OPENAI_API_KEY is not set; AGENT_MODELS=openai needs it")


def test_offline_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, AGENT_MODELS="offline")
    assert models.problems() == []


@pytest.mark.parametrize("wrong", ["OpenAI", "clever", "\u00fcber\n"])
def test_an_unknown_choice_is_one_line_that_names_the_others(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_set(monkeypatch, AGENT_MODELS=wrong, **KEY)
    (problem,) = models.problems()
    assert problem == f"AGENT_MODELS={wrong!a}: expected one of openai, realtime, offline"
    # What runs until that is told does not fail for it.
    assert models.chosen() == "openai"


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, AGENT_MODELS="clever", **KEY)
    assert KEY["OPENAI_API_KEY"] not in str(models.problems())


@pytest.mark.parametrize("chosen", PLUGINS)
def test_the_end_of_turn_model_is_loaded_only_where_it_is_used(
    chosen: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_set(monkeypatch, AGENT_MODELS=chosen)
    models.choose()
    assert os.environ.get(LOCAL_INFERENCE) == (None if chosen == "openai" else "0")
    is_set(monkeypatch, **{LOCAL_INFERENCE: "1"})
    models.choose()
    assert os.environ[LOCAL_INFERENCE] == "1"


@pytest.mark.parametrize("chosen", PLUGINS)
def test_job_processes_share_the_plugins_of_the_choice(
    chosen: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_set(monkeypatch, AGENT_MODELS=chosen)
    detects = chosen == "openai"
    assert models.preload() == [*PLUGINS[chosen], *([vad.__name__] if detects else [])]
    assert models.load_vad() is (vad.VAD if detects else None)


@pytest.mark.parametrize(
    ("arguments", "imports"),
    [
        (("start",), False),
        (("dev",), False),
        (("console",), True),
        (("download-files",), True),
    ],
)
def test_plugins_are_imported_where_no_job_process_does_it(
    arguments: tuple[str, ...], imports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[bool] = []
    monkeypatch.setattr(models, "import_plugins", lambda: imported.append(True))
    is_set(monkeypatch, **KEY)
    runs(monkeypatch, *arguments)
    models.choose()
    assert imported == [True] * imports


def test_the_text_console_says_who_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, "console", "--text")
    models.choose()
    assert capsys.readouterr().out.startswith("Models: offline, with simple rules.")


@pytest.mark.parametrize("arguments", [("start",), ("console", "--text")])
def test_offline_is_text_only(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, AGENT_MODELS="offline")
    runs(monkeypatch, *arguments)
    made = models.create(None)
    assert not made.audio
    assert isinstance(made.options["llm"], OfflineLLM)


@pytest.mark.parametrize(
    ("chosen", "arguments", "audio", "parts"),
    [
        ("openai", ("start",), True, {"stt", "llm", "tts", "vad"}),
        ("openai", ("console",), True, {"stt", "llm", "tts", "vad"}),
        ("openai", ("console", "--text"), False, {"llm", "vad", "turn_handling"}),
        ("realtime", ("start",), True, {"llm", "vad", "turn_handling"}),
        ("realtime", ("console", "--text"), True, {"llm", "vad", "turn_handling"}),
    ],
)
def test_a_session_is_made_of_the_chosen_models(
    chosen: str,
    arguments: tuple[str, ...],
    audio: bool,
    parts: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_set(monkeypatch, AGENT_MODELS=chosen, **KEY)
    runs(monkeypatch, *arguments)
    made = models.create(None)
    assert (made.audio, set(made.options)) == (audio, parts)
    kind = openai.realtime.RealtimeModel if chosen == "realtime" else openai.LLM
    assert isinstance(made.options["llm"], kind)
