"""When Python looks for garbage in a worker's main process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from build_aware.server import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


def test_a_program_that_has_put_it_off_looks_rarely_from_here_on() -> None:
    gc.disable()
    gc.unfreeze()
    garbage.begin_to_look()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == garbage.YOUNG


def test_thresholds_of_the_team_are_left_alone() -> None:
    gc.disable()
    gc.set_threshold(5_000, 20, 30)
    garbage.begin_to_look()
    assert gc.isenabled()
    assert gc.get_threshold() == (5_000, 20, 30)


def test_a_program_that_has_not_put_it_off_is_left_alone() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    garbage.begin_to_look()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
