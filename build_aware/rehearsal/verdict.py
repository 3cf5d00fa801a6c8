"""From what was seen to the verdict: pure, total, and the only place where its words are defined.

docs/rehearsal.md explains the words to readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, TypeAlias

from build_aware.rehearsal.seen import Seen, SessionSeen, Visit, WorkerSeen

Kind: TypeAlias = Literal["misrouted", "outdated", "lost", "cut", "doubled"]

KINDS: Final[tuple[Kind, ...]] = ("misrouted", "outdated", "lost", "cut", "doubled")


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as too late.

    Attributes:
        patience_s: without an agent for this long a session is lost; and cut, if its agent was
            killed.
        newest_s: how long a worker must have been registered before an older build that serves a
            session which asked for none is outdated.
    """

    patience_s: float = 10.0
    newest_s: float = 15.0

    @property
    def together_s(self) -> float:
        """Two agents may be in one room for this long: one finds the other, and leaves."""
        return self.patience_s / 5


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong in a session: how, when, and in words."""

    session: int
    kind: Kind
    at_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds from when a session was asked for until its agent came, over served sessions."""

    p50_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Lingering:
    """How long an old worker stayed for nobody.

    Attributes:
        worker: its name.
        seconds: from its last user's leave, or its stop if it had none, to its exit; None for
            never: it had to be killed.
    """

    worker: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one contestant."""

    contestant: str
    asked: int
    served: int
    troubles: tuple[Trouble, ...]
    delay: Delay | None
    lingering: tuple[Lingering, ...]

    def count(self, kind: Kind) -> int:
        """How many sessions went wrong in this way."""
        return len({trouble.session for trouble in self.troubles if trouble.kind == kind})

    @property
    def clean(self) -> bool:
        """Whether no session went wrong."""
        return not self.troubles


def judge(seen: Seen, limits: Limits = DEFAULT_LIMITS) -> Verdict:
    """Judge one contestant by what was seen."""
    crashes = {w.name: w.crashed_s for w in seen.workers if w.crashed_s is not None}
    stops = {build: at_s for at_s, build in reversed(seen.stops)}
    troubles: list[Trouble] = []
    delays: list[float] = []
    for session in seen.sessions:
        lost = _lost(session, crashes, limits)
        troubles += [lost] if lost else []
        troubles += _misrouted(session, stops)
        troubles += _outdated(session, seen.workers, limits)
        troubles += _doubled(session, limits)
        if lost is None:
            delays.append(_delay_s(session))
            troubles += _cut(session, crashes, limits)
    return Verdict(
        contestant=seen.contestant,
        asked=len(seen.sessions),
        served=len(delays),
        troubles=tuple(sorted(troubles, key=lambda t: (t.session, t.at_s))),
        delay=_delay(delays),
        lingering=tuple(
            _lingering(worker, seen.sessions)
            for worker in seen.workers
            if worker.stop_s is not None and worker.crashed_s is None
        ),
    )


def _answered(session: SessionSeen) -> list[tuple[float, Visit]]:
    """The agents that answered, by when they first did."""
    found = [(v.answered_s, v) for v in session.visits if v.answered_s is not None]
    return sorted(found, key=lambda pair: pair[0])


def _delay_s(session: SessionSeen) -> float:
    return max(_answered(session)[0][1].from_s - session.asked_s, 0.0)


def _lost(session: SessionSeen, crashes: dict[str, float], limits: Limits) -> Trouble | None:
    answered = _answered(session)
    # An agent that is killed before it could answer gives the next one as long again.
    killed = [
        crashes[visit.worker]
        for visit in session.visits
        if visit.worker in crashes and visit.answered_s is None
    ]
    limit_s = max([session.asked_s, *killed]) + limits.patience_s
    if not answered:
        came = any(visit.from_s <= limit_s for visit in session.visits)
        why = (
            "an agent came but never answered"
            if came
            else f"no agent within {limits.patience_s:g} s"
        )
    elif answered[0][1].from_s > limit_s:
        why = f"the agent came after {_delay_s(session):.1f} s"
    else:
        return None
    return Trouble(session.number, "lost", min(limit_s, session.left_s), why)


def _misrouted(session: SessionSeen, stops: dict[str, float]) -> Iterator[Trouble]:
    for _, visit in _answered(session):
        for remark in visit.heard:
            if remark.build is None:
                continue
            if session.target is not None:
                if remark.build != session.target:
                    why = f"asked for {session.target}, answered by {remark.build}"
                    yield Trouble(session.number, "misrouted", remark.at_s, why)
                    return
            elif stops.get(remark.build, math.inf) < session.asked_s:
                ago_s = session.asked_s - stops[remark.build]
                why = f"answered by {remark.build}, which was told to stop {ago_s:.1f} s before"
                yield Trouble(session.number, "misrouted", remark.at_s, why)
                return


def _outdated(
    session: SessionSeen, workers: Sequence[WorkerSeen], limits: Limits
) -> Iterator[Trouble]:
    if session.target is not None:
        return
    order = {build: number for number, build in enumerate(dict.fromkeys(w.build for w in workers))}
    for _, visit in _answered(session):
        for remark in visit.heard:
            for newer in workers:
                if order[newer.build] <= order.get(remark.build or "", math.inf):
                    continue
                if newer.ready_s is None or not _serves_at(newer, session.asked_s):
                    continue
                if (up_s := session.asked_s - newer.ready_s) >= limits.newest_s:
                    why = (
                        f"answered by {remark.build}, although {newer.build} had been registered "
                        f"for {up_s:.1f} s"
                    )
                    yield Trouble(session.number, "outdated", remark.at_s, why)
                    return


def _serves_at(worker: WorkerSeen, at_s: float) -> bool:
    """Whether a worker was told to stop, or was killed, only after that."""
    ends = (worker.stop_s, worker.crashed_s, worker.exited_s)
    return all(end_s is None or end_s > at_s for end_s in ends)


def _cut(session: SessionSeen, crashes: dict[str, float], limits: Limits) -> Iterator[Trouble]:
    found = False
    for _, visit in _answered(session):
        for trouble in _cut_by(session, visit, crashes.get(visit.worker or "", math.inf), limits):
            found = True
            yield trouble
    if session.unanswered_s is not None and not found:
        why = "the agent no longer answered"
        yield Trouble(session.number, "cut", session.unanswered_s, why)


def _cut_by(
    session: SessionSeen, visit: Visit, crashed_s: float, limits: Limits
) -> Iterator[Trouble]:
    gone_s = math.inf if visit.to_s is None else visit.to_s
    if crashed_s < session.left_s and crashed_s <= gone_s:
        yield from _not_replaced(session, visit, crashed_s, limits)
    elif gone_s < session.left_s:
        why = f"the agent left {session.left_s - gone_s:.1f} s before the user"
        yield Trouble(session.number, "cut", gone_s, why)


def _not_replaced(
    session: SessionSeen, killed: Visit, crashed_s: float, limits: Limits
) -> Iterator[Trouble]:
    after = [at_s for at_s, v in _answered(session) if v is not killed and at_s >= crashed_s]
    if after and after[0] - crashed_s > limits.patience_s:
        why = f"its agent was killed, and the next one answered {after[0] - crashed_s:.1f} s later"
        yield Trouble(session.number, "cut", crashed_s, why)
    elif not after and session.unanswered_s is not None:
        why = f"its agent was killed, and no other one answered within {limits.patience_s:g} s"
        yield Trouble(session.number, "cut", crashed_s, why)


def _doubled(session: SessionSeen, limits: Limits) -> Iterator[Trouble]:
    for one, other in combinations(session.visits, 2):
        begin_s = max(one.from_s, other.from_s)
        end_s = min(_until_s(one, session), _until_s(other, session))
        if end_s <= begin_s:
            continue
        both = all(_acted(visit, begin_s, end_s) for visit in (one, other))
        if both or end_s - begin_s > limits.together_s:
            what = ", and both spoke" if both else ""
            why = f"two agents for {end_s - begin_s:.1f} s{what}"
            yield Trouble(session.number, "doubled", begin_s, why)
            return


def _until_s(visit: Visit, session: SessionSeen) -> float:
    return session.left_s if visit.to_s is None else min(visit.to_s, session.left_s)


def _acted(visit: Visit, begin_s: float, end_s: float) -> bool:
    return visit.published or any(begin_s <= remark.at_s <= end_s for remark in visit.heard)


def _lingering(worker: WorkerSeen, sessions: Iterable[SessionSeen]) -> Lingering:
    if worker.stop_s is None or worker.gave_up_s is not None or worker.exited_s is None:
        return Lingering(worker.name, None)
    leaves = [_until_s(v, s) for s in sessions for _, v in _answered(s) if v.worker == worker.name]
    return Lingering(worker.name, max(worker.exited_s - max([worker.stop_s, *leaves]), 0.0))


def _delay(delays: Sequence[float]) -> Delay | None:
    if not delays:
        return None
    return Delay(percentile(delays, 50), percentile(delays, 95), max(delays))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one value: always one that was measured."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]
