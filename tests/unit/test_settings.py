from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, get_args

import pytest

from build_aware.settings import (
    CONNECTING,
    VARIABLES,
    Command,
    Models,
    Settings,
    SettingsError,
    load,
)
from tests.support.paths import ROOT

SERVER: Final = {
    "LIVEKIT_URL": "wss://my-project.livekit.cloud",
    "LIVEKIT_API_KEY": "the-api-key",
    "LIVEKIT_API_SECRET": "the-api-secret",
}
OPENAI: Final = {"OPENAI_API_KEY": "the-openai-key"}
COMPLETE: Final = SERVER | OPENAI
SECRETS: Final = ("the-api-key", "the-api-secret", "the-openai-key")

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
        "agent_name": "",
        "deployment": None,
        "openai_api_key": None,
        "build_id": None,
        "build_commit": None,
        "models": "openai",
        "untargeted": None,
        "adoption": "auto",
        "max_sessions": None,
        "health_port": None,
        "status_port": None,
        "join_timeout_s": 60,
        "drain_timeout_s": 3300,
    }


def test_every_variable_is_read() -> None:
    values = COMPLETE | {
        "LIVEKIT_AGENT_NAME": "receptionist",
        "LIVEKIT_AGENT_DEPLOYMENT": "blue",
        "AGENT_BUILD_ID": "release-10",
        "AGENT_BUILD_COMMIT": "0123abc",
        "AGENT_MODELS": "realtime",
        "AGENT_UNTARGETED": "reject",
        "AGENT_ADOPTION": "off",
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
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "the-openai-key"
    hidden = {"api_key", "api_secret", "openai_api_key"}
    assert settings.model_dump(exclude=hidden) == {
        "url": "wss://my-project.livekit.cloud",
        "agent_name": "receptionist",
        "deployment": "blue",
        "build_id": "release-10",
        "build_commit": "0123abc",
        "models": "realtime",
        "untargeted": "reject",
        "adoption": "off",
        "max_sessions": 12,
        "health_port": 0,
        "status_port": 9000,
        "join_timeout_s": 12.5,
        "drain_timeout_s": 60,
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_variable_counts_as_unset(command: Command) -> None:
    with_empty = COMPLETE | {name: "" for name in VARIABLES if name not in COMPLETE}
    assert load(with_empty, command) == load(COMPLETE, command)


def test_empty_credentials_are_missing_ones() -> None:
    assert problems_of(dict.fromkeys(VARIABLES, ""), "start") == problems_of({}, "start")


def test_every_problem_is_named_at_once() -> None:
    environ = {
        "LIVEKIT_URL": "my-project.livekit.cloud",
        "AGENT_BUILD_ID": "not/legal",
        "AGENT_BUILD_COMMIT": "HEAD",
        "AGENT_MODELS": "clever",
        "AGENT_UNTARGETED": "maybe",
        "AGENT_MAX_SESSIONS": "0",
        "AGENT_HEALTH_PORT": "70000",
        "AGENT_STATUS_PORT": "http",
        "AGENT_JOIN_TIMEOUT": "0",
        "AGENT_DRAIN_TIMEOUT": "soon",
        "AGENT_UNTARGETTED": "accept",
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
        ("AGENT_MODELS", "OpenAI", "'openai', 'realtime' or 'offline'"),
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
def test_only_commands_that_connect_need_a_server(command: Command) -> None:
    environ = OPENAI
    if command in CONNECTING:
        named = [problem.split()[0] for problem in problems_of(environ, command)]
        assert named == ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]
    else:
        assert load(environ, command).url is None


def test_the_commands_that_connect_are_livekits_workers() -> None:
    assert {"start", "dev", "connect"} == CONNECTING


@pytest.mark.parametrize(
    ("command", "without_key", "with_key"),
    [
        ("start", None, "openai"),
        ("connect", None, "openai"),
        ("dev", "offline", "openai"),
        ("console", "offline", "openai"),
        ("build", "openai", "openai"),
        ("download-files", "openai", "openai"),
    ],
)
def test_the_default_models_never_go_mute_in_production(
    command: Command, without_key: Models | None, with_key: Models
) -> None:
    assert load(COMPLETE, command).models == with_key
    if without_key is None:
        (problem,) = problems_of(SERVER, command)
        assert problem.startswith("OPENAI_API_KEY is not set")
    else:
        assert load(SERVER, command).models == without_key


@pytest.mark.parametrize("command", ["start", "dev", "connect", "console"])
@pytest.mark.parametrize("models", ["openai", "realtime"])
def test_models_that_need_a_key_say_so_wherever_they_run(command: Command, models: str) -> None:
    (problem,) = problems_of(SERVER | {"AGENT_MODELS": models}, command)
    assert problem.startswith(f"OPENAI_API_KEY is not set; AGENT_MODELS={models} needs it")


@pytest.mark.parametrize("command", COMMANDS)
def test_offline_needs_no_key_anywhere(command: Command) -> None:
    assert load(SERVER | {"AGENT_MODELS": "offline"}, command).models == "offline"


# Secrets


def test_settings_never_print_a_secret() -> None:
    settings = load(COMPLETE, "start")
    dump = str(settings.model_dump())
    for text in (repr(settings), str(settings), f"{settings}", dump, settings.model_dump_json()):
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    "faults",
    [
        {"AGENT_MODELS": "clever", "AGENT_MAX_SESSIONS": "many"},
        {"LIVEKIT_URL": "nowhere"},
        {"LIVEKIT_URL": "", "AGENT_DRAIN_TIMEOUT": "-1"},
        {"AGENT_BUILD_IDD": "the-api-secret"},
    ],
)
def test_problems_never_print_a_secret(faults: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        load(COMPLETE | faults, "start")
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
        ("AGENT_MODEL", "AGENT_MODELS"),
        ("AGENT_UNTARGETTED", "AGENT_UNTARGETED"),
        ("AGENT_MAX_SESSION", "AGENT_MAX_SESSIONS"),
        ("AGENT_HEALTHPORT", "AGENT_HEALTH_PORT"),
        ("AGENT_DRAIN_TIMEOUT_S", "AGENT_DRAIN_TIMEOUT"),
    ],
)
def test_a_misspelt_variable_is_a_problem_that_suggests_the_right_one(
    written: str, meant: str
) -> None:
    (problem,) = problems_of({written: "x"})
    assert problem == f"{written} is not a setting; did you mean {meant}?"


@pytest.mark.parametrize(
    "name",
    [
        "AGENT_NAME",
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


# .env.example

EXAMPLE: Final = ROOT / ".env.example"
LINE: Final = re.compile(r"^(# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def test_the_example_names_every_variable_in_order() -> None:
    assert tuple(name for _, name, _ in LINE.findall(EXAMPLE.read_text())) == VARIABLES


def test_the_example_shows_the_defaults_in_comments() -> None:
    defaults = {field.alias: field.default for field in Settings.model_fields.values()}
    for comment, name, value in LINE.findall(EXAMPLE.read_text()):
        if comment:
            assert value == str(defaults[name] or ""), name


def test_the_example_is_complete_enough_for_a_first_run() -> None:
    values = {n: v for comment, n, v in LINE.findall(EXAMPLE.read_text()) if not comment}
    assert load(values, "dev").models == "offline"


def test_a_password_in_the_url_is_refused_and_not_printed() -> None:
    (problem,) = problems_of({"LIVEKIT_URL": "wss://me:sekret@example.com"})
    assert problem.startswith("LIVEKIT_URL: ")
    assert "sekret" not in problem
