"""What workers' logs say: warnings, errors and tracebacks, counted by kind."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LEVELS: Final = ("WARNING", "ERROR", "CRITICAL")

_BEGIN: Final = "Traceback (most recent call last)"

_FRAME: Final = re.compile(r'^\s*(?:\|\s*)*File "([^"]+)", line (\d+)', re.MULTILINE)

_DETAILS: Final = re.compile(r'(; | at "| importing ).*')
"""What to do about it, and where the event loop was blocked."""

_NUMBERS: Final = re.compile(r"\b\w*\d\w*\b")
"""Words with digits in them: ids, ports and times, which make one kind look like many."""


@dataclass(frozen=True, slots=True, order=True)
class Traceback:
    """A kind of traceback.

    Attributes:
        ours: the last file and line of ours in it; empty if there is none.
        cause: its last line.
        message: what was logged with it.
    """

    ours: str
    cause: str
    message: str


@dataclass(frozen=True, slots=True)
class Logs:
    """What was counted: messages by level and text, and tracebacks."""

    messages: Mapping[tuple[str, str], int]
    tracebacks: Mapping[Traceback, int]

    @property
    def ours(self) -> int:
        """How many tracebacks go through our code."""
        return sum(number for traceback, number in self.tracebacks.items() if traceback.ours)


def read(lines: Iterable[str], root: Path) -> Logs:
    """Read the output of workers.

    Args:
        lines: the lines, one record each, or text that was printed.
        root: the folder of the checkout; the code below its `agent` is ours.
    """
    messages: Counter[tuple[str, str]] = Counter()
    tracebacks: Counter[Traceback] = Counter()
    for level, message, details in _records(lines):
        if level in LEVELS:
            messages[level, kind_of(message)] += 1
        # Some libraries log a traceback as the message.
        text = details if _BEGIN in details else message
        if _BEGIN in text:
            tracebacks[_traceback(text, message, root)] += 1
    return Logs(dict(messages), dict(tracebacks))


def kind_of(message: str) -> str:
    """A message without what differs each time: the begin of its first line, without numbers."""
    first, *_ = message.splitlines() or [""]
    return _NUMBERS.sub("#", _DETAILS.sub("", first))[:120]


def _records(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Level, message and details; printed text that follows itself is one record."""
    printed: list[str] = []
    for line in lines:
        record = _record(line)
        if record is None:
            if line.startswith(_BEGIN) and printed:
                yield "", "printed", "\n".join(printed)
                printed = []
            printed.append(line)
            continue
        if printed:
            yield "", "printed", "\n".join(printed)
            printed = []
        yield (
            str(record.get("level", "")),
            str(record.get("message", "")),
            str(record.get("exc_info") or record.get("stack_info") or ""),
        )
    if printed:
        yield "", "printed", "\n".join(printed)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _traceback(text: str, message: str, root: Path) -> Traceback:
    ours = [
        f"{Path(file).relative_to(root)}:{line}"
        for file, line in _FRAME.findall(text)
        if Path(file).is_relative_to(root / "agent") or Path(file) == root / "agent.py"
    ]
    causes = [line.strip(" |+-") for line in text.splitlines() if line.strip(" |+-0123456789")]
    cause = next((c for c in reversed(causes) if not c.startswith(("File ", "^"))), "")
    return Traceback(ours[-1] if ours else "", kind_of(cause), kind_of(message))
