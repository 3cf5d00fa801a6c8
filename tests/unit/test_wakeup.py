"""How a stop signal gets through to an event loop, heard or not."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from build_aware.drain import wakeup
from build_aware.drain.wakeup import Preempted, Wakeup


class Timer:
    """Stands for `threading.Timer`, and never fires by itself."""

    def __init__(self, interval_s: float, *_: object) -> None:
        self.interval_s = interval_s
        self.daemon = False
        self.state = "made"

    def start(self) -> None:
        self.state = "started"

    def cancel(self) -> None:
        self.state = "cancelled"


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[Timer]:
    made: list[Timer] = []

    def make(*arguments: float) -> Timer:
        made.append(Timer(*arguments))
        return made[-1]

    monkeypatch.setattr(threading, "Timer", make)
    return made


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def call(stop: Wakeup) -> None:
    stop(signal.SIGTERM, None)


def test_a_loop_that_hears_the_signal_is_asked_and_not_preempted(
    loop: asyncio.AbstractEventLoop, timers: list[Timer]
) -> None:
    stop = Wakeup(loop)
    call(stop)
    assert not stop.requested.done()
    loop.run_until_complete(stop.requested)
    assert [(timer.interval_s, timer.daemon, timer.state) for timer in timers] == [
        (wakeup.ESCALATION_S, True, "cancelled")
    ]
    call(stop)


def test_a_loop_that_does_not_hear_it_is_preempted(
    loop: asyncio.AbstractEventLoop, timers: list[Timer]
) -> None:
    stop = Wakeup(loop)

    def block() -> None:
        call(stop)
        (timer,) = timers
        assert timer.state == "started"
        call(stop)
        raise AssertionError("not preempted")

    loop.call_soon(block)
    with pytest.raises(Preempted):
        loop.run_forever()


def test_a_task_that_is_preempted_takes_the_loop_along(
    loop: asyncio.AbstractEventLoop, timers: list[Timer]
) -> None:
    stop = Wakeup(loop)

    async def request() -> None:
        try:
            call(stop)
            call(stop)
        except Exception as error:
            raise AssertionError("caught by what users write") from error

    task = loop.create_task(request())
    with pytest.raises(Preempted):
        loop.run_until_complete(stop.requested)
    assert isinstance(task.exception(), Preempted)


def test_a_loop_that_is_closed_by_now_is_left_alone(timers: list[Timer]) -> None:
    loop = asyncio.new_event_loop()
    stop = Wakeup(loop)
    loop.close()
    call(stop)
    assert timers[0].state == "made"
