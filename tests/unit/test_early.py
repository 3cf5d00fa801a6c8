"""Which programs are about to run a worker: importing this package is harmless in all others."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import build_aware
from build_aware import early
from build_aware.drain import starting
from build_aware.early import LIVEKIT, OURS, runs_a_worker
from build_aware.identity import whose
from build_aware.server import forkserver


def script(file: str | None = "agent.py") -> ModuleType:
    """`__main__` of `python agent.py`; None: of `python -c` or a prompt."""
    main = ModuleType("__main__")
    main.__spec__ = None
    if file is not None:
        main.__file__ = file
    return main


def module(name: str) -> ModuleType:
    """`__main__` of `python -m`."""
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(name, None)
    main.__file__ = "/somewhere/__main__.py"
    return main


@pytest.mark.parametrize(
    ("main", "arguments", "runs"),
    [
        (script(), ["start"], True),
        (script(), ["start", "--log-level", "debug"], True),
        (script(), ["dev", "--no-reload"], True),
        (script(), ["dev", "--url", "ws://x", "--no-reload"], True),
        # It watches, and starts another one.
        (script(), ["dev"], False),
        (script(), ["console"], False),
        (script(), ["connect", "--room", "x"], False),
        (script(), ["download-files"], False),
        (script(), ["build"], False),
        (script(), ["build", "start"], False),
        (script(), ["rehearse"], False),
        (script(), ["--help"], False),
        (script(), [], False),
        (module(LIVEKIT), ["start", "agent.py"], True),
        (module(LIVEKIT), ["start", "agent.py", "--dev"], True),
        (module(LIVEKIT), ["download-files"], False),
        (module(LIVEKIT), ["console", "agent.py"], False),
        (module(OURS), ["start", "agent.py"], True),
        (module(OURS), ["dev", "agent.py"], False),
        (module(OURS), ["dev", "agent.py", "--no-reload"], True),
        (module(OURS), ["build", "agent.py"], False),
        (module("pytest.__main__"), ["start"], False),
        (module("agent.__main__"), ["start"], False),
        (script("/usr/bin/pytest"), ["start"], False),
        (script(None), ["start"], False),
        (None, ["start"], False),
        (SimpleNamespace(), ["start"], False),
    ],
)
def test_which_programs_run_a_worker(main: Any, arguments: list[str], runs: bool) -> None:
    assert runs_a_worker(main, arguments) is runs


def is_program(monkeypatch: pytest.MonkeyPatch, main: Any, *arguments: str) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["program", *arguments])


@pytest.mark.parametrize(
    ("main", "arguments", "file"),
    [
        (script("/app/agent.py"), ("start",), "/app/agent.py"),
        (script("/app/agent.py"), ("build",), None),
        (module(LIVEKIT), ("start", "/app/agent.py"), "/app/agent.py"),
        (module(LIVEKIT), ("start", "--dev", "/app/agent.py"), "/app/agent.py"),
        # LiveKit looks for one.
        (module(LIVEKIT), ("start",), None),
        (module(OURS), ("start", "/app/agent.py"), "/app/agent.py"),
    ],
)
def test_the_file_of_the_agent(
    main: ModuleType, arguments: tuple[str, ...], file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_program(monkeypatch, main, *arguments)
    assert early.program() == (None if file is None else Path(file))


def test_a_job_process_runs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    is_program(monkeypatch, script(), "start")
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert early.program() is None


def test_nor_does_what_is_imported_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    is_program(monkeypatch, script(), "start")
    monkeypatch.setattr(threading, "main_thread", object)
    assert early.program() is None


def test_these_tests_run_no_worker() -> None:
    assert early._PROGRAM is None


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done that only a worker needs."""
    happened: list[str] = []
    monkeypatch.setattr(starting, "stop_means_exit", lambda: happened.append("signals"))
    monkeypatch.setattr(gc, "disable", lambda: happened.append("gc"))
    monkeypatch.setattr(whose, "look_early", lambda file: happened.append(f"hashed {file}"))
    monkeypatch.setattr(forkserver, "fork", lambda: happened.append("forked"))
    monkeypatch.setattr(starting, "run_by_livekit", False)
    return happened


def test_nothing_happens_in_other_programs(happened: list[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    early.begin()
    early.livekit_is_imported()
    assert happened == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("by_livekit", [False, True])
def test_a_worker_is_prepared_before_the_teams_code_runs(
    by_livekit: bool, happened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "_PROGRAM", Path("/app/agent.py"))
    monkeypatch.setattr(early, "_acted", False)
    monkeypatch.setitem(sys.modules, "__main__", module(LIVEKIT) if by_livekit else script())
    early.begin()
    assert happened == ["signals", "gc"]
    early.livekit_is_imported()
    # The build is what it was then, and what is forked need not hash it.
    assert happened[2:] == ["hashed /app/agent.py", "forked"]
    early.livekit_is_imported()
    assert len(happened) == 4
    assert starting.run_by_livekit is by_livekit


def test_all_is_imported_when_the_fork_server_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job process that imports the server again must not fork another one."""
    monkeypatch.delitem(vars(build_aware), "AgentServer", raising=False)
    there: list[bool] = []
    monkeypatch.setattr(
        early, "livekit_is_imported", lambda: there.append("AgentServer" in vars(build_aware))
    )
    _ = build_aware.AgentServer
    _ = build_aware.AgentServer
    assert there == [True]
