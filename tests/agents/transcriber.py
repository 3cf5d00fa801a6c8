"""Hears the users: its session waits for the last transcript before it closes."""

import math
from typing import Any

from livekit.agents import Agent, AgentSession, JobContext, room_io, stt
from livekit.agents import AgentServer, cli
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions
from rules import RuleLLM

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


class DeafSTT(stt.STT[Any]):
    """Takes all audio, and never understands a word."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT)

    def stream(
        self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS, **_: Any
    ) -> stt.RecognizeStream:
        return _Stream(stt=self, conn_options=conn_options)


class _Stream(stt.RecognizeStream):
    async def _run(self) -> None:
        async for _ in self._input_ch:
            pass


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(stt=DeafSTT(), llm=RuleLLM(), vad=None)
    await session.start(
        agent=Agent(instructions="You listen."),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
