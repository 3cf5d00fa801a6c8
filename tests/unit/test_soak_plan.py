"""The plan of a soak."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.soak.__main__ import main
from bench.soak.plan import (
    ASKS,
    EACH_S,
    FAULT_EVERY_S,
    FIRST_FAULT_S,
    JITTER_S,
    KINDS,
    SECONDS,
    TAIL_S,
    USER_EVERY_S,
    WAYS,
    Options,
    plan,
)


def test_one_seed_gives_one_plan() -> None:
    assert plan(Options(seed=7)) == plan(Options(seed=7))


def test_another_seed_gives_another_plan() -> None:
    one, other = plan(Options(seed=7)), plan(Options(seed=8))
    assert one.users != other.users
    assert one.faults != other.faults


def test_the_plan_of_a_seed_is_the_same_on_every_machine() -> None:
    lines = plan(Options(minutes=1.5, seed=7)).lines()
    assert lines[:2] == [
        "    1.10 s  user 0, reload, asks for fallback, stays 19.86 s",
        "    3.57 s  user 1, blip, asks for nothing, stays 9.23 s",
    ]
    assert [line for line in lines if "  fault" in line] == [
        "   14.77 s  fault 0: stop-job for 3.32 s, pick 372",
        "   33.62 s  fault 1: kill-worker, pick 847",
    ]
    assert lines[-1] == "   90.00 s  no more users"


def test_a_longer_plan_begins_like_a_shorter_one() -> None:
    short, long = plan(Options(minutes=2, seed=7)), plan(Options(minutes=10, seed=7))
    assert long.users[: len(short.users)] == short.users
    assert long.faults[: len(short.faults)] == short.faults


@given(minutes=st.floats(0.9, 30), seed=st.integers())
def test_every_plan_is_what_was_asked_for(minutes: float, seed: int) -> None:
    drawn = plan(Options(minutes, seed))
    assert drawn.end_s == minutes * 60
    assert [user.number for user in drawn.users] == list(range(len(drawn.users)))
    gaps = [after.at_s - before.at_s for before, after in pairwise(drawn.users)]
    assert all(0 < gap <= 2 * USER_EVERY_S for gap in gaps)
    assert all((user.late_s > 0) == (user.way == "late") for user in drawn.users)
    assert drawn.users[-1].at_s < drawn.end_s
    assert drawn.faults[0].at_s >= FIRST_FAULT_S
    assert drawn.faults[-1].at_s <= drawn.end_s - TAIL_S - FAULT_EVERY_S + JITTER_S
    spaces = [after.at_s - before.at_s for before, after in pairwise(drawn.faults)]
    assert all(space >= FAULT_EVERY_S - JITTER_S for space in spaces)
    for fault in drawn.faults:
        shortest, longest = SECONDS.get(fault.kind, (0, 0))
        assert shortest <= fault.seconds <= longest


@given(seed=st.integers())
def test_each_takes_just_as_long_as_every_kind_once(seed: int) -> None:
    drawn = plan(Options(EACH_S / 60, seed))
    assert sorted(fault.kind for fault in drawn.faults) == sorted(KINDS)


def test_twenty_users_do_everything_in_its_share() -> None:
    users = plan(Options(minutes=1.2)).users[:20]
    assert Counter(user.way for user in users) == WAYS
    assert Counter(user.asks for user in users) == ASKS


@pytest.mark.parametrize("minutes", [0.0, 0.8, -1.0, float("nan"), 2000.0])
def test_a_length_that_is_not_possible_is_refused(minutes: float) -> None:
    with pytest.raises(ValueError, match=r"--minutes .*: expected 0\.9"):
        Options(minutes)


def test_the_command_prints_the_same_plan_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        assert main(["--plan", "--minutes", "3", "--seed", "7"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].splitlines() == plan(Options(3, 7)).lines()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--minutes", "0.1"], "--minutes 0.1: expected"),
        (["--json", "/nowhere/x.json"], "--json /nowhere/x.json: its folder does not exist"),
        (["--logs", "/nowhere"], "--logs /nowhere: expected an empty folder"),
    ],
)
def test_what_is_not_possible_is_one_line(
    arguments: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIVEKIT_SERVER_BIN", "/bin/sh")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench.soak: {problem}")


@pytest.mark.parametrize("arguments", [["--minute", "3", "--each"], ["--minutes", "soon"], ["--x"]])
def test_a_wrong_option_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
