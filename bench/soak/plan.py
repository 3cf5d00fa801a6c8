"""What happens when: the plan of a soak, the same for each run with one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from build_aware.rehearsal.scenario import build_name

T = TypeVar("T")

Kind: TypeAlias = Literal[
    "deploy",
    "deploy-group",
    "deploy-twice",
    "kill-worker",
    "kill-job",
    "stop-worker",
    "stop-job",
    "kill-server",
    "hog",
    "answer-401",
    "answer-503",
]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""The kinds of fault; docs/soak.md says what each one does."""

Way: TypeAlias = Literal["stay", "reload", "takeover", "blip", "late", "vanish"]

WAYS: Final[dict[Way, int]] = {
    "stay": 8,
    "reload": 4,
    "takeover": 2,
    "blip": 2,
    "late": 3,
    "vanish": 1,
}
"""What users do, and how many of twenty do it."""

Asks: TypeAlias = Literal["current", "fallback", "nothing", "steady"]

ASKS: Final[dict[Asks, int]] = {"current": 12, "fallback": 3, "nothing": 3, "steady": 2}
"""What rooms ask for, and how many of twenty do."""

STEADY_BUILD: Final = build_name(0)
"""The build of the worker that no deploy and no kill touches."""

FIRST_BUILD: Final = build_name(1)
"""The build that serves when the users begin to come."""

USER_EVERY_S: Final = 3.0
"""From one user to the next; two cores manage that beside the faults."""

LENGTH_S: Final = (8.0, 20.0)
"""How long a user stays."""

LATE_S: Final = (8.0, 18.0)
"""How long before its late user a room is made. An agent waits there for 60 s."""

WAIT_S: Final = 3
"""How long rooms with a fallback wait for their target."""

FIRST_FAULT_S: Final = 12.0
"""Users come for this long before anything goes wrong."""

FAULT_EVERY_S: Final = 20.0
"""From one fault to the next, so that each has its users to itself: none is lost before 20 s."""

JITTER_S: Final = 3.0
"""How much later than that a fault may come."""

TAIL_S: Final = 22.0
"""How long users still come and stay after the last fault."""

SECONDS: Final[dict[Kind, tuple[float, float]]] = {
    "stop-worker": (3.0, 8.0),
    "stop-job": (2.0, 6.0),
    "kill-server": (2.0, 6.0),
    "hog": (4.0, 8.0),
    "answer-401": (1.0, 1.0),
    "answer-503": (1.0, 1.0),
}
"""How long a fault lasts, of the kinds that are not over at once."""

EACH_S: Final = FIRST_FAULT_S + FAULT_EVERY_S * len(KINDS) + TAIL_S
"""How long it takes to do every kind of fault once."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a soak is to be like.

    Attributes:
        minutes: for how long users come.
        seed: of everything that is drawn.
    """

    minutes: float = 10.0
    seed: int = 1

    def __post_init__(self) -> None:
        least = (FIRST_FAULT_S + FAULT_EVERY_S + TAIL_S) / 60
        if not least <= self.minutes <= 24 * 60:
            raise ValueError(
                f"--minutes {self.minutes:g}: expected {least:.1f}, for one fault, to 1440"
            )


@dataclass(frozen=True, slots=True)
class User:
    """One user's plan. Times are in seconds from when the first workers are ready.

    Attributes:
        number: which user.
        at_s: when the backend makes the room.
        late_s: how much later the user comes.
        length_s: how long the user stays.
        way: what the user does; `stay` is to join, talk and leave.
        asks: what the room asks for.
    """

    number: int
    at_s: float
    late_s: float
    length_s: float
    way: Way
    asks: Asks


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        number: which fault.
        at_s: when.
        kind: what.
        seconds: how long it lasts; 0 for what is over at once.
        pick: which of those that it may hit, modulo their number.
    """

    number: int
    at_s: float
    kind: Kind
    seconds: float
    pick: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that happens; `end_s` is when no more users come."""

    users: tuple[User, ...]
    faults: tuple[Fault, ...]
    end_s: float

    def lines(self) -> list[str]:
        """The plan in words, in the order of time."""
        events = [(user.at_s, _user_line(user)) for user in self.users]
        events += [(fault.at_s, _fault_line(fault)) for fault in self.faults]
        events.append((self.end_s, "no more users"))
        return [f"{at_s:8.2f} s  {line}" for at_s, line in sorted(events)]


def plan(options: Options) -> Plan:
    """Draw the plan. The same options give the same one, on any machine."""
    end_s = options.minutes * 60
    return Plan(
        tuple(_users(random.Random(f"users {options.seed}"), end_s)),
        tuple(_faults(random.Random(f"faults {options.seed}"), end_s)),
        end_s,
    )


def _users(dice: random.Random, end_s: float) -> Iterator[User]:
    ways = _decks(dice, [way for way, share in WAYS.items() for _ in range(share)])
    asks = _decks(dice, [ask for ask, share in ASKS.items() for _ in range(share)])
    for number in count():
        at_s = round(number * USER_EVERY_S + dice.uniform(0, USER_EVERY_S / 2), 2)
        way = next(ways)
        late_s = round(dice.uniform(*LATE_S), 2) if way == "late" else 0.0
        length_s = round(dice.uniform(*LENGTH_S), 2)
        user = User(number, at_s, late_s, length_s, way, next(asks))
        # Nobody stays for long after the end: what is left over is counted then.
        if at_s > end_s - LENGTH_S[0]:
            return
        yield user


def _faults(dice: random.Random, end_s: float) -> Iterator[Fault]:
    kinds = _decks(dice, KINDS)
    for number in count():
        begin_s = FIRST_FAULT_S + number * FAULT_EVERY_S
        if begin_s > end_s - TAIL_S - FAULT_EVERY_S:
            return
        kind = next(kinds)
        seconds = round(dice.uniform(*SECONDS.get(kind, (0.0, 0.0))), 2)
        at_s = round(begin_s + dice.uniform(0, JITTER_S), 2)
        yield Fault(number, at_s, kind, seconds, dice.randrange(1000))


def _decks(dice: random.Random, cards: Sequence[T]) -> Iterator[T]:
    """Shuffled decks, one after the other: all come, in shares that are kept."""
    while True:
        yield from dice.sample(cards, len(cards))


def _user_line(user: User) -> str:
    parts: list[Any] = [f"user {user.number}", user.way, f"asks for {user.asks}"]
    if user.late_s:
        parts.append(f"comes {user.late_s:.2f} s later")
    return ", ".join([*parts, f"stays {user.length_s:.2f} s"])


def _fault_line(fault: Fault) -> str:
    lasts = f" for {fault.seconds:.2f} s" if fault.seconds else ""
    return f"fault {fault.number}: {fault.kind}{lasts}, pick {fault.pick}"
