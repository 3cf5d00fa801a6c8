"""The verdict for people and for programs: a table, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from build_aware.rehearsal.scenario import Options, Scenario
from build_aware.rehearsal.seen import Seen
from build_aware.rehearsal.verdict import KINDS, Verdict

FORMAT: Final = 1
"""The version of the JSON; it changes when a field changes its meaning or goes away."""

SHOWN_TROUBLES: Final = 6
"""How many troubles of a contestant are told in words; the JSON has all."""


def table(verdicts: Sequence[Verdict]) -> Table:
    """One row for each contestant."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("worker", no_wrap=True)
    for name in HEADINGS:
        made.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        made.add_row(verdict.contestant, *cells(verdict))
    return made


HEADINGS: Final = (
    "asked",
    "served",
    *KINDS,
    "delay p50",
    "p95",
    "max",
    "lingering",
)
"""The columns of the table, behind the worker's name."""


def cells(verdict: Verdict) -> list[str]:
    """A row of the table."""
    delay = verdict.delay
    delays = [] if delay is None else [delay.p50_s, delay.p95_s, delay.max_s]
    return [
        str(verdict.asked),
        str(verdict.served),
        *(str(verdict.count(kind)) for kind in KINDS),
        *([f"{seconds:.1f} s" for seconds in delays] or ["-"] * 3),
        lingering(verdict),
    ]


def lingering(verdict: Verdict) -> str:
    """How long old workers stayed for nobody: the range, and how many never went."""
    seconds = [worker.seconds for worker in verdict.lingering if worker.seconds is not None]
    parts = [f"{min(seconds):.1f} to {max(seconds):.1f} s"] if seconds else []
    never = len(verdict.lingering) - len(seconds)
    if never:
        parts.append("never" if not seconds else f"{never} never")
    return ", ".join(parts) or "-"


def troubles(verdict: Verdict) -> list[str]:
    """What went wrong, in words: the first few, and how many more there are."""
    lines = [
        f"{verdict.contestant}: session {trouble.session} {trouble.kind}: {trouble.why}"
        for trouble in verdict.troubles[:SHOWN_TROUBLES]
    ]
    more = len(verdict.troubles) - len(lines)
    return [*lines, f"{verdict.contestant}: and {more} more"] if more else lines


def as_json(options: Options, scenario: Scenario, runs: Sequence[tuple[Seen, Verdict]]) -> str:
    """All that is known, for programs: the scenario, and what was seen and judged."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "options": asdict(options),
        "scenario": asdict(scenario),
        "clean": all(verdict.clean for _, verdict in runs),
        "contestants": [
            {
                "contestant": verdict.contestant,
                "asked": verdict.asked,
                "served": verdict.served,
                **{kind: verdict.count(kind) for kind in KINDS},
                "delay": asdict(verdict.delay) if verdict.delay else None,
                "lingering": {worker.worker: worker.seconds for worker in verdict.lingering},
                "troubles": [asdict(trouble) for trouble in verdict.troubles],
                "seen": asdict(seen),
            }
            for seen, verdict in runs
        ],
    }
    return json.dumps(content, indent=2)
