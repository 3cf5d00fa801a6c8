"""What a worker answers to offers, as seen on the wire."""

from __future__ import annotations

import asyncio
import random

from build_aware.testbed.fake_livekit import FakeLiveKit
from tests.conftest import StartWorker
from tests.support.copies import content_id
from tests.support.metadata import asking_for, strange_metadata


async def test_the_target_is_accepted_with_its_build_in_the_attributes(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    await worker(fake)
    answer = await fake.offer(room_metadata=asking_for(content_id()))
    assert answer.available
    assert answer.participant_attributes["build.id"] == content_id()
    assert answer.participant_attributes["build.version"]


async def test_another_target_is_refused_without_ending_the_job_for_everybody(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    await worker(fake)
    offers = [
        {"room_metadata": asking_for("another")},
        {"dispatch_metadata": asking_for(["one", "two"])},
        {"room_metadata": asking_for({"id": "another", "fallback": "any", "wait": 0})},
        {"room_metadata": asking_for(content_id()), "dispatch_metadata": asking_for("another")},
    ]
    for offer in offers:
        answer = await fake.offer(**offer)
        assert (answer.available, answer.terminate) == (False, False), offer


async def test_untargeted_jobs_follow_the_setting(fake: FakeLiveKit, worker: StartWorker) -> None:
    refusing = await worker(fake, AGENT_UNTARGETED="reject")
    answer = await fake.offer(room_metadata='{"tenant": "acme"}')
    assert (answer.available, answer.terminate) == (False, False)
    await refusing.stop()

    await worker(fake, AGENT_UNTARGETED="accept")
    assert (await fake.offer(room_metadata="not JSON")).available


async def test_a_full_worker_refuses_without_ending_the_job_for_everybody(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    await worker(fake, AGENT_MAX_SESSIONS="3")
    answers = await asyncio.gather(*(fake.offer() for _ in range(10)))
    assert sum(answer.available for answer in answers) == 3
    assert not any(answer.terminate for answer in answers)


async def test_a_thousand_strange_metadata_get_one_answer_each(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    strange = strange_metadata(1200)
    assert len(strange) >= 1000
    running = await worker(fake, AGENT_UNTARGETED="reject")

    choice = random.Random(1)
    for start in range(0, len(strange), 50):
        await asyncio.gather(
            *(
                fake.offer(**{choice.choice(["room_metadata", "dispatch_metadata"]): metadata})
                for metadata in strange[start : start + 50]
            )
        )
    good = await fake.offer(room_metadata=asking_for(content_id()))

    assert good.available
    assert len(fake.answers) == len(strange) + 1
    assert {len(answers) for answers in fake.answers.values()} == {1}
    assert not any(a.terminate for answers in fake.answers.values() for a in answers)
    answered = await running.logged("job offer answered", count=len(strange) + 1)
    assert len(answered) == len(strange) + 1
    assert "Traceback" not in running.output
    assert not [record for record in running.records if record["level"] == "ERROR"]


async def test_a_worker_that_ends_has_told_all_answers(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake)
    await asyncio.gather(*(fake.offer(room_metadata=asking_for("another")) for _ in range(20)))
    running.send()
    assert await running.exit() == 0
    assert len(running.find("job offer answered", reason="other-target")) == 20
