"""Which build takes the jobs that name none: the rollout, and who is wanted by it. Pure.

The words are Temporal's: the current build takes all of them but the share of a ramping build, and
the previous one was current before. docs/rollout.md tells people of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

KNOWN_AT_MOST: Final = 500
"""How many builds are remembered as known, so that the document stays below 8 KiB."""

BARRED_AT_MOST: Final = 100
"""How many builds are remembered as barred."""

_DIGEST_DIGITS: Final = 8
_SHARES: Final = 1 << 32


class RolloutError(Exception):
    """A change that cannot be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A build in a place of the rollout.

    Attributes:
        build: its id.
        since: when it became current, even if it is the previous build by now. ISO 8601 in UTC, for
            people to read; nothing depends on it.
    """

    build: str
    since: str


@dataclass(frozen=True, slots=True)
class Ramp:
    """A build that takes a share of the jobs.

    Attributes:
        build: its id.
        percent: its share, above 0 and at most 100.
        since: when it got that share; see `Standing`.
    """

    build: str
    percent: float
    since: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The state of a rollout. Each change makes a new one, of the next revision.

    Attributes:
        revision: of two documents the one with the higher revision is right.
        current: the build that takes the jobs that name none; None until there is one.
        previous: the build that was current before.
        ramp: the build that takes a share of them.
        known: digests of the builds that have been seen, the oldest first.
        barred: digests of the builds that a rollback has left: they never make themselves current.
        challenger: the build that has found nobody of the current one, and takes its place if
            nobody of that objects.
    """

    revision: int = 0
    current: Standing | None = None
    previous: Standing | None = None
    ramp: Ramp | None = None
    known: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    challenger: str | None = None

    def knows(self, build: str) -> bool:
        """Whether a build has been seen."""
        return digest(build) in self.known

    def bars(self, build: str) -> bool:
        """Whether a build never makes itself current."""
        return digest(build) in self.barred

    def is_current(self, build: str) -> bool:
        """Whether a build is the current one."""
        return self.current is not None and self.current.build == build

    def wants(self, build: str) -> bool:
        """Whether some jobs that name no build are for a build."""
        if self.current is None or self.is_current(build):
            return True
        return self.ramp is not None and self.ramp.build == build

    def appeared(self, build: str, now: str, *, make_current: bool) -> Rollout:
        """A build that has been registered for a while.

        Args:
            build: its id.
            now: the time.
            make_current: whether a new build makes itself current.
        """
        if self.knows(build):
            return self
        if make_current and not self.bars(build):
            return self.promoted(build, now, force=True)
        return self._next(known=_with(self.known, build), challenger=self.challenger)

    def challenged(self, build: str) -> Rollout:
        """A build has found nobody of the current one."""
        return self._next(challenger=build)

    def defended(self) -> Rollout:
        """Somebody of the current build objects to that."""
        return self._next(challenger=None)

    def promoted(self, build: str, now: str, *, force: bool = False) -> Rollout:
        """Make a build current. That ends a ramp, lifts a bar, and lets all workers follow again.

        Args:
            build: its id.
            now: the time.
            force: whether to do so with a build that has not been seen.

        Raises:
            RolloutError: the build has not been seen.
        """
        if not force:
            self._must_know(build)
        return self._next(
            current=Standing(build, now),
            previous=self.previous if self.is_current(build) else self.current,
            ramp=None,
            known=_with(self.known, build),
            barred=_without(self.barred, build),
        )

    def ramped(self, build: str, percent: float, now: str, *, force: bool = False) -> Rollout:
        """Give a build a share of the jobs; 0 ends the ramp.

        Raises:
            RolloutError: the build has not been seen, it is the current one, there is no current
                one, or the share is none.
        """
        if not 0 <= percent <= 100:  # noqa: PLR2004 percent
            raise RolloutError(f"{percent:g} percent: expected 0 to 100")
        if percent == 0:
            if self.ramp is None or self.ramp.build != build:
                raise RolloutError(f"{build} is not ramping; see `agent.py builds` for what is")
            return self._next(ramp=None)
        if not force:
            self._must_know(build)
        if self.current is None:
            raise RolloutError("no build is current; promote one first, then ramp another")
        if self.is_current(build):
            raise RolloutError(
                f"{build} is current already; to give it only a share, promote another build first"
            )
        return self._next(ramp=Ramp(build, percent, now), known=_with(self.known, build))

    def rolled_back(self, now: str) -> Rollout:
        """Undo the last step: end a ramp, or where there is none make the previous build current.

        The build that is left is barred.

        Raises:
            RolloutError: nothing ramps, and there is no previous build.
        """
        if self.ramp is not None:
            return self._next(
                ramp=None, barred=_with(self.barred, self.ramp.build)[-BARRED_AT_MOST:]
            )
        if self.current is None or self.previous is None:
            raise RolloutError(
                "there is no previous build to go back to; choose one: `agent.py promote BUILD`"
            )
        back = self.previous.build
        return self._next(
            current=Standing(back, now),
            previous=None,
            known=_with(self.known, back),
            barred=_without(_with(self.barred, self.current.build), back)[-BARRED_AT_MOST:],
        )

    def _must_know(self, build: str) -> None:
        if not self.knows(build):
            raise RolloutError(
                f"no worker of build {build} has been seen; give the whole id, run a worker in "
                "`start` for 15 seconds, or use --force"
            )

    def _next(self, **changes: Any) -> Rollout:
        after = replace(self, **({"revision": self.revision + 1, "challenger": None} | changes))
        standing = (after.current, after.previous, after.ramp)
        stays = {digest(each.build) for each in standing if each is not None}
        forgotten = [each for each in after.known if each not in stays]
        del forgotten[max(len(after.known) - KNOWN_AT_MOST, 0) :]
        return replace(after, known=tuple(each for each in after.known if each not in forgotten))


def wanted(rollout: Rollout | None, room: str) -> str | None:
    """The id of the build that shall take a job that names none; None if any may.

    The ramping build's share is the same rooms on every worker, and a larger share has them all.

    Args:
        rollout: the rollout, or None where there is none.
        room: the name of the job's room.
    """
    if rollout is None or rollout.current is None:
        return None
    ramp = rollout.ramp
    if ramp is not None and share(ramp.build, room) * 100 < ramp.percent:
        return ramp.build
    return rollout.current.build


def digest(build: str) -> str:
    """The short form in which a document names builds that are known or barred."""
    return hashlib.sha256(build.encode()).hexdigest()[:_DIGEST_DIGITS]


def share(build: str, room: str) -> float:
    """Where a room stands in a build's ramp: at least 0, below 1, and spread evenly."""
    told = hashlib.sha256(f"{build}\0{room}".encode()).digest()
    return int.from_bytes(told[:4], "big") / _SHARES


def _with(digests: Iterable[str], build: str) -> tuple[str, ...]:
    return (*_without(digests, build), digest(build))


def _without(digests: Iterable[str], build: str) -> tuple[str, ...]:
    named = digest(build)
    return tuple(each for each in digests if each != named)
