"""From what was seen to the verdict: who counts where. Pure and total."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from bench.soak.plan import KINDS, WAYS
from bench.soak.seen import FaultSeen, Leftover, Seen, Span, UserSeen
from bench.soak.troubles import ENDED_S, FORGIVEN, WRONGS, Trouble, Wrong, moment_s, troubles_of
from build_aware.rehearsal.verdict import percentile

NO_FAULT: Final = "no fault"

AFTER_S: Final = 10.0
"""For how long after its end a fault is what happens to users."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The longest that users waited for an answer, in seconds."""

    p50_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        name: the kind of fault, or what the users did.
        count: how many users were there, for each such fault.
        delay: how long they waited; None if none was answered.
        wrong: how many went wrong, by kind.
        talked: how many talked to an agent before and after the fault.
        kept: how many of these to the same one.
    """

    name: str
    count: int
    delay: Delay | None
    wrong: dict[Wrong, int]
    talked: int
    kept: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a soak."""

    by_fault: tuple[Row, ...]
    by_way: tuple[Row, ...]
    troubles: tuple[Trouble, ...]
    leftovers: tuple[Leftover, ...]
    absent: tuple[int, ...]

    def count(self, kind: Wrong) -> int:
        """How many users went wrong in this way."""
        return len({trouble.user for trouble in self.troubles if trouble.kind == kind})

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong that could be helped."""
        nothing_left = not self.leftovers and not self.absent
        return nothing_left and all(t.kind == FORGIVEN for t in self.troubles)


def judge(seen: Seen) -> Verdict:
    """Judge a soak by what was seen."""
    parts: list[_Part] = []
    wholes: list[_Part] = []
    for user in seen.users:
        troubles = sorted(troubles_of(user, seen), key=lambda trouble: trouble.at_s)
        own = list(_parts(user, troubles, seen.faults))
        parts += own
        told = tuple(trouble for part in own for trouble in part.troubles)
        wholes.append(_Part(user.way, told, _waits(user), None))
    return Verdict(
        by_fault=tuple(_row(name, parts) for name in (NO_FAULT, *KINDS)),
        by_way=tuple(_row(name, wholes) for name in WAYS),
        troubles=tuple(trouble for whole in wholes for trouble in whole.troubles),
        leftovers=seen.leftovers,
        absent=seen.absent,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """What a row has of one user.

    Attributes:
        row: the row's name.
        troubles: what went wrong for the user, and counts in this row.
        waits: each answer that counts in this row: its moment, and how long it took, in seconds.
        kept: whether the conversation was kept; None if there was none to keep.
    """

    row: str
    troubles: tuple[Trouble, ...]
    waits: tuple[tuple[float, float], ...]
    kept: bool | None


def _parts(
    user: UserSeen, troubles: Iterable[Trouble], faults: Iterable[FaultSeen]
) -> Iterator[_Part]:
    """Divide a user's time by the faults in it: what happens counts with the latest before."""
    own = of_its_time(user, faults)
    begins = [-math.inf, *(fault.from_s for fault in own), math.inf]
    for fault, span in zip([None, *own], map(Span, begins, begins[1:]), strict=True):
        name = fault.kind if fault else NO_FAULT
        part = _Part(
            row=name,
            troubles=tuple(
                replace(trouble, after=name)
                for trouble in troubles
                if span.from_s <= trouble.began_s < span.to_s
            ),
            waits=tuple(each for each in _waits(user) if span.from_s <= each[0] < span.to_s),
            kept=_kept(user, fault) if fault else None,
        )
        if fault or not own or part.troubles or part.waits:
            yield part


def of_its_time(user: UserSeen, faults: Iterable[FaultSeen]) -> list[FaultSeen]:
    """The faults that a user was there for, from the room's making to the last goodbye."""
    if not user.stays:
        return []
    time = Span(user.made_s, user.stays[-1].to_s)
    own = [
        fault
        for fault in faults
        if fault.skipped is None and Span(fault.from_s, fault.to_s + AFTER_S).overlaps(time)
    ]
    return sorted(own, key=lambda fault: fault.from_s)


def _waits(user: UserSeen) -> tuple[tuple[float, float], ...]:
    return tuple(
        (moment_s(question), question.answered_s - question.since_s)
        for stay in user.stays
        for question in stay.questions
        if question.answered_s is not None
    )


def _row(name: str, parts: Iterable[_Part]) -> Row:
    own = [part for part in parts if part.row == name]
    waits = [max(wait_s for _, wait_s in part.waits) for part in own if part.waits]
    kept = [part.kept for part in own if part.kept is not None]
    return Row(
        name=name,
        count=len(own),
        delay=Delay(percentile(waits, 50), percentile(waits, 95), max(waits)) if waits else None,
        wrong={kind: sum(any(t.kind == kind for t in p.troubles) for p in own) for kind in WRONGS},
        talked=len(kept),
        kept=sum(kept),
    )


def _kept(user: UserSeen, fault: FaultSeen) -> bool | None:
    """Whether the agent that had answered before a fault did so after it; None without both."""
    for stay in user.stays:
        answers = [(r.at_s, v.identity) for v in stay.visits for r in v.heard if r.build]
        before = [each for each in answers if each[0] < fault.from_s]
        after = [each for each in answers if fault.to_s < each[0] <= fault.to_s + ENDED_S]
        if before and after:
            # The last one: an agent may answer what it was asked before the fault took hold.
            return max(after)[1] == max(before)[1]
    return None
