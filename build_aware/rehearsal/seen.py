"""What was seen in a rehearsal, by users and by the operating system. The verdict's only source.

All times are in seconds from the beginning of the run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a user heard from an agent.

    Attributes:
        at_s: when it was heard to the end.
        build: the build that it names; None if it names none, as a greeting does.
    """

    at_s: float
    build: str | None


@dataclass(frozen=True, slots=True)
class Visit:
    """One agent in one room.

    Attributes:
        identity: the agent's identity in the room.
        worker: the worker whose process it came from; None if that is not known.
        from_s: when it came.
        to_s: when it left, or its connection ended; None if it stayed.
        heard: what it said, in order.
        published: whether it published audio.
    """

    identity: str
    worker: str | None
    from_s: float
    to_s: float | None
    heard: tuple[Remark, ...] = ()
    published: bool = False

    @property
    def builds(self) -> tuple[str, ...]:
        """The builds that it named when it answered."""
        return tuple(remark.build for remark in self.heard if remark.build is not None)

    @property
    def answered_s(self) -> float | None:
        """When it first answered; None if it never did."""
        return next((r.at_s for r in self.heard if r.build is not None), None)


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """One user's session.

    Attributes:
        number: its number in the scenario.
        target: the build that its room asked for; None if it asked for none.
        asked_s: when the backend asked for the room and its agent.
        left_s: when the user left.
        unanswered_s: when the user asked the question that nobody answered; None if all were.
        visits: the agents that were there.
    """

    number: int
    target: str | None
    asked_s: float
    left_s: float
    unanswered_s: float | None
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """One worker's life.

    Attributes:
        name: its name in the report.
        build: the build that it is.
        started_s: when its process was started.
        ready_s: when livekit-server confirmed its registration; None if it never did.
        stop_s: when its stop was ordered; None if it never was.
        crashed_s: when the rehearsal killed it, as a crash; None if it did not.
        exited_s: when its main process was gone; None if it still ran at the end.
        gave_up_s: when the rehearsal killed it because it did not exit; None if it did.
    """

    name: str
    build: str
    started_s: float
    ready_s: float | None
    stop_s: float | None = None
    crashed_s: float | None = None
    exited_s: float | None = None
    gave_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was seen of one contestant.

    Attributes:
        contestant: its name.
        sessions: in the order of the scenario.
        workers: in the order of their start.
        targets: when the backend began to target which build.
        stops: when the stop of which build's workers was ordered.
        end_s: when the run was over.
    """

    contestant: str
    sessions: tuple[SessionSeen, ...]
    workers: tuple[WorkerSeen, ...]
    targets: tuple[tuple[float, str], ...] = ()
    stops: tuple[tuple[float, str], ...] = ()
    end_s: float = 0.0
