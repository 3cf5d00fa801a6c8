"""`python agent.py rehearse`: options, progress, verdict and exit code."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from build_aware.rehearsal import report, scenario, timeline
from build_aware.rehearsal.scenario import Options, Scenario, Stop
from build_aware.rehearsal.seen import Seen
from build_aware.rehearsal.stage import Stage, Tell, first_error
from build_aware.rehearsal.verdict import Limits, judge
from build_aware.rehearsal.workers import CONTESTANTS, OURS, Contestant, contestant, ours
from build_aware.testbed import Processes, StartError
from build_aware.testbed.ending import run_and_exit
from build_aware.testbed.environ import talk_to_this_machine_only
from build_aware.testbed.interrupts import end_all, interruptible
from build_aware.testbed.livekit_server import find_binary

CLEAN: Final = 0
TROUBLE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""The exit codes; docs/rehearsal.md has the table."""

DEFAULTS: Final = Options()

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help="Rehearse a rolling deploy on this machine, and print a verdict.")
def rehearse(
    context: typer.Context,
    *,
    worker: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What to rehearse: {OURS}, {', '.join(CONTESTANTS)}, or a Python FILE.",
        ),
    ] = OURS,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="Ask agents which build they are, and count only their answers.",
        ),
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All four in turn; implies --ask.")] = False,
    deploys: Annotated[
        int, typer.Option(help="Rolling deploys, each to a new build.")
    ] = DEFAULTS.deploys,
    workers: Annotated[int, typer.Option(help="Workers of each build.")] = DEFAULTS.workers,
    sessions: Annotated[int, typer.Option(help="Sessions in all.")] = DEFAULTS.sessions,
    length: Annotated[
        tuple[float, float], typer.Option(help="The shortest and longest session, in seconds.")
    ] = DEFAULTS.length_s,
    overlap: Annotated[
        float, typer.Option(help="Seconds from switching the target to stopping old workers.")
    ] = DEFAULTS.overlap_s,
    stop: Annotated[
        str, typer.Option(metavar="|".join(scenario.STOPS), help="How old workers are stopped.")
    ] = DEFAULTS.stop,
    target_first: Annotated[
        bool, typer.Option("--target-first", help="Target a build before its workers are up.")
    ] = DEFAULTS.target_first,
    untargeted: Annotated[
        float, typer.Option(help="The share of sessions that ask for no build.")
    ] = DEFAULTS.untargeted,
    kill_one: Annotated[
        bool, typer.Option("--kill-one", help="Kill a worker that serves, as a crash does.")
    ] = DEFAULTS.kill_one,
    patience: Annotated[
        float, typer.Option(help="How long a user waits for an agent and its answer, in seconds.")
    ] = DEFAULTS.patience_s,
    grace: Annotated[
        float,
        typer.Option(help="Seconds that an old worker may stay without users before it is killed."),
    ] = DEFAULTS.grace_s,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same scenario.")
    ] = DEFAULTS.seed,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all that is known.")
    ] = None,
    timeline_file: Annotated[
        Path | None,
        typer.Option("--timeline", metavar="FILE", help="Draw the picture, .svg or .png."),
    ] = None,
    logs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the logs of all processes.")
    ] = None,
) -> None:
    """Run it."""
    try:
        options = Options(
            deploys=deploys,
            workers=workers,
            sessions=sessions,
            length_s=length,
            overlap_s=overlap,
            stop=_stop(stop),
            target_first=target_first,
            untargeted=untargeted,
            kill_one=kill_one,
            patience_s=patience,
            grace_s=grace,
            seed=seed,
        )
        own = ours(context.obj, answers=ask or every)
        if every:
            chosen = [own, *CONTESTANTS.values()]
        else:
            chosen = [own if worker == OURS else contestant(worker, answers=ask)]
        find_binary()
        for file in (json_file, timeline_file):
            _check_writable(file)
        timeline.check_suffix(timeline_file)
    except ModuleNotFoundError as error:
        _fail(
            f"--timeline needs the Python module {error.name}; "
            "install build-aware[rehearse], and run it again"
        )
    except (ValueError, StartError) as error:
        _fail(str(error))
    plan = scenario.plan(options)
    console = Console(stderr=True, highlight=False)
    try:
        found = _rehearse(options, plan, chosen, console, logs)
    except StartError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("interrupted; all processes are ended")
        raise typer.Exit(INTERRUPTED) from None
    limits = Limits(options.patience_s)
    runs = [(seen, judge(seen, limits)) for seen in found]
    verdicts = [verdict for _, verdict in runs]
    out = Console(highlight=False, width=None if os.isatty(1) else 120)
    out.print(report.table(verdicts))
    for verdict in verdicts:
        for line in report.troubles(verdict):
            out.print(line, markup=False)
    if json_file is not None:
        json_file.write_text(report.as_json(options, plan, runs) + "\n", "utf-8")
    if timeline_file is not None:
        timeline.draw(runs, timeline_file)
    raise typer.Exit(CLEAN if all(verdict.clean for verdict in verdicts) else TROUBLE)


def _rehearse(
    options: Options,
    plan: Scenario,
    chosen: Sequence[Contestant],
    console: Console,
    logs: Path | None,
) -> list[Seen]:
    """Run the contestants, and leave no process behind, whatever happens."""
    with ExitStack() as stack:
        if logs is None:
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rehearsal-")))
        progress = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("sessions"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
        )
        stages = []
        for one in chosen:
            folder = logs / one.name
            folder.mkdir(parents=True, exist_ok=True)
            started = Processes(folder)
            stack.callback(end_all, started)
            tell = _teller(one, options, progress)
            stages.append(Stage(options, plan, one, started=started, folder=folder, tell=tell))
        return asyncio.run(interruptible(_one_after_the_other(stages)))
    raise AssertionError("not reached: no callback of the stack swallows errors")


def _teller(one: Contestant, options: Options, progress: Progress) -> Tell:
    bar = progress.add_task(one.name, total=options.sessions, start=False)

    def tell(at_s: float, line: str, over: int) -> None:
        progress.start_task(bar)
        progress.update(bar, completed=over)
        if line:
            progress.console.print(f"{one.name:12}{at_s:6.1f} s  {line}", markup=False)

    return tell


async def _one_after_the_other(stages: Sequence[Stage]) -> list[Seen]:
    """Run each stage when the users of the one before are gone.

    Old workers that linger cost time but hardly any CPU, and the next one need not wait for them.
    """
    runs: list[asyncio.Task[Seen]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for stage in stages:
                runs.append(group.create_task(stage.run()))
                gone = asyncio.create_task(stage.users_gone.wait())
                await asyncio.wait({runs[-1], gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    return [run.result() for run in runs]


def _stop(way: str) -> Stop:
    for known in scenario.STOPS:
        if way == known:
            return known
    raise ValueError(f"--stop {way!a}: expected {', '.join(scenario.STOPS)}")


def _check_writable(file: Path | None) -> None:
    if file is not None and not file.resolve().parent.is_dir():
        raise ValueError(f"{file}: its folder does not exist; create it, or name another file")


def _fail(problem: str) -> NoReturn:
    typer.echo(f"rehearse: {problem}", err=True)
    raise typer.Exit(USAGE)


def main(arguments: list[str], file: Path) -> NoReturn:
    """Run the command with these arguments for the agent that `file` begins, and exit."""
    talk_to_this_machine_only()
    run_and_exit(lambda: app(args=arguments, obj=file, prog_name=f"{file.name} rehearse"))
