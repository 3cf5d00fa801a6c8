"""Written for livekit-agents 1.0: `WorkerOptions` in the place of a server."""

import math

from livekit.agents import Agent, AgentSession, JobContext, JobProcess, JobRequest
from livekit.agents import WorkerOptions, room_io
from livekit.agents import cli
from rules import RuleLLM


def prewarm(proc: JobProcess) -> None:
    proc.userdata["llm"] = RuleLLM()


async def request(req: JobRequest) -> None:
    await req.accept(name="Legacy")


async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    session: AgentSession[None] = AgentSession(llm=ctx.proc.userdata["llm"], vad=None)
    await session.start(
        agent=Agent(instructions="You are old."),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(
        WorkerOptions(
            entrypoint_fnc=entrypoint,
            prewarm_fnc=prewarm,
            request_fnc=request,
            port=0,
            load_fnc=lambda: 0.0,
            load_threshold=math.inf,
        )
    )
