"""LiveKit's starter, with a language model by rule, and text only."""

import math

from dotenv import load_dotenv
from livekit.agents import Agent, AgentSession, JobContext, JobProcess, room_io
from livekit.agents import AgentServer, cli
from rules import RuleLLM

load_dotenv(".env.local")


class Assistant(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You are a helpful voice AI assistant.")

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet the user and offer your assistance.")


server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


def prewarm(proc: JobProcess) -> None:
    proc.userdata["llm"] = RuleLLM()


server.setup_fnc = prewarm


@server.rtc_session(agent_name="my-agent")
async def my_agent(ctx: JobContext) -> None:
    ctx.log_context_fields = {"room": ctx.room.name}
    session: AgentSession[None] = AgentSession(llm=ctx.proc.userdata["llm"], vad=None)
    await session.start(
        agent=Assistant(),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
