"""Names of handlers, shells above the worker, and what is private to others."""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
import sys
from pathlib import Path

import pytest
from livekit.agents import AgentServer
from livekit.agents.cli import cli
from livekit.agents.ipc import supervised_proc

from build_aware import livekit_private
from build_aware.drain import signals, wakeup
from build_aware.server import connection


def greedy(number: int, frame: object) -> None:
    raise AssertionError((number, frame))


class Owner:
    def method(self, number: int, frame: object) -> None:
        raise AssertionError((number, frame))


@pytest.mark.parametrize(
    ("handler", "name", "function"),
    [
        pytest.param(greedy, "greedy", greedy, id="function"),
        pytest.param(Owner().method, "Owner.method", Owner.method, id="method"),
        pytest.param(functools.partial(greedy, frame=None), "greedy", greedy, id="partial"),
    ],
)
def test_a_handler_is_named_with_file_and_line(
    handler: signals.Handler, name: str, function: object
) -> None:
    assert inspect.isfunction(function)
    line = inspect.getsourcelines(function)[1]
    assert signals.describe(handler) == {"handler": name, "at": f"{__file__}:{line}"}


def test_a_default_handler_is_named_too() -> None:
    assert signals.describe(signal.SIG_DFL) == {"handler": "SIG_DFL"}


NOTHING = 16 * "0"
ALL = 16 * "f"


@pytest.mark.parametrize(
    ("command", "caught", "found"),
    [
        ("/bin/sh -c x", NOTHING, "sh"),
        ("/bin/sh /entrypoint.sh x", NOTHING, "sh"),
        ("bash entrypoint", "0000000000010002", "bash"),  # SIGINT and SIGCHLD
        ("/bin/sh /entrypoint.sh x", "0000000000004000", None),  # SIGTERM: a trap passes it on
        ("/sbin/init", NOTHING, None),
        ("/usr/bin/tini -- sh x", NOTHING, None),
        ("", NOTHING, None),
    ],
)
def test_a_shell_that_is_pid_1_is_found(
    command: str, caught: str, found: str | None, tmp_path: Path
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cmdline").write_text(command.replace(" ", "\0") + "\0")
    (tmp_path / "1" / "status").write_text(f"SigIgn:\t{ALL}\nSigCgt:\t{caught}\n")
    assert signals.shell_that_is_pid_1(tmp_path) == found


def test_without_a_proc_folder_no_shell_is_found(tmp_path: Path) -> None:
    assert signals.shell_that_is_pid_1(tmp_path) is None


def test_our_patience_with_a_blocked_loop_is_livekits() -> None:
    assert livekit_private.escalation_s() == wakeup.ESCALATION_S


def test_livekits_command_line_still_handles_signals_as_its_constant_says() -> None:
    source = inspect.getsource(cli._run_worker)
    assert source.count("signal.signal(") == 3
    assert source.count("for sig in HANDLED_SIGNALS:\n") == 3


def test_livekit_still_masks_ctrl_c_by_the_function_that_we_replace() -> None:
    start = inspect.getsource(supervised_proc.SupervisedProc._start)
    assert "with _mask_ctrl_c():" in start


async def test_asyncio_still_keeps_its_signal_handlers_where_we_look() -> None:
    loop = asyncio.get_running_loop()

    def callback() -> None:
        raise AssertionError

    loop.add_signal_handler(signal.SIGUSR2, callback)
    try:
        found = signals.describe(signals._loop_callback(signal.SIGUSR2))
        assert found["handler"].endswith("<locals>.callback")
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)


def test_livekit_still_connects_through_the_session_that_we_replace() -> None:
    source = inspect.getsource(AgentServer._connection_task)
    assert "self._http_session.ws_connect(" in source
    started = inspect.getsource(AgentServer.run)
    created = started.index("self._http_session = aiohttp.ClientSession(")
    assert created < started.index('self.emit("worker_started")')
    assert hasattr(connection.Connection, "ws_connect")


def test_a_second_server_of_a_program_does_not_stand_in_the_way() -> None:
    """It waits for LiveKit's handlers as well, and whichever gets there last is in front."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def livekits(*_: object) -> None: ...

    try:
        signal.signal(signal.SIGTERM, livekits)
        other = signals.StopSignals(sys.exit, lambda: None, lambda: None)
        running = signals.StopSignals(sys.exit, lambda: None, lambda: None)
        other._get_in_front(signal.SIGTERM)
        running._get_in_front(signal.SIGTERM)
        assert running._behind[signal.SIGTERM] is livekits
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_program_that_handles_its_signals_itself_goes_on_to() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        stop = signals.StopSignals(sys.exit, lambda: None, lambda: None)
        stop.install()
        stop.check()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
