"""The Typer application: our commands, and LiveKit's in the one `--help`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Final, cast

import typer

from agent.cli import startup
from build_aware.dispatch import target
from build_aware.settings import Command

LIVEKIT_COMMANDS: Final[dict[Command, str]] = {
    "dev": "Run a worker while developing. (LiveKit)",
    "start": "Run a worker in production. (LiveKit)",
    "connect": "Join one room right away. (LiveKit)",
    "download-files": "Download what the plugins need. (LiveKit)",
}
"""LiveKit's commands, and the line that our `--help` shows for each."""

LOG_LEVELS: Final = ("trace", "debug", "info", "warn", "error", "critical")
"""LiveKit's log levels."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="A LiveKit voice agent whose worker knows its build.",
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


@app.command(
    epilog="""\b
Without --text this is LiveKit's voice console. It also takes
--input-device, --output-device, --list-devices and --record.""",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def console(
    context: typer.Context,
    text: Annotated[
        bool, typer.Option("--text", help="Type and read: no audio, server or key is needed.")
    ] = False,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help=f"Log from this level on: {', '.join(LOG_LEVELS)}. With --text, default: nothing.",
        ),
    ] = None,
) -> None:
    """Talk to the agent in this terminal; --text needs no audio."""
    if not text:
        # LiveKit's own parser reads all of the arguments.
        startup.run_livekit("console", sys.argv[2:])
        return
    if context.args:
        startup.fail(f"console --text does not know {context.args[0]!a}; see console --help")
    if log_level is not None and log_level.lower() not in LOG_LEVELS:
        startup.fail(f"--log-level {log_level!a}: expected one of {', '.join(LOG_LEVELS)}")
    startup.talk(log_level)


def _pass_on(context: typer.Context) -> None:
    startup.run_livekit(cast(Command, context.info_name), sys.argv[2:])


for _name, _help in LIVEKIT_COMMANDS.items():
    # LiveKit's own parser reads the arguments, `--help` among them.
    app.command(
        _name,
        help=_help,
        context_settings={
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "help_option_names": [],
        },
    )(_pass_on)


@app.command()
def build(
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known.")] = False,
    match: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Exit 0 if this build serves TARGET (a name, or the metadata's JSON), else 1.",
        ),
    ] = None,
) -> None:
    """Print which build this is."""
    this = startup.identify(startup.read_settings("build"))
    if match is not None:
        wanted = _target(match)
        raise typer.Exit(0 if wanted.met_by(this.answers_to) else 1)
    typer.echo(json.dumps(this.facts()) if as_json else this.id)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def rehearse() -> None:
    """Rehearse a rolling deploy on this machine: a verdict, and a picture."""
    try:
        # What it needs is in a dependency group of its own.
        from build_aware.rehearsal.cli import main  # noqa: PLC0415
    except ModuleNotFoundError as error:
        startup.fail(f"rehearse needs the Python module {error.name}; run `uv sync`, and again")
    main(sys.argv[2:])


def _target(text: str) -> target.Target:
    try:
        value = json.loads(text) if text[:1] in ("{", "[", '"') else text
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and target.KEY in value:
        value = value[target.KEY]
    asked = target.of_value(value)
    if isinstance(asked, target.Malformed):
        startup.fail(f"--match {text!a}: expected {target.EXPECTED}")
    return asked
