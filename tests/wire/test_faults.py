"""Faults that a real server does not make on demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.processes import logged_at
from build_aware.testbed.status import Status
from build_aware.testbed.waiting import until
from build_aware.testbed.worker import READY_S
from tests.conftest import StartWorker
from tests.support import faults
from tests.support.copies import WAYS_IN_ONE_SLOW, content_id
from tests.support.paths import ROOT


async def test_a_job_that_is_never_assigned_does_not_hold_up_the_drain(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake)
    status = await Status.of(running)
    assert (await fake.offer()).available
    assert (await status.get())["sessions"] == 1
    running.send()
    assert await running.exit() == 0
    assert len(running.find("accepted a job that LiveKit never assigned")) == 1
    assert "Traceback" not in running.output


@pytest.mark.parametrize("command", WAYS_IN_ONE_SLOW)
async def test_a_server_that_closes_every_registration_is_not_stormed(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker
) -> None:
    fake.refuses = True
    running = await worker(fake, command=command, registered=False)
    assert await running.exit(deadline_s=120) == 3
    assert fake.connections == 5
    (gave_up,) = running.find("giving up on LiveKit")
    assert "closed instead of registering" in gave_up["reason"]


async def test_a_server_that_soon_registers_after_all_keeps_its_worker(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    fake.refuses = True
    running = await worker(fake, registered=False)
    await until(lambda: fake.connections == 2, "two refused registrations")
    fake.refuses = False
    await running.logged("registered worker")
    status = await Status.of(running)
    await status.becomes("ready")
    await fake.disconnect()
    await running.logged("registered worker", count=2)
    await status.becomes("ready")
    running.send()
    assert await running.exit() == 0


@pytest.mark.parametrize(
    ("status", "starting"),
    [
        (401, True),
        pytest.param(503, False, marks=pytest.mark.slow),
        pytest.param(401, False, marks=pytest.mark.slow),
        pytest.param(403, False, marks=pytest.mark.slow),
        pytest.param(403, True, marks=pytest.mark.slow),
        pytest.param(503, True, marks=pytest.mark.slow),
    ],
)
async def test_a_gateway_that_is_away_for_a_moment_keeps_its_workers(
    status: int, starting: bool, fake: FakeLiveKit, worker: StartWorker
) -> None:
    if starting:
        fake.status = status
        running = await worker(fake, registered=False)
    else:
        running = await worker(fake)
        fake.status = status
        await fake.disconnect()
    (told,) = await running.logged("check", status=status, deadline_s=READY_S)
    assert told["url"] == f"{fake.credentials['LIVEKIT_URL']}/agent"
    tried = fake.connections
    await until(lambda: fake.connections >= tried + 3, "more tries")
    fake.status = None
    await running.logged("registered worker", count=1 if starting else 2)
    assert len(running.find("check", status=status)) == 1, "told more than once"
    assert not [record for record in running.records if record["level"] == "ERROR"]
    running.send()
    assert await running.exit() == 0


@pytest.mark.parametrize("command", WAYS_IN_ONE_SLOW)
async def test_a_worker_without_sessions_that_stays_refused_gives_up(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker, tmp_path: Path
) -> None:
    folder = faults.with_patience(tmp_path / "agent", 3)
    running = await worker(fake, command=command, folder=folder)
    fake.status = 401
    before = fake.connections
    await fake.disconnect()
    assert await running.exit() == 3
    # After 0.5, 1 and 2 seconds at most; the first one and the last one are no retries.
    assert 3 <= fake.connections - before <= 5
    (told,) = running.find("LiveKit refuses this worker")
    (gave_up,) = running.find("giving up on LiveKit")
    assert (told["level"], gave_up["level"]) == ("WARNING", "ERROR")
    assert logged_at(gave_up) - logged_at(told) >= 3
    assert "401" in gave_up["reason"]
    assert "Traceback" not in running.output


async def test_a_url_with_a_wrong_path_is_told_with_status_and_url(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    wrong = fake.credentials["LIVEKIT_URL"] + "/some/path"
    running = await worker(fake, registered=False, LIVEKIT_URL=wrong)
    await running.logged("failed to connect to livekit", count=3, deadline_s=READY_S)
    (told,) = running.find("answers with an HTTP error")
    assert (told["level"], told["status"], told["url"]) == ("WARNING", 404, f"{wrong}/agent")
    assert "path" in told["message"]


async def test_a_success_gives_back_all_the_patience(
    fake: FakeLiveKit, worker: StartWorker, tmp_path: Path
) -> None:
    running = await worker(fake, folder=faults.with_patience(tmp_path / "agent", 4))
    for registrations in (2, 3, 4):
        fake.status = 401
        before = fake.connections
        await fake.disconnect()
        await until(lambda before=before: fake.connections >= before + 3, "tries")  # type: ignore[misc]
        fake.status = None
        await running.logged("registered worker", count=registrations)
    assert len(running.find("LiveKit refuses this worker")) == 3
    assert not running.find("giving up on LiveKit")


async def test_a_drain_that_stands_still_takes_no_job_after_a_reconnect(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake)
    assert (await fake.offer()).available  # never assigned: the drain waits for it
    running.send()
    await running.logged("draining worker")
    await fake.disconnect()
    await running.logged("registered worker", count=2)
    answer = await fake.offer()
    assert (answer.available, answer.terminate) == (False, False)
    assert await running.exit() == 0


async def test_a_taken_port_ends_the_worker_with_one_clear_line(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    for variable in ("AGENT_HEALTH_PORT", "AGENT_STATUS_PORT"):
        running = await worker(fake, registered=False, **{variable: str(fake.port)})
        assert await running.exit() == 2
        (error,) = [r for r in running.records if r["level"] == "ERROR"]
        assert str(fake.port) in error["error"]
        assert "Traceback" not in running.output


async def test_the_working_directory_cannot_stand_in_for_the_build(
    fake: FakeLiveKit, worker: StartWorker, tmp_path: Path
) -> None:
    """Job processes must not import whatever `agent` the working directory holds."""
    impostor = tmp_path / "agent"
    impostor.mkdir()
    (impostor / "__init__.py").write_text("raise RuntimeError('an impostor was imported')")
    fake.assigns = True
    running = await worker(fake, command=(str(ROOT / "agent.py"), "start"), folder=tmp_path)
    assert (await fake.offer()).participant_attributes["build.id"] == content_id()
    await running.logged("session ended")
    assert "impostor" not in running.output
