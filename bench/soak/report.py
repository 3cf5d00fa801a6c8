"""The verdict for people and for programs: tables, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from bench.soak.growth import Change
from bench.soak.judge import Row, Verdict
from bench.soak.logs import Logs
from bench.soak.plan import Options, Plan
from bench.soak.seen import Seen
from bench.soak.troubles import WRONGS

FORMAT: Final = 1
"""The version of the JSON; it changes when a field changes its meaning or goes away."""


def table(title: str, rows: Sequence[Row]) -> Table:
    """One row for each kind of fault, or for each way of users."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column(title, no_wrap=True)
    for name in ("users", "answer p50", "p95", "max", *WRONGS, "kept"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(row.name, *_cells(row))
    return made


def _cells(row: Row) -> list[str]:
    delay = row.delay
    delays = [] if delay is None else [delay.p50_s, delay.p95_s, delay.max_s]
    return [
        str(row.count),
        *([f"{seconds:.1f} s" for seconds in delays] or ["-"] * 3),
        *(str(row.wrong[kind]) for kind in WRONGS),
        f"{row.kept} of {row.talked}" if row.talked else "-",
    ]


def lines(seen: Seen, verdict: Verdict, logs: Logs, grown: Sequence[Change]) -> Iterator[str]:
    """What went wrong, what was left, what was logged, and what has grown."""
    for fault in seen.faults:
        if fault.skipped:
            yield f"fault {fault.number}, {fault.kind}, was skipped: {fault.skipped}"
    for trouble in verdict.troubles:
        what = f"user {trouble.user} {trouble.kind} after {trouble.after}: {trouble.why}"
        yield f"{trouble.at_s:7.1f} s  {what}"
    for number in verdict.absent:
        yield f"user {number} could not get into the room"
    yield f"left over: {len(verdict.leftovers)}"
    for left in verdict.leftovers:
        yield f"  {left.kind} of {left.where}: {left.why}"
    yield f"tracebacks through our code: {logs.ours}"
    yield "tracebacks, with their cause and what was logged:"
    for traceback, number in sorted(logs.tracebacks.items(), key=lambda pair: -pair[1]):
        where = f" at {traceback.ours}" if traceback.ours else ""
        yield f"  {number:4} x {traceback.cause}{where} ({traceback.message})"
    yield "warnings and errors of workers:"
    for (level, message), number in sorted(logs.messages.items(), key=lambda pair: -pair[1]):
        yield f"  {number:4} x {level} {message}"
    yield "the steady worker, from the middle of the run to its end:"
    for change in grown:
        values = f"{change.middle:8.0f} to {change.end:6.0f}"
        yield f"  {change.name:12} {values}  {change.percent:+5.1f} %"


def as_json(
    options: Options,
    plan: Plan,
    seen: Seen,
    *,
    verdict: Verdict,
    logs: Logs,
    grown: Sequence[Change],
) -> str:
    """All that is known, for programs."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "options": asdict(options),
        "clean": is_clean(verdict, logs),
        **{kind: verdict.count(kind) for kind in WRONGS},
        "by_fault": [asdict(row) for row in verdict.by_fault],
        "by_way": [asdict(row) for row in verdict.by_way],
        "troubles": [asdict(trouble) for trouble in verdict.troubles],
        "leftovers": [asdict(left) for left in verdict.leftovers],
        "tracebacks": [asdict(t) | {"count": n} for t, n in logs.tracebacks.items()],
        "messages": [
            {"level": level, "message": message, "count": n}
            for (level, message), n in logs.messages.items()
        ],
        "growth": [asdict(change) | {"percent": change.percent} for change in grown],
        "plan": asdict(plan),
        "seen": asdict(seen),
    }
    return json.dumps(content, indent=2)


def is_clean(verdict: Verdict, logs: Logs) -> bool:
    """Whether nothing went wrong that could be helped."""
    return verdict.clean and not logs.ours
