"""A language model for agents of the tests: it answers by rule, calls a tool, or fails."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectionError,
    APIConnectOptions,
    NotGivenOr,
)
from livekit.agents.llm import (
    LLM,
    ChatChunk,
    ChatContext,
    ChatMessage,
    ChoiceDelta,
    FunctionCallOutput,
    FunctionToolCall,
    LLMStream,
    Tool,
    ToolChoice,
)

GREETING: Final = "Hello."
"""What it says where nobody has written anything yet."""


class Rules(LLM[Any]):
    """Answers `NAME()` by a call of that tool, `fail` by an error, all else by an echo."""

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Answer the conversation so far."""
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(LLMStream):
    async def _run(self) -> None:
        self._event_ch.send_nowait(ChatChunk(id=uuid4().hex, delta=_answer(self._chat_ctx)))


def _answer(conversation: ChatContext) -> ChoiceDelta:
    last = conversation.items[-1] if conversation.items else None
    if isinstance(last, FunctionCallOutput):
        return ChoiceDelta(role="assistant", content=f"It says {last.output}.")
    if not isinstance(last, ChatMessage) or last.role != "user":
        return ChoiceDelta(role="assistant", content=GREETING)
    said = last.text_content or ""
    if said == "fail":
        raise APIConnectionError("the model\nis down")
    if said.endswith("()"):
        call = FunctionToolCall(name=said[:-2], arguments="{}", call_id=uuid4().hex)
        return ChoiceDelta(role="assistant", tool_calls=[call])
    return ChoiceDelta(role="assistant", content=f"You said: {said}")
