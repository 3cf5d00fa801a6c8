"""What the colours, lines and markers of the picture mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from build_aware.rehearsal.verdict import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

INK: Final = "#222222"
GREY: Final = "#8A8A8A"

MARKS: Final[dict[Kind, tuple[str, str]]] = {
    "misrouted": ("D", "misrouted: answered by the wrong build"),
    "outdated": ("v", "outdated: answered by an old build"),
    "lost": ("X", "lost: no agent came"),
    "cut": ("<", "cut: the agent left before the user"),
    "doubled": ("s", "doubled: two agents"),
}
"""The marker of each kind of trouble, and its line in the legend."""


def legend(figure: Figure, colours: Sequence[dict[str, str]]) -> None:
    """Draw it; `colours` are those of the builds, for each run."""
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    builds = max(colours, key=len)
    handles: list[Patch | Line2D] = [
        Patch(facecolor=colour, label=f"served by {build}") for build, colour in builds.items()
    ]
    grey = "#666666"
    handles += [
        Patch(facecolor="white", edgecolor=GREY, linestyle=":", label="worker: starting"),
        Patch(facecolor=grey, label="worker: ready"),
        Patch(facecolor=grey, edgecolor="white", hatch="/////", label="worker: draining"),
        Patch(facecolor="#E4E4E4", label="shaded: the target then"),
        Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="stop ordered"),
        Line2D([], [], color=GREY, linewidth=0.8, label="a user waits"),
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

    edge = "white" if face == "black" else INK
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
