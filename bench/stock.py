"""The worker to compare with: a plain starter agent, as LiveKit's own templates have it."""

from __future__ import annotations

import math

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, JobProcess, cli
from livekit.plugins import openai, silero

# No threshold, or the CPU load of the benchmark itself would make it decline offers.
server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


def prewarm(process: JobProcess) -> None:
    """Load the voice activity detector before a job needs it."""
    process.userdata["vad"] = silero.VAD.load()


server.setup_fnc = prewarm


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Serve one job."""
    session: AgentSession[None] = AgentSession(
        stt=openai.STT(), llm=openai.LLM(), tts=openai.TTS(), vad=ctx.proc.userdata["vad"]
    )
    await session.start(Agent(instructions="You are a helpful assistant."), room=ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
