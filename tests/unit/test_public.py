"""What a team sees of this package: its names, and the agent server."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from pathlib import Path
from typing import Any, Final

import livekit.agents
import pytest
from livekit.agents import JobContext, JobRequest, WorkerOptions
from livekit.agents.worker import ServerType

import build_aware
from build_aware import (
    AgentServer,
    Build,
    Options,
    cli,
    current_build,
    livekit_private,
    settings,
)
from build_aware.drain import signals
from build_aware.identity import whose
from build_aware.job.entrypoint import Entrypoint, SessionEnd
from build_aware.server import agent_server as module
from build_aware.settings import SettingsError

SERVER: Final = {
    "LIVEKIT_URL": "ws://environment",
    "LIVEKIT_API_KEY": "the-api-key",
    "LIVEKIT_API_SECRET": "the-api-secret",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "AGENT_")):
            monkeypatch.delenv(name)


def is_set(monkeypatch: pytest.MonkeyPatch, **environ: str) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


# The names


def test_the_public_names_are_these() -> None:
    assert build_aware.__all__ == ["AgentServer", "Build", "Options", "cli", "current_build"]
    assert set(build_aware.__all__) <= set(dir(build_aware))
    assert {*cli.__all__} == {"load_env", "run_app"}


def test_a_name_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="'build_aware' has no attribute 'Agentserver'"):
        getattr(build_aware, "Agentserver")  # noqa: B009


def test_outside_a_job_there_is_no_build_that_serves() -> None:
    with pytest.raises(RuntimeError, match="no job context"):
        current_build()


# The agent server


def test_livekits_keywords_are_unchanged() -> None:
    ours, theirs = AgentServer, livekit.agents.AgentServer
    server = ours(drain_timeout=60, ws_url="ws://code", port=1234)
    assert isinstance(server, theirs)
    assert livekit_private.credentials(server)[0] == "ws://code"
    with pytest.raises(TypeError, match="unexpected keyword argument 'drain_time'"):
        ours(drain_time=60)
    with pytest.raises(TypeError):
        ours(Options())  # type: ignore[call-arg]


def test_livekits_decorator_is_unchanged() -> None:
    """What livekit-agents adds to it in another release is passed on."""
    theirs = inspect.signature(livekit.agents.AgentServer.rtc_session).parameters
    ours = inspect.signature(AgentServer.rtc_session).parameters
    for name in ("func", "type", "on_request", "on_session_end"):
        assert theirs[name].default == ours[name].default
        assert theirs[name].kind == ours[name].kind


async def serve(ctx: JobContext) -> None: ...


async def on_request(request: JobRequest) -> None: ...


async def on_end(ctx: JobContext) -> None: ...


@pytest.mark.parametrize("as_decorator", [False, True])
def test_a_session_is_registered_with_ours_around_it(as_decorator: bool) -> None:
    server = AgentServer()
    options: dict[str, Any] = {
        "agent_name": "support",
        "type": ServerType.PUBLISHER,
        "on_request": on_request,
        "on_session_end": on_end,
    }
    register: Any = server.rtc_session
    found = register(**options)(serve) if as_decorator else register(serve, **options)
    # A job process looks for the function by its name, and must find the function.
    assert found is serve
    assert livekit_private.agent_name(server) == "support"
    assert server._server_type is ServerType.PUBLISHER
    assert server._entrypoint_fnc == Entrypoint(serve)
    assert server._session_end_fnc == SessionEnd(on_end)
    assert server._request_fnc == server._on_request


def test_one_session_only_as_with_livekit() -> None:
    server = AgentServer()
    server.rtc_session(serve)
    with pytest.raises(RuntimeError, match="only one rtc_session"):
        server.rtc_session(serve)


def test_livekits_older_options_make_one_of_ours() -> None:
    server = AgentServer.from_server_options(WorkerOptions(serve, agent_name="support"))
    assert isinstance(server, AgentServer)
    assert server._entrypoint_fnc == Entrypoint(serve)
    assert livekit_private.agent_name(server) == "support"


def test_the_constructor_adds_no_reading_of_files_environment_or_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each job process runs the team's module again."""
    reads: list[str] = []
    monkeypatch.setattr(settings, "load", lambda *_: reads.append("environment"))
    monkeypatch.setattr(whose, "identify", lambda *_, **__: reads.append("files"))
    monkeypatch.setattr(signals, "StopSignals", lambda *_: reads.append("signals"))
    AgentServer(aware=Options(max_sessions=3)).rtc_session(serve)
    assert reads == []


def test_a_worker_that_does_not_run_has_no_status() -> None:
    with pytest.raises(RuntimeError, match="does not run"):
        AgentServer().status()


async def test_one_that_never_ran_has_nothing_to_drain() -> None:
    async with asyncio.timeout(10):
        await AgentServer().drain()


def test_the_build_is_that_of_the_entrypoints_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AgentServer()
    server.rtc_session(serve)
    is_set(monkeypatch, AGENT_BUILD_ID="release-10")
    assert server.build == Build(
        "release-10",
        version=server.build.version,
        commit=server.build.commit,
        dirty=server.build.dirty,
        origin="env",
    )
    # Once for all: a worker's files may change under it.
    is_set(monkeypatch, AGENT_BUILD_ID="release-11")
    assert server.build.id == "release-10"


def test_a_wrong_build_id_is_told_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, AGENT_BUILD_ID="re lease")
    with pytest.raises(SettingsError, match="AGENT_BUILD_ID"):
        _ = AgentServer().build


class Callable_:  # noqa: N801
    """An object that LiveKit takes for a function."""

    async def __call__(self, ctx: JobContext) -> None: ...

    async def method(self, ctx: JobContext) -> None: ...


@functools.wraps(serve)
async def wrapped(ctx: JobContext) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        serve,
        wrapped,
        functools.partial(serve),
        functools.partial(functools.partial(serve)),
        Callable_(),
        Callable_().method,
        lambda ctx: serve(ctx),  # noqa: PLW0108
    ],
    ids=["function", "wrapped", "partial", "of-a-partial", "object", "method", "lambda"],
)
def test_whatever_runs_a_session_was_written_somewhere(function: Any) -> None:
    found = module._file_of(function)
    assert found is not None
    assert found.samefile(__file__)


def test_what_was_written_nowhere_leaves_it_to_the_program() -> None:
    assert module._file_of(len) is None
    assert module._file_of(None) is None


# What it is set to


def settings_of(server: AgentServer, command: Any = "start") -> Any:
    return server.settings_for(command)


def test_what_the_code_says_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, **SERVER, AGENT_DRAIN_TIMEOUT="50", AGENT_MAX_SESSIONS="9")
    server = AgentServer(
        aware=Options(max_sessions=3),
        ws_url="ws://code",
        api_key="key",
        api_secret="secret",  # noqa: S106
        drain_timeout=60,
    )
    found = settings_of(server)
    assert found.credentials == ("ws://code", "key", "secret")
    assert (found.drain_timeout_s, found.max_sessions) == (60, 3)


def test_what_the_code_does_not_say_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, **SERVER, AGENT_DRAIN_TIMEOUT="50", AGENT_MAX_SESSIONS="9")
    found = settings_of(AgentServer())
    assert found.credentials[0] == "ws://environment"
    assert (found.drain_timeout_s, found.max_sessions) == (50, 9)
    assert settings_of(AgentServer(), "console").drain_timeout_s == 50


def test_what_is_said_later_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    is_set(monkeypatch, **SERVER)
    server = AgentServer(drain_timeout=60)
    server.update_options(drain_timeout=70, ws_url="ws://later")
    found = settings_of(server)
    assert (found.drain_timeout_s, found.url) == (70, "ws://later")


def test_code_may_say_all_that_the_environment_does_not() -> None:
    server = AgentServer(ws_url="ws://code", api_key="key", api_secret="secret")  # noqa: S106
    assert settings_of(server).url == "ws://code"


def test_all_that_is_wrong_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    is_set(monkeypatch, AGENT_MAX_SESSIONS="0")
    server = AgentServer(aware=Options(check=lambda: ["THEIRS is not set"]), drain_timeout=5)
    with pytest.raises(SystemExit) as ended:
        settings_of(server)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("build-aware: ").split("=")[0].split()[0] for line in lines] == [
        "AGENT_MAX_SESSIONS",
        "AGENT_DRAIN_TIMEOUT",
        "LIVEKIT_URL",
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_SECRET",
        "THEIRS",
    ]


def test_a_livekit_agents_that_lacks_something_is_told_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(_: Any) -> Any:
        raise AttributeError("_ws_url")

    monkeypatch.setattr(livekit_private, "problems", lambda: ["livekit-agents has no _ws_url"])
    monkeypatch.setattr(livekit_private, "credentials", gone)
    with pytest.raises(SystemExit) as ended:
        settings_of(AgentServer())
    assert ended.value.code == 2
    assert capsys.readouterr().err == "build-aware: livekit-agents has no _ws_url\n"


async def test_a_server_without_a_session_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    is_set(monkeypatch, **SERVER)
    with pytest.raises(SystemExit) as ended:
        await AgentServer().run()
    assert ended.value.code == 2
    assert "decorate one with @server.rtc_session()" in capsys.readouterr().err
