"""What happens when: the plan of a rehearsal, the same for each run with one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from build_aware.rehearsal.verdict import DEFAULT_LIMITS

Stop: TypeAlias = Literal["sigterm", "group", "twice", "eaten"]

STOPS: Final[dict[Stop, str]] = {
    "sigterm": "SIGTERM to the worker's main process",
    "group": "SIGTERM to the worker's whole process group",
    "twice": "SIGTERM to the main process, and again a second later",
    "eaten": "SIGTERM to a main process in which other code has taken over its handler",
}
"""The ways in which a deploy stops an old worker."""

EVERY_S: Final = 0.55
"""From one session to the next, unless the deploys need more time than that gives.

Two cores that also start workers manage two sessions in a second, but not with ease.
"""

DEPLOY_S: Final = 7.0
"""What one deploy needs beside its overlap: start workers, wait for them, switch, stop."""

FIRST_DEPLOY_S: Final = 1.0
"""When the first deploy begins: its build takes some seconds to be up anyway."""

TAIL_S: Final = 24.0
"""How long the last build serves, if there is time: until slow old workers are gone as well."""

CRASH_AFTER_S: Final = (0.5, 1.5)
"""How long the last build is the target when one of its workers crashes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a rehearsal is to be like.

    Attributes:
        deploys: rolling deploys, each from one build to the next.
        workers: workers of each build.
        sessions: sessions in all.
        length_s: the shortest and the longest that a user stays once answered.
        overlap_s: from the switch of the target to the stop of the old workers.
        stop: how old workers are stopped.
        target_first: whether the backend targets a new build before its workers are started.
        untargeted: the share of sessions that ask for no build, from 0 to 1.
        kill_one: whether a worker of the last build crashes while it serves.
        patience_s: how long a user waits for an answer.
        grace_s: how long an old worker may stay for nobody before it is killed.
        seed: of everything that is drawn.
    """

    deploys: int = 3
    workers: int = 2
    sessions: int = 60
    length_s: tuple[float, float] = (2.0, 4.0)
    overlap_s: float = 1.0
    stop: Stop = "sigterm"
    target_first: bool = False
    untargeted: float = 0.2
    kill_one: bool = False
    patience_s: float = DEFAULT_LIMITS.patience_s
    # LiveKit keeps a room for 20 s after its last user has left, and a stock agent in it.
    grace_s: float = 30.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--deploys", self.deploys, 1),
            ("--workers", self.workers, 1),
            ("--sessions", self.sessions, 1),
            ("--overlap", self.overlap_s, 0),
            ("--patience", self.patience_s, 1),
            ("--grace", self.grace_s, 0),
        ):
            if value < least:
                raise ValueError(f"{name} {value:g}: expected at least {least}")
        shortest, longest = self.length_s
        if not 0 < shortest <= longest:
            raise ValueError(
                f"--length {shortest:g} {longest:g}: expected the shortest and the longest time "
                "that a user stays, in seconds, both above 0"
            )
        if not 0 <= self.untargeted <= 1:
            raise ValueError(f"--untargeted {self.untargeted:g}: expected a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class Session:
    """One user's plan: when they come, how long they stay, whether they want the target."""

    number: int
    at_s: float
    length_s: float
    targeted: bool


@dataclass(frozen=True, slots=True)
class Deploy:
    """One rolling deploy: it begins at `at_s`, or when the one before is done."""

    build: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker is killed: `after_s` after the last build became the target.

    Attributes:
        after_s: at the earliest; it waits for a worker that serves a user.
        pick: which of those workers, modulo their number.
    """

    after_s: float
    pick: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """The whole plan. Times are in seconds from when the first build's workers are ready."""

    first_build: str
    deploys: tuple[Deploy, ...]
    sessions: tuple[Session, ...]
    crash: Crash | None

    @property
    def builds(self) -> tuple[str, ...]:
        """All builds, in the order in which they are deployed."""
        return (self.first_build, *(deploy.build for deploy in self.deploys))


def plan(options: Options) -> Scenario:
    """Draw the scenario. The same options give the same one, on any machine."""
    draw = random.Random(options.seed)  # noqa: S311 repeatable on purpose
    deploy_s = DEPLOY_S + options.overlap_s
    span_s = max(options.sessions * EVERY_S, (options.deploys + 0.5) * deploy_s)
    deploy_every_s = max(deploy_s, (span_s - TAIL_S) / options.deploys)
    # Exactly this share, in an order that is drawn.
    untargeted = round(options.sessions * options.untargeted)
    targeted = [number >= untargeted for number in range(options.sessions)]
    draw.shuffle(targeted)
    return Scenario(
        first_build=build_name(1),
        deploys=tuple(
            Deploy(build_name(k + 2), round(FIRST_DEPLOY_S + deploy_every_s * k, 3))
            for k in range(options.deploys)
        ),
        sessions=tuple(
            Session(
                number=number,
                at_s=round(span_s * number / options.sessions, 3),
                length_s=round(draw.uniform(*options.length_s), 3),
                targeted=targeted[number],
            )
            for number in range(options.sessions)
        ),
        crash=Crash(round(draw.uniform(*CRASH_AFTER_S), 3), draw.randrange(1000))
        if options.kill_one
        else None,
    )


def build_name(number: int) -> str:
    """The build id of the build with this number, from 1."""
    return f"build-{number}"
