"""Stop signals in a job process: those of others change nothing, its own ends it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from livekit.agents import JobExecutorType
from livekit.agents.job import JobProcess

from build_aware.drain.starting import STOP_SIGNALS
from build_aware.job import signals
from build_aware.job.facts import Prepare
from build_aware.job.shared import Shared
from tests.support.jobs import stub_job


@pytest.fixture(autouse=True)
def handlers_of_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Timers:
    """Stands for `threading.Timer`: what would be called, and when."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Any, tuple[Any, ...]]] = []
        self.daemon = False

    def __call__(self, delay_s: float, function: Any, arguments: tuple[Any, ...]) -> Timers:
        self.set.append((delay_s, function, arguments))
        return self

    def start(self) -> None:
        assert self.daemon, "a thread that the process would wait for"


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(threading, "Timer", timers)
    return timers


class Exited(BaseException):
    """Raised where the process would end."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens at the end of the process."""
    happened: list[str] = []

    def exit_(code: int) -> None:
        happened.append(f"exit {code}")
        raise Exited

    monkeypatch.setattr(signals, "flush", lambda: happened.append("flush"))
    monkeypatch.setattr(os, "_exit", exit_)
    return happened


def receive(number: int) -> None:
    """Get a signal, as from whomever."""
    signal.raise_signal(number)


def test_before_a_process_has_its_job_signals_change_nothing() -> None:
    signals.ignore_all()
    receive(signal.SIGTERM)
    receive(signal.SIGINT)


def test_in_a_job_neither_does(timers: Timers) -> None:
    signals.ignore_those_of_others(Shared())
    receive(signal.SIGINT)
    assert timers.set == []
    receive(signal.SIGTERM)


@pytest.mark.parametrize(
    "begin", [signals.ignore_all, lambda: signals.ignore_those_of_others(Shared())]
)
def test_what_a_job_starts_can_be_terminated(begin: Any) -> None:
    """Programs inherit what is ignored or blocked, but no handler."""
    begin()
    for number in STOP_SIGNALS:
        assert callable(signal.getsignal(number))
    assert not set(STOP_SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_a_job_forks_stops_as_any_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As do workers of `multiprocessing`, which are no programs of their own."""
    in_children: list[Any] = []
    monkeypatch.setattr(
        os, "register_at_fork", lambda *, after_in_child: in_children.append(after_in_child)
    )
    signals.ignore_those_of_others(Shared())
    (in_child,) = in_children
    in_child()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_job_forks_keeps_handlers_of_the_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    in_children: list[Any] = []
    monkeypatch.setattr(
        os, "register_at_fork", lambda *, after_in_child: in_children.append(after_in_child)
    )
    signals.ignore_those_of_others(Shared())

    def own(number: int, frame: Any) -> None: ...

    for number in STOP_SIGNALS:
        signal.signal(number, own)
    in_children[0]()
    assert {signal.getsignal(number) for number in STOP_SIGNALS} == {own}


def test_a_signal_to_the_group_comes_with_the_workers_own(
    timers: Timers, exits: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    shared = Shared()
    signals.ignore_those_of_others(shared)
    receive(signal.SIGTERM)
    ((delay_s, function, arguments),) = timers.set
    assert delay_s == signals.DRAIN_BEGINS_S
    shared.drains = True
    function(*arguments)
    assert (exits, caplog.records) == ([], [])


def test_a_process_that_ends_itself_ends(
    timers: Timers, exits: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """LiveKit's native library signals its own process when it panics."""
    signals.ignore_those_of_others(Shared())
    receive(signal.SIGTERM)
    ((_, function, arguments),) = timers.set
    with pytest.raises(Exited):
        function(*arguments)
    assert exits == ["flush", "exit 1"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR


def test_in_a_drain_there_is_nothing_to_wait_for(timers: Timers) -> None:
    shared = Shared()
    shared.drains = True
    signals.ignore_those_of_others(shared)
    for _ in range(3):
        receive(signal.SIGTERM)
    assert timers.set == []


def test_handlers_are_set_on_the_main_thread_only() -> None:
    """Elsewhere Python sets none, and LiveKit runs a job there in `console`."""
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=signals.ignore_those_of_others, args=(Shared(),))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("executor", "handles"), [(JobExecutorType.PROCESS, True), (JobExecutorType.THREAD, False)]
)
def test_a_process_is_prepared_after_the_teams_module_has_run(
    executor: JobExecutorType, handles: bool
) -> None:
    """Which may have set handlers of its own, with the whole worker in mind."""

    def greedy(number: int, frame: Any) -> None:
        raise AssertionError("the team's handler was called in a job process")

    for number in STOP_SIGNALS:
        signal.signal(number, greedy)
    process = JobProcess(executor_type=executor, user_arguments=None, http_proxy=None)
    Prepare(stub_job().facts, None)(process)
    for number in STOP_SIGNALS:
        assert (signal.getsignal(number) is not greedy) is handles


def test_the_teams_setup_runs_last_and_has_the_last_word() -> None:
    seen: list[Any] = []

    def setup(process: JobProcess) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        process.userdata["vad"] = "theirs"

    process = JobProcess(
        executor_type=JobExecutorType.PROCESS, user_arguments=None, http_proxy=None
    )
    facts = stub_job().facts
    Prepare(facts, setup)(process)
    assert seen == [signal.getsignal(signal.SIGTERM)]
    assert process.userdata == {"build_aware": facts, "vad": "theirs"}


def test_files_that_have_changed_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    class Changed:
        looked = 0

        def changed(self) -> tuple[str, ...]:
            self.looked += 1
            return tuple(f"{number}.py" for number in range(7))

    counted: Any = Changed()
    facts = stub_job(counted=counted).facts
    counted.looked = 0
    facts.shared.stale = False
    caplog.clear()
    for _ in range(3):
        process = JobProcess(
            executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None
        )
        Prepare(facts, None)(process)
    assert facts.shared.stale
    (record,) = caplog.records
    assert (record.levelno, vars(record)["count"], len(vars(record)["files"])) == (
        logging.ERROR,
        7,
        5,
    )
    assert counted.looked == 1
