"""When adoption calls the server, and what it does when the server fails."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from livekit.protocol.models import ServerInfo

from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.processes import logged_at
from build_aware.testbed.status import Status
from build_aware.testbed.waiting import until
from tests.conftest import StartWorker

ADOPTING = "adopting a waiting room"
TROUBLE = "cannot look for waiting rooms"

SEVERAL_SWEEPS_S = 8.0


@pytest.mark.parametrize(
    ("edition", "adoption"),
    [
        pytest.param(ServerInfo.Edition.Cloud, "auto", id="on LiveKit Cloud"),
        pytest.param(ServerInfo.Edition.Standard, "off", id="switched off", marks=pytest.mark.slow),
    ],
)
async def test_a_worker_that_does_not_adopt_calls_nothing(
    edition: ServerInfo.Edition, adoption: str, fake: FakeLiveKit, worker: StartWorker
) -> None:
    fake.edition = edition
    fake.has_a_waiting_room("call")
    running = await worker(fake, AGENT_ADOPTION=adoption)
    await running.logged("waiting rooms are not adopted")
    await asyncio.sleep(SEVERAL_SWEEPS_S)  # There is nothing to wait for: nothing must happen.
    assert not fake.calls
    assert (await (await Status.of(running)).get())["adoption"] == "off"


@pytest.mark.parametrize(
    ("edition", "adoption"),
    [(ServerInfo.Edition.Cloud, "on"), (ServerInfo.Edition.Standard, "auto")],
    ids=["switched on", "on a server of one's own"],
)
async def test_a_worker_that_adopts_calls(
    edition: ServerInfo.Edition, adoption: str, fake: FakeLiveKit, worker: StartWorker
) -> None:
    fake.edition = edition
    fake.has_a_waiting_room("call")
    running = await worker(fake, AGENT_ADOPTION=adoption)
    await running.logged(ADOPTING, room="call")


@pytest.mark.parametrize(
    "method",
    ["ListRooms", "ListParticipants", "ListDispatch"],
)
@pytest.mark.slow
async def test_trouble_with_the_server_is_told_once_and_no_room_is_forgotten(
    method: str, fake: FakeLiveKit, worker: StartWorker
) -> None:
    fake.has_a_waiting_room("call")
    fake.failing.add(method)
    running = await worker(fake)
    await until(lambda: fake.calls[method] >= 2, f"two failed calls of {method}")
    fake.failing.clear()
    fake.hanging.add(method)
    await until(lambda: fake.calls[method] >= 4, f"two more calls of {method}")
    assert not running.find(ADOPTING)
    assert len(running.find(TROUBLE)) == 1
    assert "Traceback" not in running.output

    fake.hanging.clear()
    await running.logged(ADOPTING, room="call")
    await running.logged("looking for waiting rooms again")
    assert len(running.find(TROUBLE)) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(["no"], id="list"),
        pytest.param(None, id="none"),
        pytest.param("no", id="text", marks=pytest.mark.slow),
        pytest.param(7, id="number", marks=pytest.mark.slow),
    ],
)
async def test_an_error_in_no_known_form_is_waited_out_and_can_be_seen(
    body: Any, fake: FakeLiveKit, worker: StartWorker
) -> None:
    fake.has_a_waiting_room("call")
    fake.failing.add("ListRooms")
    fake.error = body
    running = await worker(fake)
    (trouble,) = await running.logged(TROUBLE)
    assert trouble["error"]
    status = await Status.of(running)
    assert (await status.get())["adoption"] == "failing"
    assert "agent_adoption_failing 1.0" in await status.metrics()

    fake.failing.clear()
    await running.logged(ADOPTING, room="call")
    assert (await status.get())["adoption"] == "on"
    assert "agent_adoption_failing 0.0" in await status.metrics()


async def test_calls_get_rarer_while_they_fail(fake: FakeLiveKit, worker: StartWorker) -> None:
    times: list[float] = []
    fake.failing.add("ListRooms")
    running = await worker(fake)
    for count in range(1, 5):
        await until(lambda count=count: fake.calls["ListRooms"] >= count, "a call")  # type: ignore[misc]
        times.append(asyncio.get_running_loop().time())
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] > 1, "a call was repeated at once"
    assert pauses[2] > pauses[0] * 1.5
    assert len(running.find(TROUBLE)) == 1


async def test_a_room_whose_sessions_crash_is_tried_again_ever_more_rarely(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    # No agent can connect: there is no room behind the fake.
    fake.has_a_waiting_room("call")
    running = await worker(fake)
    await running.logged(ADOPTING, count=4, deadline_s=180)
    records = running.find(ADOPTING)
    times = [logged_at(record) for record in records]
    assert [record["attempt"] for record in records[:4]] == [1, 2, 3, 4]
    assert times[3] - times[2] > 4
