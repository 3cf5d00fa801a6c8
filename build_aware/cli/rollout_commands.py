"""The commands about the rollout: which build takes the jobs that name none."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer

from build_aware.cli.app import app, check, found, identify
from build_aware.dispatch.rollout import Rollout, RolloutError
from build_aware.dispatch.rollout_document import Unreadable, is_build_id, room_of
from build_aware.drain.exit_codes import ExitCode, fail
from build_aware.settings import Command

T = TypeVar("T")

CLOUD: Final = ".livekit.cloud"
"""How the names of LiveKit Cloud's servers end."""

UNSEEN: Final = "This does not show which workers run; make sure one of the current build does."

AgentName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The agent's name; by default the one in your code."),
]
Url = Annotated[str | None, typer.Option(help="LIVEKIT_URL")]
ApiKey = Annotated[str | None, typer.Option(help="LIVEKIT_API_KEY")]
ApiSecret = Annotated[str | None, typer.Option(help="LIVEKIT_API_SECRET")]
Force = Annotated[
    bool, typer.Option("--force", help="Even if no worker of this build has been seen.")
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rollout is.

    Attributes:
        credentials: URL, API key and API secret.
        agent_name: the agent name that it is for; empty for none.
        deployment: the LiveKit deployment that it is for; empty for none.
    """

    credentials: tuple[str, str, str]
    agent_name: str
    deployment: str

    @property
    def room(self) -> str:
        """The room that carries it."""
        return room_of(self.agent_name, self.deployment)

    def __str__(self) -> str:
        name = self.agent_name or "agents without a name"
        return f"{name}, deployment {self.deployment}" if self.deployment else name


@app.command()
def builds(  # noqa: PLR0917 Typer's
    context: typer.Context,
    count_all: Annotated[
        bool, typer.Option("--all", help="Count all rooms, not just the first 500.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    agent_name: AgentName = None,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
) -> None:
    """Show which build is current, and which builds serve rooms now."""
    from build_aware.adoption.client import client  # noqa: PLC0415 slow
    from build_aware.cli import builds as told  # noqa: PLC0415
    from build_aware.cli import rollout as steering  # noqa: PLC0415

    place = _place(context, "builds", agent_name)
    at_most = None if count_all else told.COUNTED_AT_MOST

    async def ask() -> tuple[Rollout, Counter[str], int, int]:
        async with client(place.credentials) as api:
            rollout = await steering.read(api, place.room)
            return rollout, *await told.count(api, place.agent_name, at_most=at_most)

    rollout, serving, rooms, counted = _ask(place, ask())
    lines = told.lines(rollout, serving)
    if as_json:
        answer = told.as_json(rollout, lines, rooms=rooms, counted=counted)
        typer.echo(json.dumps({"room": place.room} | answer))
        return
    typer.echo(f"For {place}:")
    if not rollout.revision:
        typer.echo(f"There is no rollout (no room {place.room}): any worker takes any job.")
    if lines:
        typer.echo("\n".join(told.table(lines)))
    if counted < rooms:
        typer.echo(f"{counted} of {rooms} rooms were counted; --all counts all.")
    typer.echo(UNSEEN)


@app.command()
def promote(  # noqa: PLR0917 Typer's
    context: typer.Context,
    build: Annotated[
        str | None, typer.Argument(help="A build id; by default that of this checkout.")
    ] = None,
    force: Force = False,
    agent_name: AgentName = None,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
) -> None:
    """Make a build current: it gets the new sessions that ask for no build."""
    named = build or identify(context).build.id
    _must_be_an_id(named)
    _change(
        _place(context, "promote", agent_name),
        lambda rollout, now: rollout.promoted(named, now, force=force),
    )


@app.command()
def ramp(  # noqa: PLR0917 Typer's
    context: typer.Context,
    build: Annotated[str, typer.Argument(help="A build id.")],
    percent: Annotated[float, typer.Argument(help="Its share, 0 to 100; 0 ends the ramp.")],
    force: Force = False,
    agent_name: AgentName = None,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
) -> None:
    """Give a build a share of the new sessions that ask for no build."""
    _must_be_an_id(build)
    _change(
        _place(context, "ramp", agent_name),
        lambda rollout, now: rollout.ramped(build, percent, now, force=force),
    )


@app.command()
def rollback(
    context: typer.Context,
    agent_name: AgentName = None,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
) -> None:
    """Make the previous build current again; while a build ramps, end the ramp instead."""
    _change(_place(context, "rollback", agent_name), Rollout.rolled_back)


def _must_be_an_id(build: str) -> None:
    if not is_build_id(build):
        fail(f"{build!a} is not a build id; expected one like `agent.py build` prints")


def _place(context: typer.Context, command: Command, agent_name: str | None) -> Place:
    config = check(context, command)
    if agent_name is None:
        from build_aware import livekit_private  # noqa: PLC0415 slow

        agent_name = livekit_private.agent_name(found(context).server())
    return Place(config.credentials, agent_name, config.deployment or "")


def _change(place: Place, changed: Callable[[Rollout, str], Rollout]) -> None:
    from build_aware.cli import rollout as steering  # noqa: PLC0415 slow

    if (urlsplit(place.credentials[0]).hostname or "").endswith(CLOUD):
        fail(
            "LiveKit Cloud has no rollout of this kind; use `lk agent deploy` and `lk agent "
            "rollback`, or name a build in the metadata of rooms"
        )
    before, after = _ask(place, steering.change(place.credentials, place.room, changed))
    typer.echo(f"For {place}:")
    typer.echo("Already so." if after is before else "Done. Workers follow within four seconds.")
    typer.echo("\n".join(_standings(after)))
    typer.echo(UNSEEN)


def _ask(place: Place, asking: Coroutine[Any, Any, T]) -> T:
    """What the server answers, or the end of the program with a line that says what is wrong."""
    from build_aware.adoption.api_errors import API_ERRORS  # noqa: PLC0415 slow
    from build_aware.cli import rollout as steering  # noqa: PLC0415

    # The secret of `livekit-server --dev` is short, and whoever uses it has not chosen it.
    warnings.filterwarnings("ignore", message="The HMAC key is")
    try:
        return asyncio.run(asking)
    except RolloutError as error:
        fail(str(error))
    except Unreadable as error:
        fail(
            f"this release cannot read the rollout in the room {place.room}: {error}. If a newer "
            "release wrote it, upgrade this agent; if not, run `lk room delete` on that room, and "
            "the workers put back what they know"
        )
    except steering.Overtaken as error:
        _say(f"{error}; it is now:", *_standings(error.now), code=ExitCode.CRASHED)
    except API_ERRORS as error:
        problem = str(error) or type(error).__name__
        _say(
            f"{place.credentials[0]} did not answer as a LiveKit server does: {problem}; check "
            "LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET",
            code=ExitCode.UNREACHABLE,
        )


def _say(*lines: str, code: ExitCode) -> NoReturn:
    for line in lines:
        typer.echo(f"build-aware: {line}", err=True)
    raise typer.Exit(code)


def _standings(rollout: Rollout) -> list[str]:
    said = []
    if rollout.current is not None:
        said.append(f"current   {rollout.current.build}")
    if rollout.ramp is not None:
        said.append(f"ramping   {rollout.ramp.build}, {rollout.ramp.percent:g} %")
    if rollout.previous is not None:
        said.append(f"previous  {rollout.previous.build}")
    return said
