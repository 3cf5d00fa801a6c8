from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal, get_args

import pytest

from agent import session
from build_aware.settings import (
    ASKING,
    CONNECTING,
    RUNNING,
    VARIABLES,
    Command,
    Options,
    Settings,
    SettingsError,
    load,
    misspelt,
)
from tests.support.paths import ROOT

SERVER: Final = {
    "LIVEKIT_URL": "wss://my-project.livekit.cloud",
    "LIVEKIT_API_KEY": "the-api-key",
    "LIVEKIT_API_SECRET": "the-api-secret",
}
SECRETS: Final = ("the-api-key", "the-api-secret")

COMMANDS: Final[tuple[Command, ...]] = get_args(Command)


def problems_of(environ: Mapping[str, str], command: Command = "build") -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        load(environ, command)
    for problem in error.value.problems:
        assert problem in str(error.value)
    return error.value.problems


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load({}, "build")
    assert settings.model_dump() == {
        "url": None,
        "api_key": None,
        "api_secret": None,
        "deployment": None,
        "build_id": None,
        "build_commit": None,
        "untargeted": None,
        "adoption": "auto",
        "rollout": None,
        "max_sessions": None,
        "health_port": None,
        "status_port": None,
        "join_timeout_s": None,
        "end_with_last_user": "drain",
        "presence": False,
        "drain_timeout_s": 3300,
    }


def test_every_variable_is_read() -> None:
    values = SERVER | {
        "LIVEKIT_AGENT_DEPLOYMENT": "blue",
        "AGENT_BUILD_ID": "release-10",
        "AGENT_BUILD_COMMIT": "0123abc",
        "AGENT_UNTARGETED": "reject",
        "AGENT_ADOPTION": "off",
        "AGENT_ROLLOUT": "manual",
        "AGENT_MAX_SESSIONS": "12",
        "AGENT_HEALTH_PORT": "0",
        "AGENT_STATUS_PORT": "9000",
        "AGENT_JOIN_TIMEOUT": "12.5",
        "AGENT_DRAIN_TIMEOUT": "60",
    }
    assert set(values) == set(VARIABLES)
    settings = load(values, "start")
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "the-api-key"
    assert settings.api_secret is not None
    assert settings.api_secret.get_secret_value() == "the-api-secret"
    hidden = {"api_key", "api_secret"}
    assert settings.model_dump(exclude=hidden) == {
        "url": "wss://my-project.livekit.cloud",
        "deployment": "blue",
        "build_id": "release-10",
        "build_commit": "0123abc",
        "untargeted": "reject",
        "adoption": "off",
        "rollout": "manual",
        "max_sessions": 12,
        "health_port": 0,
        "status_port": 9000,
        "join_timeout_s": 12.5,
        "end_with_last_user": "drain",
        "presence": False,
        "drain_timeout_s": 60,
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_variable_counts_as_unset(command: Command) -> None:
    with_empty = SERVER | {name: "" for name in VARIABLES if name not in SERVER}
    assert load(with_empty, command) == load(SERVER, command)


def test_empty_credentials_are_missing_ones() -> None:
    assert problems_of(dict.fromkeys(VARIABLES, ""), "start") == problems_of({}, "start")


def test_every_problem_is_named_at_once() -> None:
    environ = {
        "LIVEKIT_URL": "my-project.livekit.cloud",
        "AGENT_BUILD_ID": "not/legal",
        "AGENT_BUILD_COMMIT": "HEAD",
        "AGENT_UNTARGETED": "maybe",
        "AGENT_MAX_SESSIONS": "0",
        "AGENT_HEALTH_PORT": "70000",
        "AGENT_STATUS_PORT": "http",
        "AGENT_JOIN_TIMEOUT": "0",
        "AGENT_DRAIN_TIMEOUT": "soon",
    }
    problems = problems_of(environ, "start")
    named = [re.match(r"[A-Z_]+", problem) for problem in problems]
    assert sorted(match.group() for match in named if match) == sorted(
        [*environ, "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LIVEKIT_URL", "my-project.livekit.cloud", "expected a URL such as wss://"),
        ("LIVEKIT_URL", "localhost:7880", "expected a URL such as wss://"),
        ("LIVEKIT_URL", "ftp://localhost", "expected a URL such as wss://"),
        ("LIVEKIT_URL", "wss://", "expected a URL such as wss://"),
        ("LIVEKIT_URL", "wss://[", "expected a URL"),
        ("LIVEKIT_URL", "ws://host:notaport", "expected a URL"),
        ("LIVEKIT_URL", "ws://ho st", "expected a URL"),
        ("LIVEKIT_URL", "ws://host\n", "expected a URL"),
        ("AGENT_BUILD_ID", "-a", "1 to 63 letters, digits, dots and dashes"),
        ("AGENT_BUILD_ID", "a b", "1 to 63 letters, digits, dots and dashes"),
        ("AGENT_BUILD_ID", "a_b", "1 to 63 letters, digits, dots and dashes"),
        ("AGENT_BUILD_ID", "a\n", "1 to 63 letters, digits, dots and dashes"),
        ("AGENT_BUILD_ID", "\u00fcber", "1 to 63 letters, digits, dots and dashes"),
        ("AGENT_BUILD_ID", "a" * 64, "1 to 63 letters, digits, dots and dashes"),
        ("AGENT_BUILD_ID", "any", "every build answers to this name"),
        ("LIVEKIT_AGENT_DEPLOYMENT", "any", "every build answers to this name"),
        ("AGENT_BUILD_COMMIT", "012345", "7 to 64 lower-case hex digits"),
        ("AGENT_BUILD_COMMIT", "0123ABC", "7 to 64 lower-case hex digits"),
        ("AGENT_BUILD_COMMIT", "0123abc\n", "7 to 64 lower-case hex digits"),
        ("AGENT_BUILD_COMMIT", "0" * 65, "7 to 64 lower-case hex digits"),
        ("AGENT_UNTARGETED", "yes", "'accept' or 'reject'"),
        ("AGENT_MAX_SESSIONS", "0", "greater than or equal to 1"),
        ("AGENT_MAX_SESSIONS", "1001", "less than or equal to 1000"),
        ("AGENT_MAX_SESSIONS", "many", "valid integer"),
        ("AGENT_MAX_SESSIONS", "1.5", "valid integer"),
        ("AGENT_HEALTH_PORT", "-1", "greater than or equal to 0"),
        ("AGENT_HEALTH_PORT", "65536", "less than or equal to 65535"),
        ("AGENT_STATUS_PORT", "-1", "greater than or equal to 0"),
        ("AGENT_STATUS_PORT", "65536", "less than or equal to 65535"),
        ("AGENT_JOIN_TIMEOUT", "0.5", "greater than or equal to 1"),
        ("AGENT_JOIN_TIMEOUT", "86401", "less than or equal to 86400"),
        ("AGENT_JOIN_TIMEOUT", "nan", "less than or equal to 86400"),
        ("AGENT_DRAIN_TIMEOUT", "9.9", "greater than or equal to 10"),
        ("AGENT_DRAIN_TIMEOUT", "86401", "less than or equal to 86400"),
        ("AGENT_DRAIN_TIMEOUT", "1h", "valid number"),
        ("AGENT_DRAIN_TIMEOUT", "inf", "less than or equal to 86400"),
        ("AGENT_DRAIN_TIMEOUT", "nan", "less than or equal to 86400"),
    ],
)
def test_a_problem_names_the_variable_what_was_found_and_what_is_expected(
    name: str, value: str, expected: str
) -> None:
    (problem,) = problems_of({name: value})
    assert problem.startswith(f"{name}={value!a}: ")
    assert expected.lower() in problem.lower()
    assert problem.isascii()
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIVEKIT_URL", "ws://localhost:7880"),
        ("LIVEKIT_URL", "https://livekit.example.com/path"),
        ("LIVEKIT_URL", "http://[::1]:7880"),
        ("AGENT_BUILD_ID", "a"),
        ("AGENT_BUILD_ID", "1.10.0-rc.1"),
        ("AGENT_BUILD_ID", "A" * 63),
        ("AGENT_BUILD_COMMIT", "0123abc"),
        ("AGENT_BUILD_COMMIT", "0" * 64),
        ("AGENT_MAX_SESSIONS", "1"),
        ("AGENT_MAX_SESSIONS", "1000"),
        ("AGENT_HEALTH_PORT", "65535"),
        ("AGENT_STATUS_PORT", "0"),
        ("AGENT_STATUS_PORT", "65535"),
        ("AGENT_JOIN_TIMEOUT", "1.0"),
        ("AGENT_JOIN_TIMEOUT", "86400.0"),
        ("AGENT_DRAIN_TIMEOUT", "10.0"),
        ("AGENT_DRAIN_TIMEOUT", "86400.0"),
    ],
)
def test_a_legal_value_is_taken_as_it_is(name: str, value: str) -> None:
    settings = load({name: value}, "build")
    assert str(settings.model_dump(by_alias=True)[name]) == value


@pytest.mark.parametrize("command", COMMANDS)
def test_only_commands_that_connect_or_ask_need_a_server(command: Command) -> None:
    if command in CONNECTING | ASKING:
        named = [problem.split()[0] for problem in problems_of({}, command)]
        assert named == ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]
    else:
        assert load({}, command).url is None


def test_the_commands_that_connect_are_livekits_workers() -> None:
    assert {"start", "dev", "connect"} == CONNECTING


# What the team's code says


SAID: Final = Options(
    untargeted="reject",
    adoption="off",
    rollout="manual",
    end_with_last_user="always",
    join_timeout=timedelta(minutes=2),
    presence=True,
    max_sessions=3,
    status_port=0,
)


def test_what_code_says_wins_over_the_environment() -> None:
    environ = SERVER | {
        "AGENT_UNTARGETED": "accept",
        "AGENT_ADOPTION": "on",
        "AGENT_JOIN_TIMEOUT": "10",
        "AGENT_MAX_SESSIONS": "9",
        "AGENT_STATUS_PORT": "9000",
        "AGENT_DRAIN_TIMEOUT": "60",
    }
    settings = load(environ, "start", SAID)
    assert settings.untargeted == "reject"
    assert settings.adoption == "off"
    assert settings.end_with_last_user == "always"
    assert settings.join_timeout_s == 120
    assert settings.presence
    assert settings.max_sessions == 3
    assert settings.status_port == 0
    assert settings.drain_timeout_s == 60


def test_every_option_can_be_said() -> None:
    """Those that are no settings are named here."""
    said = {
        each.name for each in dataclasses.fields(Options) if getattr(SAID, each.name) is not None
    }
    assert said == {each.name for each in dataclasses.fields(Options)} - {"check"}


def test_what_code_does_not_say_is_left_to_the_environment() -> None:
    environ = SERVER | {"AGENT_MAX_SESSIONS": "9"}
    assert load(environ, "start", Options()) == load(environ, "start")
    assert load(environ, "start", Options(status_port=1)).max_sessions == 9


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_team_checks_is_told_with_the_rest(command: Command) -> None:
    options = Options(check=lambda: ["THEIRS is not set", "THEIRS_TOO is not set"])
    environ = SERVER | {"AGENT_MAX_SESSIONS": "0"}
    with pytest.raises(SettingsError) as error:
        load(environ, command, options)
    ours, *theirs = error.value.problems
    assert ours.startswith("AGENT_MAX_SESSIONS=")
    # Nothing of the team's runs in the other commands.
    told = command in RUNNING
    assert theirs == (["THEIRS is not set", "THEIRS_TOO is not set"] if told else [])


def test_the_commands_that_run_sessions() -> None:
    assert CONNECTING | {"console"} == RUNNING


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"untargeted": "refuse"}, "untargeted='refuse': expected one of accept, reject"),
        ({"adoption": True}, "adoption=True: expected one of auto, on, off"),
        (
            {"end_with_last_user": "draining"},
            "end_with_last_user='draining': expected one of drain, always, never",
        ),
        ({"max_sessions": 0}, "max_sessions=0: expected 1 or more"),
        ({"join_timeout": timedelta(0)}, "join_timeout=0:00:00: expected more than 0"),
        ({"join_timeout": timedelta(seconds=-1)}, "expected more than 0"),
        ({"status_port": -1}, "status_port=-1: expected 0 to 65535"),
        ({"status_port": 65536}, "status_port=65536: expected 0 to 65535"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(said: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        Options(**said)


def test_options_are_named_and_do_not_change() -> None:
    with pytest.raises(TypeError):
        Options("accept")  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAID.max_sessions = 7  # type: ignore[misc]


# Secrets


def test_settings_never_print_a_secret() -> None:
    settings = load(SERVER, "start")
    dump = str(settings.model_dump())
    for text in (repr(settings), str(settings), f"{settings}", dump, settings.model_dump_json()):
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    "faults",
    [
        {"AGENT_UNTARGETED": "maybe", "AGENT_MAX_SESSIONS": "many"},
        {"LIVEKIT_URL": "nowhere"},
        {"LIVEKIT_URL": "", "AGENT_DRAIN_TIMEOUT": "-1"},
    ],
)
def test_problems_never_print_a_secret(faults: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        load(SERVER | faults, "start")
    for text in (str(error.value), repr(error.value), *error.value.problems):
        assert not any(secret in text for secret in SECRETS)
    assert error.value.__context__ is None or not any(
        secret in str(error.value.__context__) for secret in SECRETS
    )


# Where the server is


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("ws://localhost:7880", True),
        ("ws://LocalHost", True),
        ("http://agents.localhost", True),
        ("ws://127.0.0.1:7880", True),
        ("ws://127.1.2.3", True),
        ("ws://[::1]:7880", True),
        ("wss://my-project.livekit.cloud", False),
        ("wss://localhost.example.com", False),
        ("wss://notlocalhost", False),
        ("wss://127.0.0.1.example.com", False),
        ("wss://example.com/localhost", False),
        ("wss://example.com?localhost", False),
        ("ws://0.0.0.0:7880", False),
        ("ws://192.168.0.7:7880", False),
        ("ws://10.0.0.1", False),
        ("ws://[fe80::1]:7880", False),
        (None, False),
    ],
)
def test_a_server_is_local_by_its_host_alone(url: str | None, local: bool) -> None:
    assert Settings.model_validate({"LIVEKIT_URL": url}).server_is_local is local


CLOUD: Final = "wss://my-project.livekit.cloud"
LOCAL: Final = "ws://localhost:7880"


@pytest.mark.parametrize(
    ("url", "untargeted", "dev", "policy"),
    [
        (CLOUD, None, False, "accept"),
        (LOCAL, None, False, "accept"),
        (LOCAL, None, True, "accept"),
        (CLOUD, None, True, "reject"),
        (None, None, True, "reject"),
        (CLOUD, "accept", True, "accept"),
        (LOCAL, "reject", True, "reject"),
        (CLOUD, "reject", False, "reject"),
        (CLOUD, "accept", False, "accept"),
    ],
)
def test_a_laptop_takes_untargeted_jobs_only_from_itself_or_when_told_to(
    url: str | None,
    untargeted: Literal["accept", "reject"] | None,
    dev: bool,
    policy: Literal["accept", "reject"],
) -> None:
    settings = Settings.model_validate({"LIVEKIT_URL": url, "AGENT_UNTARGETED": untargeted})
    assert settings.untargeted_policy(dev=dev) == policy


# Slips of the pen


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("AGENT_BUILDID", "AGENT_BUILD_ID"),
        ("AGENT_BUILD_COMIT", "AGENT_BUILD_COMMIT"),
        ("AGENT_UNTARGETTED", "AGENT_UNTARGETED"),
        ("AGENT_MAX_SESSION", "AGENT_MAX_SESSIONS"),
        ("AGENT_HEALTHPORT", "AGENT_HEALTH_PORT"),
        ("AGENT_DRAIN_TIMEOUT_S", "AGENT_DRAIN_TIMEOUT"),
    ],
)
def test_a_misspelt_variable_is_warned_of_with_the_right_one(written: str, meant: str) -> None:
    (warning,) = misspelt({written: "the-api-secret"})
    assert warning == f"{written} is not a setting; did you mean {meant}?"


def test_a_misspelt_variable_does_not_keep_a_worker_from_starting() -> None:
    environ = SERVER | {"AGENT_BUILD": "x", "AGENT_DRAIN_TIMEOUT_S": "y"}
    assert load(environ, "start") == load(SERVER, "start")
    assert len(misspelt(environ)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "AGENT_NAME",
        "AGENT_MODEL",
        "AGENT_MODELS",
        "AGENT_OS",
        "AGENT_OSARCHITECTURE",
        "AGENT_ID",
        "AGENT_VERSION",
        "AGENT_JOBNAME",
        "AGENT_JOBSTATUS",
        "AGENT_MACHINENAME",
        "AGENT_TOOLSDIRECTORY",
        "AGENT_TEMPDIRECTORY",
        "AGENT_WORKFOLDER",
        "AGENT_HOMEDIRECTORY",
        "AGENT_ROOTDIRECTORY",
        "AGENT_BUILDDIRECTORY",
        "AGENT_RELEASEDIRECTORY",
        "AGENT_",
        "MY_AGENT_MODEL",
        "BUILD_ID",
        "MODEL",
        "agent_model",
        "PATH",
    ],
)
def test_variables_of_others_are_left_alone(name: str) -> None:
    assert load({name: "x"}, "build") == load({}, "build")
    assert misspelt({name: "x"}) == []


def test_our_own_variables_are_right() -> None:
    assert misspelt(dict.fromkeys(VARIABLES, "x")) == []


# .env.example

EXAMPLE: Final = ROOT / ".env.example"
LINE: Final = re.compile(r"^(# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)

OF_THE_AGENT: Final = {
    "LIVEKIT_AGENT_NAME": "",
    "OPENAI_API_KEY": "",
    "AGENT_MODELS": "openai",
}
"""What livekit-agents and the agent itself read."""


def test_the_example_names_every_variable_in_order() -> None:
    named = [name for _, name, _ in LINE.findall(EXAMPLE.read_text())]
    assert [name for name in named if name in VARIABLES] == list(VARIABLES)
    assert set(named) == {*VARIABLES, *OF_THE_AGENT}


def test_the_example_shows_the_defaults_in_comments() -> None:
    fields = Settings.model_fields.values()
    defaults = {field.alias: str(field.default or "") for field in fields} | OF_THE_AGENT
    for comment, name, value in LINE.findall(EXAMPLE.read_text()):
        if comment:
            assert value == defaults[name], name


def test_the_example_says_where_the_assistant_has_another_default() -> None:
    for name, value in {
        "AGENT_JOIN_TIMEOUT": session.JOIN_TIMEOUT.total_seconds(),
        "AGENT_STATUS_PORT": session.STATUS_PORT,
    }.items():
        before, _, _ = EXAMPLE.read_text().partition(f"# {name}=")
        comment = before[before.rindex("\n\n") :]
        assert re.search(rf"this assistant: {value:g}\b", comment), name


def test_the_example_is_complete_enough_for_a_first_run() -> None:
    values = {n: v for comment, n, v in LINE.findall(EXAMPLE.read_text()) if not comment}
    assert load(values, "dev").url == "ws://localhost:7880"


def test_a_password_in_the_url_is_refused_and_not_printed() -> None:
    (problem,) = problems_of({"LIVEKIT_URL": "wss://me:sekret@example.com"})
    assert problem.startswith("LIVEKIT_URL: ")
    assert "sekret" not in problem
