"""What this worker is set to: the environment, validated together, and what the team's code says.

No other module of this package reads a setting from the environment. Secrets are wrapped, so that
no message or log can print them by accident.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

Command: TypeAlias = Literal[
    "start",
    "dev",
    "connect",
    "console",
    "download-files",
    "build",
    "builds",
    "promote",
    "ramp",
    "rollback",
]
Untargeted: TypeAlias = Literal["accept", "reject"]
Switch: TypeAlias = Literal["auto", "on", "off"]
RolloutMode: TypeAlias = Literal["newest", "manual", "off"]
EndWithLastUser: TypeAlias = Literal["drain", "always", "never"]

CONNECTING: Final[frozenset[Command]] = frozenset({"start", "dev", "connect"})
"""The commands that connect a worker or a job to a LiveKit server."""

ASKING: Final[frozenset[Command]] = frozenset({"builds", "promote", "ramp", "rollback"})
"""The commands that only call a server's API."""

RUNNING: Final[frozenset[Command]] = CONNECTING | {"console"}
"""The commands that run sessions."""

_MAX_PORT: Final = 65535
_URL_SCHEMES: Final = ("ws", "wss", "http", "https")
_TYPO_LIKENESS: Final = 0.75
_ANY_BUILD: Final = "any"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings in code. None leaves a setting to the environment, and then to its default.

    Attributes:
        untargeted: what to do with a job that names no build. Default: accept; in `dev` only if
            the LiveKit server is on this machine.
        adoption: whether to look for rooms that wait for this agent, and serve them. Default:
            `auto`, which means on, except on LiveKit Cloud.
        rollout: whether a new build takes the jobs that name none by itself (`newest`), by command
            (`manual`), or like any other (`off`). Default: newest, where waiting rooms are adopted.
        end_with_last_user: when a job ends with its last user: while the worker drains (the
            default), always, or never. `always` is right where the session is closed with its
            user anyway, and waiting rooms are adopted.
        join_timeout: for how long a job waits for its first user. Default: as LiveKit does.
        presence: whether agents publish an empty data track, so that other workers notice at once
            when an agent that publishes no voice is gone. Default: no.
        max_sessions: how many sessions this worker takes at once. Default: LiveKit's own measure.
        status_port: where `/ready`, `/status` and `/metrics` are served; 0 for a free port.
            Default: nowhere.
        check: your own check before a worker starts: returns one line for each problem. They are
            reported together with those of the environment.
    """

    untargeted: Untargeted | None = None
    adoption: Switch | None = None
    rollout: RolloutMode | None = None
    end_with_last_user: EndWithLastUser | None = None
    join_timeout: timedelta | None = None
    presence: bool | None = None
    max_sessions: int | None = None
    status_port: int | None = None
    check: Callable[[], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a word is not one of those that it can be, or a number is out of range.
        """
        for name, words in _WORDS.items():
            said = getattr(self, name)
            if said is not None and said not in words:
                raise ValueError(f"{name}={said!r}: expected one of {', '.join(words)}")
        if self.max_sessions is not None and self.max_sessions < 1:
            raise ValueError(f"max_sessions={self.max_sessions}: expected 1 or more")
        if self.join_timeout is not None and self.join_timeout <= timedelta(0):
            raise ValueError(f"join_timeout={self.join_timeout}: expected more than 0")
        if self.status_port is not None and not 0 <= self.status_port <= _MAX_PORT:
            raise ValueError(f"status_port={self.status_port}: expected 0 to {_MAX_PORT}")


_WORDS: Final = {
    "untargeted": get_args(Untargeted),
    "adoption": get_args(Switch),
    "rollout": get_args(RolloutMode),
    "end_with_last_user": get_args(EndWithLastUser),
}
"""What the options can be that are words."""


_NOTHING_SAID: Final = Options()


class SettingsError(ValueError):
    """Raised when the environment is not valid; `problems` names every fault at once."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Settings(BaseModel):
    """What the environment says. Durations are in seconds. An empty variable counts as unset."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    url: str | None = Field(None, alias="LIVEKIT_URL")
    api_key: SecretStr | None = Field(None, alias="LIVEKIT_API_KEY")
    api_secret: SecretStr | None = Field(None, alias="LIVEKIT_API_SECRET")
    deployment: str | None = Field(None, alias="LIVEKIT_AGENT_DEPLOYMENT")

    build_id: str | None = Field(
        None, alias="AGENT_BUILD_ID", pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$"
    )
    build_commit: str | None = Field(None, alias="AGENT_BUILD_COMMIT", pattern=r"^[0-9a-f]{7,64}$")
    untargeted: Untargeted | None = Field(None, alias="AGENT_UNTARGETED")
    adoption: Switch = Field("auto", alias="AGENT_ADOPTION")
    rollout: RolloutMode | None = Field(None, alias="AGENT_ROLLOUT")
    max_sessions: int | None = Field(None, alias="AGENT_MAX_SESSIONS", ge=1, le=1000)
    health_port: int | None = Field(None, alias="AGENT_HEALTH_PORT", ge=0, le=_MAX_PORT)
    status_port: int | None = Field(None, alias="AGENT_STATUS_PORT", ge=0, le=_MAX_PORT)
    join_timeout_s: float | None = Field(None, alias="AGENT_JOIN_TIMEOUT", ge=1, le=86400)
    end_with_last_user: EndWithLastUser = "drain"
    presence: bool = False
    drain_timeout_s: float = Field(3300, alias="AGENT_DRAIN_TIMEOUT", ge=10, le=86400)

    @field_validator("url")
    @classmethod
    def _is_a_server(cls, url: str | None) -> str | None:
        if url is not None:
            try:
                parts = urlsplit(url)
                port_is_valid = parts.port is None or parts.port > 0
            except ValueError:
                port_is_valid = False
            if (
                not port_is_valid
                or parts.scheme not in _URL_SCHEMES
                or not parts.hostname
                or "@" in parts.netloc
                or any(character.isspace() for character in url)
            ):
                raise ValueError(
                    "expected a URL such as wss://my-project.livekit.cloud, without a password"
                )
        return url

    @field_validator("build_id", "deployment")
    @classmethod
    def _names_one_build(cls, name: str | None) -> str | None:
        if name == _ANY_BUILD:
            raise ValueError("every build answers to this name; expected another one")
        return name

    @property
    def server_is_local(self) -> bool:
        """Whether the LiveKit server is on this machine, judged by a loopback name or address."""
        host = urlsplit(self.url or "").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def credentials(self) -> tuple[str, str, str]:
        """URL, API key and API secret of the LiveKit server.

        Raises:
            ValueError: one is missing, which `load` allows for commands that connect to nothing.
        """
        if self.url is None or self.api_key is None or self.api_secret is None:
            raise ValueError("the LiveKit server's URL, API key or API secret is not set")
        return self.url, self.api_key.get_secret_value(), self.api_secret.get_secret_value()

    def with_options(self, options: Options) -> Settings:
        """These settings, where the team's code does not say otherwise."""
        said: dict[str, Any] = {
            "untargeted": options.untargeted,
            "adoption": options.adoption,
            "rollout": options.rollout,
            "end_with_last_user": options.end_with_last_user,
            "join_timeout_s": options.join_timeout and options.join_timeout.total_seconds(),
            "presence": options.presence,
            "max_sessions": options.max_sessions,
            "status_port": options.status_port,
        }
        return self.model_copy(update={k: v for k, v in said.items() if v is not None})

    def untargeted_policy(self, *, dev: bool) -> Untargeted:
        """What to answer to a job that names no build.

        In `dev` only a server on this machine is trusted: a laptop never takes the calls of a
        shared project unless it is told to.
        """
        if self.untargeted is not None:
            return self.untargeted
        return "accept" if not dev or self.server_is_local else "reject"


VARIABLES: Final = tuple(field.alias for field in Settings.model_fields.values() if field.alias)
"""Every variable that is read."""


def load(
    environ: Mapping[str, str], command: Command, options: Options = _NOTHING_SAID
) -> Settings:
    """Read and validate the settings that `command` needs.

    Args:
        environ: the environment, overridden by what the team's code says instead.
        command: what is about to run; it decides which variables must be there.
        options: what the team's code says beside that.

    Raises:
        SettingsError: naming every problem at once, with the expected value of each.
    """
    values: dict[str, Any] = {name: environ[name] for name in VARIABLES if environ.get(name)}
    problems: list[str] = []
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_problem(fault, values) for fault in error.errors(include_url=False)]
    problems += _missing(values, command)
    if options.check is not None and command in RUNNING:
        problems += options.check()
    if problems:
        raise SettingsError(problems)
    return settings.with_options(options)


def _missing(values: Mapping[str, str], command: Command) -> list[str]:
    missing: list[str] = []
    if command in CONNECTING | ASKING:
        missing += [
            f"{name} is not set; expected {expected}"
            for name, expected in (
                ("LIVEKIT_URL", "the server's URL, such as wss://my-project.livekit.cloud"),
                ("LIVEKIT_API_KEY", "the project's API key"),
                ("LIVEKIT_API_SECRET", "the project's API secret"),
            )
            if name not in values
        ]
    return missing


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Warnings of variables that look like a slip of the pen for one of ours.

    They are no errors: teams have variables of their own, and so have CI systems.
    """
    prefix = "AGENT_"
    ours = {name.removeprefix(prefix): name for name in VARIABLES if name.startswith(prefix)}
    warnings = []
    for name in sorted(environ):
        if name.startswith(prefix) and name not in VARIABLES:
            close = difflib.get_close_matches(
                name.removeprefix(prefix), ours, n=1, cutoff=_TYPO_LIKENESS
            )
            warnings += [f"{name} is not a setting; did you mean {ours[c]}?" for c in close]
    return warnings


def _problem(fault: Any, values: Mapping[str, Any]) -> str:
    name = str(fault["loc"][0])
    field = next(f for f in Settings.model_fields.values() if f.alias == name)
    value = values.get(name)
    secret = "SecretStr" in str(field.annotation) or (name == "LIVEKIT_URL" and "@" in str(value))
    message = str(fault["msg"]).removeprefix("Value error, ")
    expected = message[:1].lower() + message[1:]
    if fault["type"] == "string_pattern_mismatch":
        expected = {
            "AGENT_BUILD_ID": "expected 1 to 63 letters, digits, dots and dashes, "
            "the first a letter or digit",
            "AGENT_BUILD_COMMIT": "expected 7 to 64 lower-case hex digits",
        }[name]
    found = "" if secret else f"={value!a}"
    return f"{name}{found}: {expected}"
