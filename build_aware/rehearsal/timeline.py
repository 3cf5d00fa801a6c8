"""The picture: workers and sessions over time, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from build_aware.rehearsal import report
from build_aware.rehearsal.seen import Seen, SessionSeen, WorkerSeen
from build_aware.rehearsal.verdict import KINDS, Kind, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SUFFIXES: Final = (".svg", ".png")

COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Of builds, one after the other; told apart by colour-blind people too (Okabe and Ito)."""

MARKS: Final[dict[Kind, tuple[str, str]]] = {
    "misrouted": ("D", "misrouted: answered by the wrong build"),
    "lost": ("X", "lost: no agent came"),
    "cut": ("<", "cut: the agent left before the user"),
    "doubled": ("s", "doubled: two agents"),
}
"""The marker of each kind of trouble, and its line in the legend."""

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
_INK: Final = "#222222"
_GREY: Final = "#8A8A8A"


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
    _legend(figure, runs)
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
        color=_INK,
    )
    counts = ", ".join(f"{verdict.count(kind)} {kind}" for kind in KINDS)
    axes.annotate(
        f"{verdict.asked} sessions: {counts}; lingering {report.lingering(verdict)}",
        (0, 1),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color=_INK,
    )


def _draw_workers(axes: Axes, seen: Seen) -> None:
    colour = colours(seen)
    for lane, worker in enumerate(seen.workers):
        end_s = seen.end_s if worker.exited_s is None else worker.exited_s
        for begin_s, until_s, state in states(worker, end_s):
            style = _style(state, colour[worker.build])
            axes.barh(lane, until_s - begin_s, left=begin_s, height=0.72, linewidth=0.8, **style)
        if worker.gave_up_s is not None or worker.crashed_s is not None:
            axes.plot(end_s, lane, marker="P", color=_INK, markersize=7, markeredgecolor="white")
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
        return {"facecolor": "white", "edgecolor": _GREY, "linestyle": ":"}
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
            color=_GREY,
            linewidth=0.8,
            solid_capstyle="butt",
        )
        for begin_s, until_s, build in served(session):
            axes.barh(
                row, until_s - begin_s, left=begin_s, height=0.8, color=colour.get(build, _GREY)
            )
        if session.target is None:
            axes.plot(
                session.asked_s,
                row,
                marker="o",
                color="white",
                markeredgecolor=_INK,
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
        axes.axvspan(at_s, until_s, color=colour.get(build, _GREY), alpha=0.16, linewidth=0)
        axes.annotate(
            f"target: {build}" if at_s == seen.targets[0][0] else build,
            (max(at_s, 0), 1),
            xytext=(3, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7.5,
            color=_INK,
            annotation_clip=False,
        )
    for at_s, build in seen.stops:
        axes.axvline(at_s, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            f"stop {build}",
            (at_s, 1),
            xytext=(2, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7,
            rotation=90,
            va="top",
            color=_INK,
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
    axes.spines["bottom"].set_color(_GREY)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5, color=_GREY)


def _legend(figure: Figure, runs: Sequence[tuple[Seen, Verdict]]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    builds = max((colours(seen) for seen, _ in runs), key=len)
    handles: list[Patch | Line2D] = [
        Patch(facecolor=colour, label=f"served by {build}") for build, colour in builds.items()
    ]
    grey = "#666666"
    handles += [
        Patch(facecolor="white", edgecolor=_GREY, linestyle=":", label="worker: starting"),
        Patch(facecolor=grey, label="worker: ready"),
        Patch(facecolor=grey, edgecolor="white", hatch="/////", label="worker: draining"),
        Patch(facecolor="#E4E4E4", label="shaded: the target then"),
        Line2D([], [], color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), label="stop ordered"),
        Line2D([], [], color=_GREY, linewidth=0.8, label="a user waits"),
        _mark("o", "asked for no build", size=4, face="white"),
    ]
    handles += [_mark(marker, label) for marker, label in MARKS.values()]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=5,
        frameon=False,
        fontsize=8,
        handlelength=1.8,
        columnspacing=1.6,
        borderaxespad=0.3,
    )


def _mark(marker: str, label: str, *, size: float = 7, face: str = "black") -> Line2D:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    edge = "white" if face == "black" else _INK
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        color=face,
        markeredgecolor=edge,
        markersize=size,
        markeredgewidth=0.7,
        label=label,
    )
