from __future__ import annotations

import signal
import sys

import pytest

from build_aware.cli import reload


@pytest.mark.parametrize(
    ("returncode", "stopped", "expected"),
    [
        (0, False, 0),
        (4, True, 4),
        (2, False, 2),
        (-signal.SIGKILL, False, 137),
        (-signal.SIGKILL, True, 137),
        (-signal.SIGTERM, False, 143),
        # Before the worker could handle it: nothing had begun.
        (-signal.SIGTERM, True, 0),
        (-signal.SIGINT, True, 0),
    ],
)
def test_the_exit_code_is_the_workers(returncode: int, stopped: bool, expected: int) -> None:
    assert reload.exit_code(returncode, stopped=stopped) == expected


def test_the_worker_gets_the_same_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "-W", "error", "agent.py", "dev", "--url", "x"]
    )
    assert reload.command_line() == [
        sys.executable,
        *("-W", "error", "agent.py", "dev", "--url", "x", "--no-reload"),
    ]
