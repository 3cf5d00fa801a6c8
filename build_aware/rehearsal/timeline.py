"""The picture: workers and sessions over time, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from build_aware.rehearsal import report
from build_aware.rehearsal.legend import GREY, INK, MARKS, legend
from build_aware.rehearsal.seen import Seen, SessionSeen, WorkerSeen
from build_aware.rehearsal.verdict import KINDS, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES: Final = (".svg", ".png")

COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Of builds, one after the other; told apart by colour-blind people too (Okabe and Ito)."""

_WIDTH_IN: Final = 12.0
_DPI: Final = 100
_LANE_IN: Final = 0.19
_ROW_IN: Final = 0.072
_ROWS_IN: Final = 7.0
"""Sessions get no more than this: their rows become thinner."""

_TITLE_IN: Final = 0.55
_GAP_IN: Final = 0.24
_AXIS_IN: Final = 0.5
_LEFT_IN: Final = 0.72
_RIGHT_IN: Final = 0.12
_LEGEND_IN: Final = 0.75


def check_suffix(file: Path | None) -> None:
    """Check that a picture can be drawn to this file.

    Raises:
        ValueError: its suffix is of another format, with what is expected.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if file is None:
        return
    if file.suffix not in SUFFIXES:
        raise ValueError(f"--timeline {file}: expected a name that ends in .svg or .png")
    import matplotlib as mpl  # noqa: PLC0415 slow, and only needed for a picture

    mpl.use("Agg")


def draw(runs: Sequence[tuple[Seen, Verdict]], file: Path) -> None:
    """Draw one picture of all runs, side by side if there are several.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib import pyplot, rcParams  # noqa: PLC0415

    rcParams.update(
        {"svg.fonttype": "none", "font.size": 8, "hatch.linewidth": 0.7, "hatch.color": "white"}
    )
    columns = min(len(runs), 2)
    rows = -(-len(runs) // columns)
    lanes_in = max(len(seen.workers) for seen, _ in runs) * _LANE_IN
    bars_in = min(max(len(seen.sessions) for seen, _ in runs) * _ROW_IN, _ROWS_IN)
    panel_in = _TITLE_IN + lanes_in + _GAP_IN + bars_in + _AXIS_IN
    figure = pyplot.figure(figsize=(_WIDTH_IN, rows * panel_in + _LEGEND_IN), dpi=_DPI)
    height_in = figure.get_figheight()
    end_s = max(seen.end_s for seen, _ in runs)
    for index, (seen, verdict) in enumerate(runs):
        row, column = divmod(index, columns)
        left = column / columns + _LEFT_IN / _WIDTH_IN
        width = 1 / columns - (_LEFT_IN + _RIGHT_IN) / _WIDTH_IN
        top_in = height_in - row * panel_in - _TITLE_IN
        workers = figure.add_axes(
            (left, (top_in - lanes_in) / height_in, width, lanes_in / height_in)
        )
        bars_bottom_in = top_in - lanes_in - _GAP_IN - bars_in
        sessions = figure.add_axes((left, bars_bottom_in / height_in, width, bars_in / height_in))
        _title(workers, verdict)
        _draw_workers(workers, seen)
        _draw_sessions(sessions, seen, verdict)
        for axes in (workers, sessions):
            axes.set_xlim(0, end_s)
            _strip(axes)
        workers.tick_params(labelbottom=False, bottom=False)
        sessions.set_xlabel("seconds", labelpad=1)
    legend(figure, [colours(seen) for seen, _ in runs])
    figure.savefig(file, dpi=_DPI)
    pyplot.close(figure)


def colours(seen: Seen) -> dict[str, str]:
    """The colour of each build, in the order of their deploys."""
    builds = dict.fromkeys(worker.build for worker in seen.workers)
    return {build: COLOURS[index % len(COLOURS)] for index, build in enumerate(builds)}


def _title(axes: Axes, verdict: Verdict) -> None:
    axes.annotate(
        verdict.contestant,
        (0, 1),
        xytext=(0, 20),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=12,
        fontweight="bold",
        color=INK,
    )
    counts = ", ".join(f"{verdict.count(kind)} {kind}" for kind in KINDS)
    axes.annotate(
        f"{verdict.asked} sessions: {counts}; lingering {report.lingering(verdict)}",
        (0, 1),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )


def _draw_workers(axes: Axes, seen: Seen) -> None:
    colour = colours(seen)
    for lane, worker in enumerate(seen.workers):
        end_s = seen.end_s if worker.exited_s is None else worker.exited_s
        for begin_s, until_s, state in states(worker, end_s):
            style = _style(state, colour[worker.build])
            axes.barh(lane, until_s - begin_s, left=begin_s, height=0.72, linewidth=0.8, **style)
        if worker.gave_up_s is not None or worker.crashed_s is not None:
            axes.plot(end_s, lane, marker="P", color=INK, markersize=7, markeredgecolor="white")
            why = "killed: did not exit" if worker.crashed_s is None else "crashed"
            axes.annotate(
                why,
                (end_s, lane),
                xytext=(6 if end_s < 0.8 * seen.end_s else -6, 0),
                textcoords="offset points",
                va="center",
                ha="left" if end_s < 0.8 * seen.end_s else "right",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            )
    axes.set_yticks(range(len(seen.workers)), [worker.name for worker in seen.workers], fontsize=7)
    axes.set_ylim(len(seen.workers) - 0.4, -0.6)


def _style(state: str, colour: str) -> dict[str, Any]:
    if state == "starting":
        return {"facecolor": "white", "edgecolor": GREY, "linestyle": ":"}
    if state == "ready":
        return {"facecolor": colour, "edgecolor": colour}
    return {"facecolor": colour, "edgecolor": "white", "hatch": "/////", "alpha": 0.75}


def states(worker: WorkerSeen, end_s: float) -> list[tuple[float, float, str]]:
    """The states that a worker was in until `end_s`: from when to when, and which."""
    changes = [(worker.started_s, "starting"), (worker.ready_s, "ready")]
    changes += [(worker.stop_s, "draining")]
    known = [(at_s, state) for at_s, state in changes if at_s is not None]
    ends = [at_s for at_s, _ in known[1:]] + [end_s]
    return [
        (at_s, until_s, state)
        for (at_s, state), until_s in zip(known, ends, strict=True)
        if until_s > at_s
    ]


def _draw_sessions(axes: Axes, seen: Seen, verdict: Verdict) -> None:
    colour = colours(seen)
    _draw_targets(axes, seen, colour)
    for session in seen.sessions:
        row = session.number
        waited_s = served_from(session)
        axes.plot(
            [session.asked_s, waited_s],
            [row, row],
            color=GREY,
            linewidth=0.8,
            solid_capstyle="butt",
        )
        for begin_s, until_s, build in served(session):
            axes.barh(
                row, until_s - begin_s, left=begin_s, height=0.8, color=colour.get(build, GREY)
            )
        if session.target is None:
            axes.plot(
                session.asked_s,
                row,
                marker="o",
                color="white",
                markeredgecolor=INK,
                markersize=3,
                markeredgewidth=0.6,
            )
    for trouble in verdict.troubles:
        axes.plot(
            trouble.at_s,
            trouble.session,
            marker=MARKS[trouble.kind][0],
            color="black",
            markeredgecolor="white",
            markeredgewidth=0.7,
            markersize=7,
            zorder=5,
        )
    axes.set_ylim(len(seen.sessions) - 0.3, -0.7)
    axes.set_ylabel("sessions", fontsize=8)
    axes.set_yticks([])


def _draw_targets(axes: Axes, seen: Seen, colour: dict[str, str]) -> None:
    """Shade which build was the target when, and mark when old workers were told to stop."""
    ends = [at_s for at_s, _ in seen.targets[1:]] + [seen.end_s]
    for (at_s, build), until_s in zip(seen.targets, ends, strict=True):
        axes.axvspan(at_s, until_s, color=colour.get(build, GREY), alpha=0.16, linewidth=0)
        axes.annotate(
            f"target: {build}" if at_s == seen.targets[0][0] else build,
            (max(at_s, 0), 1),
            xytext=(3, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
            annotation_clip=False,
        )
    for at_s, build in seen.stops:
        axes.axvline(at_s, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            f"stop {build}",
            (at_s, 1),
            xytext=(2, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7,
            rotation=90,
            va="top",
            color=INK,
        )


def served(session: SessionSeen) -> list[tuple[float, float, str]]:
    """Who served a session: from when to when, and which build."""
    found = []
    for visit in session.visits:
        if visit.builds:
            until_s = session.left_s if visit.to_s is None else min(visit.to_s, session.left_s)
            found.append((visit.from_s, max(until_s, visit.from_s), visit.builds[0]))
    return found


def served_from(session: SessionSeen) -> float:
    """When the first agent that served came; when the user left, if none did."""
    return min((begin_s for begin_s, _, _ in served(session)), default=session.left_s)


def _strip(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5, color=GREY)
