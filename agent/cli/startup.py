"""From the command line to a worker: environment, settings, build, server.

Both ways in come through here: `python agent.py start` and LiveKit's own tools, which run
`python -m livekit.agents start agent.py`.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import typer
from dotenv import load_dotenv

from agent import models
from build_aware import settings
from build_aware.drain import starting
from build_aware.drain.exit_codes import ExitCode
from build_aware.identity import build as builds
from build_aware.identity.build import Build
from build_aware.server import forkserver
from build_aware.settings import CONNECTING, Command, Settings

if TYPE_CHECKING:
    from agent.worker import Worker

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder of this agent's project."""

WORKING: Final[frozenset[Command]] = frozenset({"start", "dev"})
"""The commands that run a worker until a stop signal."""


def begin(command: Command, arguments: Sequence[str]) -> Settings:
    """Validate the settings, before anything slow happens."""
    if "--help" in arguments:
        command = "build"  # Help needs no server and no key.
    # Imports make much and free nothing: looking for garbage meanwhile takes 0.1 s.
    gc.disable()
    return read_settings(command, arguments)


def run_livekit(command: Command, arguments: Sequence[str]) -> None:
    """Run one of LiveKit's own commands, unchanged, with this agent's worker."""
    config = begin(command, arguments)
    server = _server(command, config)
    if command not in CONNECTING:
        # Console sessions run in a thread of this process, but plugins register on the main
        # thread; and files are downloaded for the plugins that are registered.
        models.import_plugins(config.models)
    if command == "console":
        _need_audio()

    from livekit.agents import cli  # noqa: PLC0415 slow: the settings have been read by now

    gc.enable()
    cli.run_app(server)


def talk(log_level: str | None) -> None:
    """Run the text console until the user leaves.

    Args:
        log_level: the level from which on logs go to stderr; None: they go nowhere.
    """
    try:
        config = begin("console", ())
        build = identify(config)
        named = f"{build.id}, version {build.version}" if build.version else build.id
        # Before the slow imports: somebody waits in front of the screen.
        typer.echo(f"Build {named}\n{_MODELS[config.models]}\nCtrl+C or Ctrl+D ends it.\n")

        from agent.cli import console  # noqa: PLC0415

        gc.enable()
        console.log_to_stderr(log_level)
        console.run(build, models.create_for_text(config.models))
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.DRAINED) from None


def server_for_livekit(arguments: Sequence[str]) -> Worker:
    """The worker for `python -m livekit.agents COMMAND agent.py ...`.

    Args:
        arguments: the command line behind `livekit.agents`.
    """
    command: Command = "start"
    if "console" in arguments[:1]:
        command = "console"
    elif "--dev" in arguments:
        command = "dev"
    if command in WORKING:
        starting.stop_means_exit()
    config = read_settings(command, arguments)
    if command == "console":
        models.import_plugins(config.models)
    return _server(command, config)


def read_settings(command: Command, arguments: Sequence[str] = ()) -> Settings:
    """Read the environment and `.env.local`, or end with every problem named."""
    _file_into_environment(ROOT / ".env.local")
    _flags_into_environment(arguments)
    try:
        return settings.load(os.environ, command)
    except settings.SettingsError as error:
        fail(*error.problems)


def identify(config: Settings) -> Build:
    """Identify this build, or end with the reason why that is not possible."""
    try:
        return builds.identify(
            ROOT,
            build_id=config.build_id,
            commit=config.build_commit,
            deployment=config.deployment,
        )
    except builds.BuildError as error:
        fail(str(error))


def fail(*problems: str) -> NoReturn:
    """End with one line for each problem, and the exit code for bad configuration."""
    for problem in problems:
        sys.stderr.write(f"agent: {problem}\n")
    raise SystemExit(ExitCode.CONFIGURATION)


def _need_audio() -> None:
    """End if LiveKit's voice console would not find the audio library."""
    try:
        import sounddevice  # type: ignore[import-untyped] # noqa: F401, PLC0415
    except (ImportError, OSError):
        fail(
            "this machine has no audio library (PortAudio); use `console --text`, or install it "
            "with `apt-get install libportaudio2` or `brew install portaudio`"
        )


_MODELS: Final[dict[settings.Models, str]] = {
    "offline": "Models: offline, which answer by rule. Set OPENAI_API_KEY for real ones.",
    "openai": "Models: openai, the language model only; nothing is spoken.",
    "realtime": "Models: realtime, in writing; nothing is spoken.",
}
"""What the text console says about each choice of models."""


def _server(command: Command, config: Settings) -> Worker:
    build = identify(config)

    from agent.worker import Worker  # noqa: PLC0415 slow: the settings have been read by now

    if command in CONNECTING:
        forkserver.start(config.models)
    server = Worker(config, build)
    if command in WORKING:
        server.await_stop_signals()
    return server


def _file_into_environment(file: Path) -> None:
    """Put what a file of settings says into the environment, which overrides it."""
    if file.exists() and not file.is_file():
        # A directory would be passed over in silence, and a pipe waited for.
        fail(f"{file} is no regular file; remove it, or put lines such as NAME=value into a file")
    try:
        load_dotenv(file)
    except UnicodeDecodeError:
        fail(f"{file} is not UTF-8 text; save it as such")
    except ValueError:
        fail(f"{file} holds a NUL character; save it as UTF-8 text without one")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")


FLAGS: Final = {
    "--url": "LIVEKIT_URL",
    "--api-key": "LIVEKIT_API_KEY",
    "--api-secret": "LIVEKIT_API_SECRET",
    "--drain-timeout": "AGENT_DRAIN_TIMEOUT",
}
"""LiveKit's flags that say the same as a setting."""


def _flags_into_environment(arguments: Sequence[str]) -> None:
    """Put the flags into the environment, which they override.

    So they are validated with all other settings, and reach the job processes.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, name in FLAGS.items():
        parser.add_argument(flag, dest=name)
    flags, _ = parser.parse_known_args(list(arguments))
    os.environ.update({name: value for name, value in vars(flags).items() if value})
