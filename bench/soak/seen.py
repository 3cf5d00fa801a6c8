"""What was seen in a soak, by users, by the server and by the operating system.

All times are in seconds from the beginning of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.soak.plan import Kind, Way
from build_aware.rehearsal.seen import Visit, WorkerSeen


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when."""

    from_s: float
    to_s: float

    def overlaps(self, other: Span) -> bool:
        """Whether they have any time in common."""
        return self.from_s < other.to_s and other.from_s < self.to_s


@dataclass(frozen=True, slots=True)
class Question:
    """A user wants an answer: from when, and when it came; None if it never did."""

    since_s: float
    answered_s: float | None


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay of a user in the room, from joining to leaving; a page reload makes two.

    Attributes:
        from_s: when the user had joined.
        to_s: when the user left, or was thrown out for good.
        away: when the user was cut off from the room meanwhile.
        questions: what the user asked, in order.
        visits: the agents that were there.
    """

    from_s: float
    to_s: float
    away: tuple[Span, ...]
    questions: tuple[Question, ...]
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class UserSeen:
    """One user.

    Attributes:
        number: its number in the plan.
        way: what the user did.
        target: the build that the room asked for; None if it asked for none.
        wait_s: after how long any build may serve; None for never.
        asked_s: when the room was asked for.
        made_s: when the server had made the room.
        stays: in order.
    """

    number: int
    way: Way
    target: str | None
    wait_s: float | None
    asked_s: float
    made_s: float
    stays: tuple[Stay, ...]


@dataclass(frozen=True, slots=True)
class FaultSeen:
    """One fault, as it was done.

    Attributes:
        number: its number in the plan.
        kind: what it was.
        from_s: when it began.
        to_s: when it was over.
        hit: the name of the worker that it hit, or the room of the job; None if it hit all or
            ends nobody's session.
        skipped: why it was not done, if it was not.
    """

    number: int
    kind: Kind
    from_s: float
    to_s: float
    hit: str | None = None
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that should be gone: what, where, and in words."""

    kind: str
    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was seen.

    Attributes:
        users: in the order of the plan.
        faults: in order.
        workers: in the order of their start.
        outages: when the server was down.
        leftovers: what should be gone at the end.
        absent: the numbers of users who could not get into their room.
        end_s: when the last user was gone.
    """

    users: tuple[UserSeen, ...]
    faults: tuple[FaultSeen, ...]
    workers: tuple[WorkerSeen, ...]
    outages: tuple[Span, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    absent: tuple[int, ...] = ()
    end_s: float = 0.0
