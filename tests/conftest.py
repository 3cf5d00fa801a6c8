"""Fixtures of the test ground."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import hypothesis
import pytest

from build_aware.testbed import NotInstalledError, Process, Testbed, User
from build_aware.testbed.bed import Server
from build_aware.testbed.cluster import Cluster
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.livekit_server import LiveKitServer
from tests.support.paths import ROOT

# Nobody's own settings change what happens: the agent reads `.env.local` when it is imported.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"

T = TypeVar("T")

StartWorker: TypeAlias = Callable[..., Awaitable[Process]]
"""The fixture that starts workers."""

JoinRoom: TypeAlias = Callable[..., Awaitable[User]]
"""The fixture that lets users join."""

KINDS = ("image", "e2e", "wire", "command", "unit")
"""The folders of tests, those that take longest first."""


def pytest_sessionfinish(exitstatus: int) -> None:
    """End this process at once when all is told: see `testbed.ending` for what would go wrong."""

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(exitstatus))

    atexit.register(end)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind, the name of its folder; put those that take longest first.

    Where tests run side by side, a long one that starts last is waited for alone. Heavy ones, which
    alone keep all processors busy, run one after the other beside the rest.
    """
    for item in items:
        kind = item.path.relative_to(Path(__file__).parent).parts[0]
        if kind not in KINDS:
            raise pytest.UsageError(f"{item.path} is in none of tests/{'|'.join(KINDS)}")
        item.add_marker(getattr(pytest.mark, kind))
        if item.get_closest_marker("heavy"):
            item.add_marker(pytest.mark.xdist_group("heavy"))
    items.sort(key=turn)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail where pytest-xdist would run heavy tests side by side without a word."""
    if session.config.getoption("loadgroup", False):
        heavy = [item for item in session.items if item.get_closest_marker("heavy")]
        if not all(item.nodeid.endswith("@heavy") for item in heavy):
            raise pytest.UsageError("this pytest-xdist does not group tests with this pytest")


def turn(item: pytest.Item) -> tuple[int, int]:
    """When a test's turn is: heavy ones first, then long ones, then in the order of KINDS."""
    marks = ("heavy", "long")
    mark = next((n for n, mark in enumerate(marks) if item.get_closest_marker(mark)), len(marks))
    return mark, next(n for n, kind in enumerate(KINDS) if item.get_closest_marker(kind))


# A test that is slow has not failed: how long one takes depends on the machine.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Give what tests start a SIGINT that works, also where the tests run in the background.

    A shell lets its background jobs ignore it, and they hand that on to their children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Testbed]:
    """Where a test starts what it needs; all of it ends with the test."""
    folder = tmp_path / "bed"
    folder.mkdir()
    async with Testbed(folder) as bed:
        yield bed


@pytest.fixture
async def own_livekit(bed: Testbed) -> LiveKitServer:
    """A livekit-server of the test's own, without the workers of other tests."""
    return await installed(bed.livekit())


@pytest.fixture
async def cluster(bed: Testbed) -> Cluster:
    """Two nodes of livekit-server that share a Redis."""
    return await installed(bed.cluster())


@pytest.fixture
async def fake(bed: Testbed) -> FakeLiveKit:
    """A fake LiveKit, for faults."""
    return await bed.fake_livekit()


@pytest.fixture
def worker(bed: Testbed) -> StartWorker:
    """Start workers: of this checkout and with the command `start`, unless told otherwise."""

    async def start(server: Server, **options: Any) -> Process:
        defaults: dict[str, Any] = {"command": ("agent.py", "start"), "folder": ROOT}
        return await bed.worker(server, **(defaults | options))

    return start


@pytest.fixture
def join(bed: Testbed) -> JoinRoom:
    """Let users join rooms."""
    return bed.user


async def installed(starting: Awaitable[T]) -> T:
    """Start what needs a program: skip without it; in CI a missing one is a failure."""
    try:
        return await starting
    except NotInstalledError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
