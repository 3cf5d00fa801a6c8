"""How a worker starts: what it says, and what it refuses."""

from __future__ import annotations

import pytest

from agent.build import content_id
from agent.forkserver import FRAMEWORK_PRELOAD
from testbed.fake_livekit import FakeLiveKit
from testbed.processes import command_line
from tests.conftest import StartWorker
from tests.support.copies import WAYS_IN


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_every_way_in_starts_the_same_worker(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake, command=command, LIVEKIT_AGENT_NAME="assistant")
    assert fake.registrations[-1].agent_name == "assistant"
    assert (await fake.offer()).participant_attributes["build.id"] == content_id()
    assert {record["build.id"] for record in running.records} == {content_id()}


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_connection_flags_override_the_environment(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker
) -> None:
    url = fake.credentials["LIVEKIT_URL"]
    await worker(fake, command=(*command, "--url", url), LIVEKIT_URL="")
    assert fake.registrations


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_every_problem_is_named_at_once_and_no_secret_is(
    command: tuple[str, ...], worker: StartWorker, fake: FakeLiveKit
) -> None:
    running = await worker(
        fake,
        command=command,
        registered=False,
        AGENT_BUILD_ID="not legal",
        AGENT_MODELS="psychic",
        AGENT_UNTARGETED="maybe",
        LIVEKIT_URL="",
    )
    assert await running.exit() == 2
    for name in ("AGENT_BUILD_ID", "AGENT_MODELS", "AGENT_UNTARGETED", "LIVEKIT_URL"):
        assert name in running.output
    assert "Traceback" not in running.output
    assert fake.credentials["LIVEKIT_API_SECRET"] not in running.output
    assert not fake.connections


async def test_a_running_worker_prints_no_secret(fake: FakeLiveKit, worker: StartWorker) -> None:
    fake.assigns = True
    running = await worker(fake, OPENAI_API_KEY="sk-secret-of-openai", LIVEKIT_LOG_LEVEL="DEBUG")
    assert (await fake.offer()).available
    # The room of the job does not exist: the job crashes, and its log shows no secret either.
    await running.logged("session ended")
    assert fake.credentials["LIVEKIT_API_SECRET"] not in running.output
    assert "sk-secret-of-openai" not in running.output


async def test_dev_refuses_untargeted_jobs_of_a_server_elsewhere(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    # Reached through a proxy on loopback, so that no name has to be resolved.
    running = await worker(
        fake,
        command=("agent.py", "dev"),
        registered=False,
        LIVEKIT_URL="ws://livekit.example",
        HTTP_PROXY=f"http://127.0.0.1:{fake.port}",
    )
    untargeted = await fake.offer()
    assert (untargeted.available, untargeted.terminate) == (False, False)
    metadata = f'{{"agent_build": "{content_id()}"}}'
    assert (await fake.offer(room_metadata=metadata)).available
    assert metadata.replace('"', '\\"') in running.output
    assert "AGENT_UNTARGETED=accept" in running.output


async def test_dev_accepts_untargeted_jobs_of_a_server_on_this_machine(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    await worker(fake, command=("agent.py", "dev"), registered=False)
    assert (await fake.offer()).available


async def test_the_fork_server_preloads_what_the_framework_would(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake)
    (would,) = running.find("preloading plugins")
    assert would["packages"][-len(FRAMEWORK_PRELOAD) :] == list(FRAMEWORK_PRELOAD)
    command_lines = [" ".join(command_line(process)) for process in running.family()]
    forkservers = {line for line in command_lines if "multiprocessing.forkserver" in line}
    assert len(forkservers) == 1, "the framework started a fork server of its own"
    assert repr(would["packages"]) in forkservers.pop()
