"""Agents that answer without a key or a network: they say what they were told."""

import asyncio
from typing import Any
from uuid import uuid4

from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions
from livekit.agents.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, LLMStream, Tool


class RuleLLM(LLM[Any]):
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> LLMStream:
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(LLMStream):
    async def _run(self) -> None:
        said = [m.text_content for m in self._chat_ctx.messages() if m.role == "user"]
        text = f"You said: {said[-1]} ({len(said)})" if said else "Hello!"
        delta = ChoiceDelta(role="assistant", content=text)
        self._event_ch.send_nowait(ChatChunk(id=uuid4().hex, delta=delta))


def repeat_data(room: rtc.Room, prefix: str = "") -> None:
    sending = set[asyncio.Task[None]]()

    @room.on("data_received")
    def on_data(packet: rtc.DataPacket) -> None:
        if packet.topic == "ask":
            answer = prefix + packet.data.decode()
            task = asyncio.create_task(room.local_participant.publish_data(answer, topic="answer"))
            sending.add(task)
            task.add_done_callback(sending.discard)
