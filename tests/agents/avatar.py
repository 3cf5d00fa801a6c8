"""Has a face: a second participant that publishes for the agent."""

import math
import os

from livekit import api, rtc
from livekit.agents import Agent, AgentSession, JobContext, room_io
from livekit.agents import AgentServer, cli
from rules import RuleLLM

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


async def start_avatar(ctx: JobContext) -> None:
    token = (
        api.AccessToken()
        .with_identity("avatar")
        .with_kind("agent")
        .with_grants(api.VideoGrants(room_join=True, room=ctx.room.name))
        .with_attributes({"lk.publish_on_behalf": ctx.local_participant_identity})
        .to_jwt()
    )
    avatar = rtc.Room()
    ctx.add_shutdown_callback(avatar.disconnect)
    await avatar.connect(os.environ["LIVEKIT_URL"], token)
    face = rtc.LocalVideoTrack.create_video_track("face", rtc.VideoSource(64, 64))
    await avatar.local_participant.publish_track(face)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(llm=RuleLLM(), vad=None)
    await start_avatar(ctx)
    await session.start(
        agent=Agent(instructions="You have a face."),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
