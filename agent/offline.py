"""A language model without a key or a network: it answers by rule.

It makes the first run, the tests and a rehearsal possible on any machine, and goes the way
of a real model: it calls tools, streams its answer, and is interrupted like one.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from uuid import uuid4

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr
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

BUILD_TOOL: Final = "which_build"
"""The tool of the assistant that the rules call when they are asked about the build."""

_ABOUT_THE_BUILD: Final = re.compile(r"\b(build|version|commit|deploy\w*)\b", re.IGNORECASE)


class OfflineLLM(LLM[Any]):
    """Rules in the place of a language model."""

    @property
    def model(self) -> str:
        """The name that metrics and traces show."""
        return "offline"

    @property
    def provider(self) -> str:
        """The provider that metrics and traces show."""
        return "rules"

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
        delta = answer(self._chat_ctx)
        self._event_ch.send_nowait(ChatChunk(id=uuid4().hex, delta=delta))


def answer(conversation: ChatContext) -> ChoiceDelta:
    """The rules: what to say, or which tool to call, after this conversation."""
    last = next(
        (
            i
            for i in reversed(conversation.items)
            if isinstance(i, ChatMessage | FunctionCallOutput)
        ),
        None,
    )
    if isinstance(last, FunctionCallOutput):
        return _say(in_words(last.output, _last_said_by_the_user(conversation)))
    if not isinstance(last, ChatMessage) or last.role != "user":
        return _say("Hello! I only follow simple rules. Ask me which build I am.")
    said = last.text_content or ""
    if _ABOUT_THE_BUILD.search(said):
        call = FunctionToolCall(name=BUILD_TOOL, arguments="{}", call_id=uuid4().hex)
        return ChoiceDelta(role="assistant", tool_calls=[call])
    return _say(f"You said: {said}")


def _last_said_by_the_user(conversation: ChatContext) -> str:
    said = (m.text_content for m in reversed(conversation.messages()) if m.role == "user")
    return next(said, None) or ""


def in_words(output: str, question: str) -> str:
    """What `BUILD_TOOL` returned, as a sentence; the output of another tool is said as it is.

    Args:
        output: what the tool returned.
        question: what was asked. A commit is long, so only those who ask for it hear it.
    """
    try:
        facts = json.loads(output)
    except ValueError:
        return output
    if not isinstance(facts, dict) or "id" not in facts:
        return output
    said = [f"build {facts['id']}"]
    said += [f"{name} {facts[name]}" for name in ("version", "deployment") if name in facts]
    if "commit" in facts and "commit" in question.lower():
        said.append(f"commit {facts['commit']}" + (" with changes" if facts.get("dirty") else ""))
    return f"I am {', '.join(said)}."


def _say(text: str) -> ChoiceDelta:
    return ChoiceDelta(role="assistant", content=text)
