"""One session over a real server: the user sees the build, and talks to it."""

from __future__ import annotations

import json

from livekit import rtc

from build_aware.testbed import Testbed
from build_aware.testbed.livekit_server import LiveKitServer
from tests.conftest import JoinRoom, StartWorker
from tests.support.copies import content_id


async def test_the_speech_pipeline_hears_calls_the_tool_and_speaks(
    bed: Testbed, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    openai = await bed.fake_openai()
    await worker(own_livekit, **openai.settings)
    user = await join(own_livekit, "voice")
    agent = await user.agent()
    await user.hears("Hello from the fake.")
    openai.understands = "Which build are you?"
    await user.speak()
    await user.hears(f"I am build {content_id()}")
    assert any(content_id() in text for text in openai.spoken)
    assert [track.kind for track in agent.track_publications.values()] == [rtc.TrackKind.KIND_AUDIO]
    await user.leave()


async def test_a_user_is_served_by_the_build_that_the_build_command_names(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "hello")

    agent = await user.agent()
    assert agent.attributes["build.id"] == content_id()
    await user.hears("Ask me which build I am")
    assert "You said: good morning" in await user.ask("good morning", expect="good morning")
    await user.ask("Which build are you?", expect=f"I am build {content_id()}")

    await user.leave()
    ended = await running.logged("session ended")
    assert ended[0]["reason"] == "the last user left"
    running.send()
    assert await running.exit() == 0
    assert {record["build.id"] for record in running.records} == {content_id()}
    assert json.loads(running.text[-1])
