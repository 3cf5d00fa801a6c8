"""The end of a talk in the text console."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from build_aware.cli import console


def test_who_is_about_to_wait_for_the_person_is_interrupted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal in the moment before the wait begins is not heard."""
    screen: Any = SimpleNamespace(reads=True)
    sent: list[tuple[int, int]] = []

    def kill(thread: int, number: int) -> None:
        sent.append((thread, number))
        screen.reads = len(sent) < 3

    monkeypatch.setattr(signal, "pthread_kill", kill)
    monkeypatch.setattr(console, "INTERRUPT_S", 0.0)
    console._Job(SimpleNamespace(), screen)._interrupt()  # type: ignore[arg-type]
    assert sent == [(threading.main_thread().ident, signal.SIGINT)] * 3
