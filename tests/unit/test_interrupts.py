"""A run that is stopped stays deaf to further signals until its process has ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from build_aware.testbed.interrupts import STOPS, interruptible


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[signal.Signals, Any]]:
    before = {number: signal.getsignal(number) for number in STOPS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS)
def test_no_later_signal_breaks_into_the_end(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_handler, ended = signal.signal, []

    def set_and_raise(changed: signal.Signals, handler: signal.Handlers) -> None:
        set_handler(changed, handler)
        if changed == number:
            signal.raise_signal(number)

    async def run() -> None:
        # Another one in every moment between the first and the end.
        monkeypatch.setattr(signal, "signal", set_and_raise)
        signal.raise_signal(number)
        try:
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(number)
            ended.append([signal.getsignal(each) for each in STOPS])

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interruptible(run()))

    # Nor after the event loop is closed, which would restore what its own handlers replaced.
    ended.append([signal.getsignal(each) for each in STOPS])
    assert ended == [[signal.SIG_IGN] * len(STOPS)] * 2


def test_a_signal_in_the_last_moment_counts() -> None:
    async def run() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interruptible(run()))


def test_a_run_that_ends_by_itself_leaves_the_handlers_as_they_were(
    handlers: dict[signal.Signals, Any],
) -> None:
    asyncio.run(interruptible(asyncio.sleep(0)))
    assert {number: signal.getsignal(number) for number in STOPS} == handlers


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def run() -> str:
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0)
        return "done"

    assert asyncio.run(interruptible(run())) == "done"
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
