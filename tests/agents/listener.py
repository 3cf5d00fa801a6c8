"""Publishes nothing and says nothing: it listens to the users."""

import math

from journal import note
from livekit import rtc
from livekit.agents import AutoSubscribe, JobContext
from livekit.agents import AgentServer, cli

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


async def take_notes(ctx: JobContext, user: rtc.RemoteParticipant) -> None:
    note("listening", to=user.identity, room=ctx.room.name)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    ctx.add_participant_entrypoint(take_notes)
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)


if __name__ == "__main__":
    cli.run_app(server)
