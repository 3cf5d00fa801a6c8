"""What can go wrong for a user: pure, and the only place where these words are defined.

docs/soak.md explains them to readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, TypeAlias

from bench.soak.plan import Kind
from bench.soak.seen import FaultSeen, Question, Seen, Span, Stay, UserSeen
from build_aware.rehearsal.seen import Visit

Wrong: TypeAlias = Literal["lost", "cut", "doubled", "misrouted", "forgotten"]

WRONGS: Final[tuple[Wrong, ...]] = ("lost", "cut", "doubled", "misrouted", "forgotten")

FORGIVEN: Final[Wrong] = "forgotten"
"""What no worker can help."""

SOON_S: Final = 2.0
"""A question that takes longer to be answered than this was asked when something was wrong."""

LOST_S: Final = 20.0
"""A user who has waited for this long is lost,"""

UP_S: Final = 15.0
"""if the server was up and the user connected for the last of it."""

ENDS: Final[frozenset[Kind]] = frozenset(
    {"kill-worker", "kill-job", "kill-server", "answer-401", "answer-503"}
)
"""The faults that may end sessions. The others must not."""

ENDED_S: Final = 30.0
"""For how long after its end such a fault may be why a session ended: as long as LiveKit's
clients try to come back."""

RETURN_S: Final = 15.0
"""A session that a user left may end while the user is back for less than this."""

LEAVING_S: Final = 0.5
"""An agent that leaves this shortly before its user does not leave before its user."""

STOPPING_S: Final = 1.0
"""From the order to stop until a worker takes no more untargeted rooms."""

LEARNS_S: Final = 3.0
"""How long a worker needs to see what a new room asks for: it lists rooms every two seconds."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong for a user.

    Attributes:
        user: the user's number.
        kind: how.
        at_s: when it was clear.
        began_s: when it began.
        why: in words.
        after: the kind of fault that it counts with.
    """

    user: int
    kind: Wrong
    at_s: float
    began_s: float
    why: str
    after: str = ""


def troubles_of(user: UserSeen, seen: Seen) -> Iterator[Trouble]:
    """All that went wrong for a user, in no order."""
    yield from _misrouted(user, seen)
    for stay in user.stays:
        for question in stay.questions:
            yield from _lost(user, stay, question, seen)
        yield from _cut(user, stay, seen.faults)
        yield from _doubled(user, stay)


def _lost(user: UserSeen, stay: Stay, question: Question, seen: Seen) -> Iterator[Trouble]:
    end_s = stay.to_s if question.answered_s is None else question.answered_s
    # From one disturbance to the next: in these times the user could have been answered.
    up_since_s = question.since_s
    disturbed = sorted([*seen.outages, *stay.away], key=lambda span: span.from_s)
    for span in [*disturbed, Span(end_s, end_s)]:
        until_s = min(span.from_s, end_s)
        lost_s = max(question.since_s + LOST_S, up_since_s + UP_S)
        if lost_s <= until_s:
            there = [v for v in stay.visits if v.from_s <= lost_s and (v.to_s or lost_s) >= lost_s]
            why = "an agent is there but does not answer" if there else "no agent is there"
            why += f", for {end_s - question.since_s:.0f} s"
            # Nobody can know of a room that it wanted an agent before its server forgot it.
            forgotten = not there and not _is_known(user, lost_s, seen)
            kind: Wrong = "forgotten" if forgotten else "lost"
            yield Trouble(user.number, kind, lost_s, moment_s(question), why)
            return
        up_since_s = max(up_since_s, span.to_s)


def _cut(user: UserSeen, stay: Stay, faults: tuple[FaultSeen, ...]) -> Iterator[Trouble]:
    for visit in stay.visits:
        gone_s = visit.to_s
        if visit.answered_s is None or gone_s is None or gone_s > stay.to_s - LEAVING_S:
            continue
        if visit.from_s < stay.from_s and gone_s < stay.from_s + RETURN_S:
            continue  # Its user had left.
        if any(_relieves(other, visit, gone_s) for other in stay.visits):
            continue
        if any(_ended_by(fault, user, visit, gone_s) for fault in faults):
            continue
        why = f"the agent left {stay.to_s - gone_s:.1f} s before the user"
        yield Trouble(user.number, "cut", gone_s, gone_s, why)


def _relieves(other: Visit, visit: Visit, gone_s: float) -> bool:
    """Whether another agent was there already: one of two has to leave."""
    return (
        other is not visit
        and other.from_s <= gone_s
        and (other.to_s is None or other.to_s > gone_s)
        and other.answered_s is not None
    )


def _ended_by(fault: FaultSeen, user: UserSeen, visit: Visit, gone_s: float) -> bool:
    return (
        fault.kind in ENDS
        and fault.skipped is None
        and fault.hit in (None, visit.worker, room_name(user.number))
        and fault.from_s <= gone_s <= fault.to_s + ENDED_S
    )


def _doubled(user: UserSeen, stay: Stay) -> Iterator[Trouble]:
    for one, other in combinations(stay.visits, 2):
        both = Span(
            max(one.from_s, other.from_s),
            min(stay.to_s if visit.to_s is None else visit.to_s for visit in (one, other)),
        )
        spoke = [_spoke_s(visit, both) for visit in (one, other)]
        if spoke[0] is not None and spoke[1] is not None:
            why = f"two agents for {both.to_s - both.from_s:.1f} s, and both spoke"
            at_s = max(spoke[0], spoke[1])
            yield Trouble(user.number, "doubled", at_s, at_s, why)
            return


def _spoke_s(visit: Visit, span: Span) -> float | None:
    spoke = (remark.at_s for remark in visit.heard)
    return next((at_s for at_s in spoke if span.from_s <= at_s <= span.to_s), None)


def _misrouted(user: UserSeen, seen: Seen) -> Iterator[Trouble]:
    for stay in user.stays:
        for visit in stay.visits:
            for remark in visit.heard:
                if remark.build is not None and (why := _wrong(user, visit, remark.build, seen)):
                    kind: Wrong = "misrouted" if _is_known(user, remark.at_s, seen) else "forgotten"
                    yield Trouble(user.number, kind, remark.at_s, visit.from_s, why)
                    return


def _wrong(user: UserSeen, visit: Visit, build: str, seen: Seen) -> str:
    """Why a build should not have served a user; empty if it may."""
    if user.target is None:
        stops = [w.stop_s for w in seen.workers if w.build == build and w.stop_s is not None]
        if stops and max(stops) + STOPPING_S < user.asked_s:
            return f"answered by {build}, told to stop {user.asked_s - max(stops):.1f} s before"
        return ""
    if build == user.target:
        return ""
    if user.wait_s is None:
        return f"asked for {user.target}, answered by {build}"
    came_s = visit.from_s - user.asked_s
    if came_s < user.wait_s:
        return f"asked for {user.target}, answered by {build} after {came_s:.1f} s"
    return ""


def _is_known(user: UserSeen, at_s: float, seen: Seen) -> bool:
    """Whether a worker that runs had the time to see what the room asked for."""
    # A server that starts again knows nothing: what was asked was to be seen before its end.
    gone_s = min((o.from_s for o in seen.outages if o.to_s > user.made_s), default=at_s)
    return (
        any(
            worker.ready_s is not None
            and max(worker.ready_s, user.made_s) + LEARNS_S <= min(gone_s, at_s)
            and (worker.exited_s is None or worker.exited_s > at_s)
            for worker in seen.workers
        )
        or gone_s >= at_s
    )


def moment_s(question: Question) -> float:
    """The moment that decides which fault an answer, or its lack, counts with."""
    late_s = question.since_s + SOON_S
    return late_s if question.answered_s is None else min(late_s, question.answered_s)


def room_name(number: int) -> str:
    """The name of a user's room."""
    return f"room-{number}"
