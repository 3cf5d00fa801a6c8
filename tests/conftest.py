"""Fixtures of the test ground."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import livekit_server
from tests.support.fake_livekit import FakeLiveKit
from tests.support.livekit_server import LiveKitServer
from tests.support.process import LoggedProcess
from tests.support.user import JoinRoom, User
from tests.support.worker import StartWorker, start_worker

KINDS = ("unit", "wire", "e2e", "image")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind, the name of its folder."""
    for item in items:
        kind = item.path.relative_to(Path(__file__).parent).parts[0]
        if kind not in KINDS:
            raise pytest.UsageError(f"{item.path} is in none of tests/{'|'.join(KINDS)}")
        item.add_marker(getattr(pytest.mark, kind))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Give what tests start a SIGINT that works, also where the tests run in the background.

    A shell lets its background jobs ignore it, and they hand that on to their children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def own_livekit(tmp_path: Path) -> AsyncIterator[LiveKitServer]:
    """A livekit-server of the test's own, without the workers of other tests."""
    require_livekit_server()
    server = await LiveKitServer.start(tmp_path)
    yield server
    await server.stop()


@pytest.fixture
async def fake() -> AsyncIterator[FakeLiveKit]:
    """A fake LiveKit, for faults."""
    server = await FakeLiveKit().start()
    yield server
    await server.stop()


def require_livekit_server() -> None:
    """Skip without a livekit-server; in CI a missing one is a failure."""
    require(livekit_server.binary(), livekit_server.HOW_TO_GET_IT)


def require(found: str | None, how_to_get_it: str) -> None:
    """Skip without a program; in CI a missing one is a failure."""
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(how_to_get_it)
        pytest.skip(how_to_get_it)


@pytest.fixture
async def worker() -> AsyncIterator[StartWorker]:
    """Start workers that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(server: LiveKitServer | FakeLiveKit, **kwargs: Any) -> LoggedProcess:
            started = await start_worker(server.credentials, **kwargs)
            stack.push_async_callback(started.stop)
            return started

        yield start


@pytest.fixture
async def join() -> AsyncIterator[JoinRoom]:
    """Let users join rooms; they leave with the test."""
    async with AsyncExitStack() as stack:

        async def join(
            server: LiveKitServer, room: str, *, config: Any = None, identity: str = "user"
        ) -> User:
            user = await User(server, room, identity).join(config)
            stack.push_async_callback(user.leave)
            return user

        yield join
