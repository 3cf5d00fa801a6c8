"""The Typer application: our commands, and LiveKit's in the one `--help`."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, Final, cast

import typer

from build_aware import settings
from build_aware.cli import env
from build_aware.cli.found import Found
from build_aware.dispatch import target
from build_aware.drain.exit_codes import fail
from build_aware.identity import whose
from build_aware.identity.errors import BuildError
from build_aware.identity.snapshot import Snapshot
from build_aware.settings import Command

LOG_LEVELS: Final = ("trace", "debug", "info", "warn", "error", "critical")
"""LiveKit's log levels."""


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="A LiveKit voice agent whose worker knows its build.",
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)

_PASSED_ON: Final = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def _log_level(value: str | None) -> str | None:
    if value is not None and value.lower() not in LOG_LEVELS:
        fail(f"--log-level {value!a}: expected one of {', '.join(LOG_LEVELS)}")
    return value


LogLevel = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        callback=_log_level,
        envvar="LIVEKIT_LOG_LEVEL",
        help=f"The lowest level to log: {', '.join(LOG_LEVELS)}.",
    ),
]


@app.command(
    epilog="""\b
Without --text this is LiveKit's voice console. It also takes
--input-device, --output-device, --list-devices and --record.""",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def console(
    context: typer.Context,
    text: Annotated[
        bool, typer.Option("--text", help="Type and read; needs no audio, room or server.")
    ] = False,
    log_level: LogLevel = None,
) -> None:
    """Talk to the agent in this terminal; --text needs no audio."""
    if not text:
        _need_audio()
        _run_livekit(context)
        return
    if context.args:
        fail(f"console --text does not take {context.args[0]!a}; see console --help")
    this = identify(context).build
    # Before the slow imports: somebody waits in front of the screen.
    typer.echo(f"Build {this.id}" + (f", version {this.version}" if this.version else ""))

    from build_aware.cli import console as text_console  # noqa: PLC0415

    raise typer.Exit(text_console.run(found(context).server(), log_level=log_level))


@app.command()
def dev(  # noqa: PLR0917 Typer's
    context: typer.Context,
    log_level: LogLevel = None,
    no_reload: Annotated[
        bool, typer.Option("--no-reload", help="Do not restart when a file changes.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="LIVEKIT_URL")] = None,
    api_key: Annotated[str | None, typer.Option(help="LIVEKIT_API_KEY")] = None,
    api_secret: Annotated[str | None, typer.Option(help="LIVEKIT_API_SECRET")] = None,
) -> None:
    """Run a worker for development: it restarts when a file changes."""
    check(context, "dev")
    if not no_reload:
        from build_aware.cli import reload  # noqa: PLC0415

        raise typer.Exit(reload.run(reload.command_line(), found(context).file.parent))
    _work(context, dev=True, log_level=log_level)


@app.command()
def start(  # noqa: PLR0917 Typer's
    context: typer.Context,
    log_level: LogLevel = None,
    url: Annotated[str | None, typer.Option(help="LIVEKIT_URL")] = None,
    api_key: Annotated[str | None, typer.Option(help="LIVEKIT_API_KEY")] = None,
    api_secret: Annotated[str | None, typer.Option(help="LIVEKIT_API_SECRET")] = None,
    drain_timeout: Annotated[str | None, typer.Option(help="AGENT_DRAIN_TIMEOUT")] = None,
) -> None:
    """Run a worker in production."""
    check(context, "start")
    _work(context, dev=False, log_level=log_level)


@app.command(help="Join one room right away. (LiveKit)", context_settings=_PASSED_ON)
def connect(context: typer.Context) -> None:  # noqa: D103
    _run_livekit(context)


@app.command(
    "download-files", help="Download what the plugins need. (LiveKit)", context_settings=_PASSED_ON
)
def download_files(context: typer.Context) -> None:  # noqa: D103
    _run_livekit(context)


@app.command()
def build(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known.")] = False,
    files: Annotated[bool, typer.Option("--files", help="Print which files count.")] = False,
    match: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Exit 0 if this build serves TARGET (a name, or the metadata's JSON), 1 if not.",
        ),
    ] = None,
) -> None:
    """Print which build this is."""
    identity = identify(context)
    this = identity.build
    if match is not None:
        raise typer.Exit(0 if _target(match).met_by(this.answers_to) else 1)
    if files:
        typer.echo("\n".join((identity.counted or _count(context)).files))
        return
    typer.echo(json.dumps(this.facts()) if as_json else this.id)


@app.command(context_settings=_PASSED_ON)
def rehearse(context: typer.Context) -> None:
    """Rehearse a rolling deploy on this machine, and print a verdict."""
    try:
        from build_aware.rehearsal.cli import main  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(
            f"rehearse needs the Python module {error.name}; "
            "install build-aware[rehearse], and run it again"
        )
    main(sys.argv[2:], found(context).file)


def identify(context: typer.Context) -> whose.Identity:
    """Which build the agent is, or the end of the program."""
    config = check(context, "build")
    try:
        return whose.identify(
            found(context).file,
            build_id=config.build_id,
            commit=config.build_commit,
            deployment=config.deployment,
        )
    except BuildError as error:
        fail(str(error))


def _count(context: typer.Context) -> Snapshot:
    try:
        return whose.count(found(context).file)
    except BuildError as error:
        fail(str(error))


def _work(context: typer.Context, *, dev: bool, log_level: str | None) -> None:
    from build_aware.cli import logs, runner  # noqa: PLC0415 slow

    server = found(context).server()
    whose.begins_with(found(context).file)
    server.update_options(**_flags(context))
    logs.set_up(server, dev=dev, level=log_level)
    runner.run(server, dev=dev, signals=server.stop_signals())


def _flags(context: typer.Context) -> dict[str, Any]:
    """LiveKit's flags, which win over what the server's code says and what it has read."""
    names = {"url": "ws_url", "api_key": "api_key", "api_secret": "api_secret"}
    flags: dict[str, Any] = {names[k]: v for k, v in context.params.items() if k in names and v}
    if drain_timeout_s := context.params.get("drain_timeout"):
        try:
            flags["drain_timeout"] = float(drain_timeout_s)
        except ValueError:
            fail(f"--drain-timeout {drain_timeout_s!a}: expected a number of seconds")
    return flags


def _run_livekit(context: typer.Context) -> None:
    """Run a command that is still LiveKit's own."""
    command = cast(Command, context.info_name)
    if "--help" not in sys.argv:
        check(context, command)
    server = found(context).server()

    from livekit.agents import cli  # noqa: PLC0415 slow

    cli.run_app(server)


def check(context: typer.Context, command: Command) -> settings.Settings:
    """Read the environment and the flags, or end with every problem named."""
    env.apply_flags(sys.argv[2:])
    try:
        config = settings.load(os.environ, command)
    except settings.SettingsError as error:
        if command not in settings.RUNNING:
            fail(*error.problems)
        # The code may say what the environment does not, and know of more that is wrong.
        config = found(context).server().settings_for(command)
    for warning in settings.misspelt(os.environ):
        typer.echo(f"build-aware: {warning}", err=True)
    return config


def found(context: typer.Context) -> Found:
    """The agent that the command is for."""
    return cast(Found, context.obj)


def _need_audio() -> None:
    """End if LiveKit's voice console would not find the audio library."""
    try:
        import sounddevice  # type: ignore[import-untyped] # noqa: F401, PLC0415
    except (ImportError, OSError):
        fail(
            "this machine has no audio library (PortAudio); use `console --text`, or install it "
            "with `apt-get install libportaudio2` or `brew install portaudio`"
        )


def _target(text: str) -> target.Target:
    try:
        value = json.loads(text) if text[:1] in ("{", "[", '"') else text
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and target.KEY in value:
        value = value[target.KEY]
    asked = target.of_value(value)
    if isinstance(asked, target.Malformed):
        fail(f"--match {text!a}: expected {target.EXPECTED}")
    return asked
