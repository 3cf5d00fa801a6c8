"""The environment, read once and validated together.

No other module reads a setting from the environment. (`forkserver` hands `AGENT_MODELS` on to
`preload`, which gets nothing else of the main process.) Secrets are wrapped, so that no message or
log can print them by accident.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from build_aware.dispatch import target

Command: TypeAlias = Literal["start", "dev", "connect", "console", "download-files", "build"]
Models: TypeAlias = Literal["openai", "realtime", "offline"]
Untargeted: TypeAlias = Literal["accept", "reject"]
Switch: TypeAlias = Literal["auto", "on", "off"]

CONNECTING: Final[frozenset[Command]] = frozenset({"start", "dev", "connect"})
"""The commands that need a LiveKit server."""

_URL_SCHEMES: Final = ("ws", "wss", "http", "https")
_TYPO_LIKENESS: Final = 0.75


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
    agent_name: str = Field("", alias="LIVEKIT_AGENT_NAME")
    deployment: str | None = Field(None, alias="LIVEKIT_AGENT_DEPLOYMENT")

    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")

    build_id: str | None = Field(
        None, alias="AGENT_BUILD_ID", pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$"
    )
    build_commit: str | None = Field(None, alias="AGENT_BUILD_COMMIT", pattern=r"^[0-9a-f]{7,64}$")
    models: Models = Field("openai", alias="AGENT_MODELS")
    untargeted: Untargeted | None = Field(None, alias="AGENT_UNTARGETED")
    adoption: Switch = Field("auto", alias="AGENT_ADOPTION")
    max_sessions: int | None = Field(None, alias="AGENT_MAX_SESSIONS", ge=1, le=1000)
    health_port: int | None = Field(None, alias="AGENT_HEALTH_PORT", ge=0, le=65535)
    status_port: int | None = Field(None, alias="AGENT_STATUS_PORT", ge=0, le=65535)
    join_timeout_s: float = Field(60, alias="AGENT_JOIN_TIMEOUT", ge=1, le=86400)
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
        if name == target.ANY:
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

    def untargeted_policy(self, *, dev: bool) -> Untargeted:
        """What to answer to a job that names no build.

        In `dev` only a server on this machine is trusted: a laptop never takes the calls of a
        shared project unless it is told to.
        """
        if self.untargeted is not None:
            return self.untargeted
        return "accept" if not dev or self.server_is_local else "reject"


VARIABLES: Final = tuple(str(field.alias) for field in Settings.model_fields.values())
"""Every variable that is read, in the order of `.env.example`."""


def load(environ: Mapping[str, str], command: Command) -> Settings:
    """Read and validate the settings that `command` needs.

    Args:
        environ: the environment, usually `os.environ`.
        command: what is about to run; it decides which variables must be there.

    Raises:
        SettingsError: naming every problem at once, with the expected value of each.
    """
    values: dict[str, Any] = {name: environ[name] for name in VARIABLES if environ.get(name)}
    if "AGENT_MODELS" not in values and command in ("dev", "console"):
        # A first run needs no key. `start` never falls back: production must not go mute.
        values["AGENT_MODELS"] = "openai" if "OPENAI_API_KEY" in values else "offline"

    problems = _misspelt(environ)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_problem(fault, values) for fault in error.errors(include_url=False)]
    problems += _missing(values, command)
    if problems:
        raise SettingsError(problems)
    return settings


def _missing(values: Mapping[str, str], command: Command) -> list[str]:
    missing: list[str] = []
    if command in CONNECTING:
        missing += [
            f"{name} is not set; expected {expected}"
            for name, expected in (
                ("LIVEKIT_URL", "the server's URL, such as wss://my-project.livekit.cloud"),
                ("LIVEKIT_API_KEY", "the project's API key"),
                ("LIVEKIT_API_SECRET", "the project's API secret"),
            )
            if name not in values
        ]
    models = values.get("AGENT_MODELS", "openai")
    if (
        command not in ("build", "download-files")
        and models in ("openai", "realtime")
        and "OPENAI_API_KEY" not in values
    ):
        missing.append(
            f"OPENAI_API_KEY is not set; AGENT_MODELS={models} needs it "
            "(AGENT_MODELS=offline needs no key)"
        )
    return missing


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like a slip of the pen for one of ours.

    Other AGENT_ variables are left alone: CI systems set some of their own.
    """
    prefix = "AGENT_"
    ours = {name.removeprefix(prefix): name for name in VARIABLES if name.startswith(prefix)}
    problems = []
    for name in sorted(environ):
        if name.startswith(prefix) and name not in VARIABLES:
            close = difflib.get_close_matches(
                name.removeprefix(prefix), ours, n=1, cutoff=_TYPO_LIKENESS
            )
            problems += [f"{name} is not a setting; did you mean {ours[c]}?" for c in close]
    return problems


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
