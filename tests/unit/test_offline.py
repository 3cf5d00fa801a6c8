from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import pytest
from livekit.agents.job import _JobContextVar
from livekit.agents.llm import ChatContext, ChatRole, FunctionCall, FunctionCallOutput

from agent.assistant import Assistant
from agent.offline import BUILD_TOOL, OfflineLLM, answer
from build_aware.identity.build import Build
from tests.support.jobs import stub_job

GREETING: Final = "Hello! I only follow simple rules. Ask me which build I am."


def conversation(*messages: tuple[ChatRole, str]) -> ChatContext:
    context = ChatContext.empty()
    for role, text in messages:
        context.add_message(role=role, content=text)
    return context


def after_the_tool(output: str, question: str = "Which build are you?") -> ChatContext:
    context = conversation(("user", question))
    call = FunctionCall(call_id="1", name=BUILD_TOOL, arguments="{}")
    context.insert(call)
    context.insert(FunctionCallOutput(call_id="1", name=BUILD_TOOL, output=output, is_error=False))
    return context


@pytest.mark.parametrize(
    "context",
    [
        pytest.param(conversation(), id="nothing said yet"),
        pytest.param(conversation(("system", "Greet the user.")), id="instructions only"),
        pytest.param(conversation(("developer", "Greet the user.")), id="newer instructions"),
        pytest.param(
            conversation(("user", "Hi"), ("assistant", "Hello")), id="the user said nothing since"
        ),
    ],
)
def test_without_a_question_it_greets(context: ChatContext) -> None:
    delta = answer(context)
    assert (delta.role, delta.content, delta.tool_calls) == ("assistant", GREETING, [])


@pytest.mark.parametrize(
    "said",
    ["Good morning", "", "I am building a rebuilt house", "My diversion", "Greetings, über!"],
)
def test_it_repeats_what_it_has_no_rule_for(said: str) -> None:
    delta = answer(conversation(("user", said)))
    assert (delta.role, delta.content, delta.tool_calls) == ("assistant", f"You said: {said}", [])


def test_only_the_last_thing_said_counts() -> None:
    context = conversation(
        ("user", "Which build are you?"), ("assistant", "I am a build."), ("user", "Thanks")
    )
    assert answer(context).content == "You said: Thanks"


@pytest.mark.parametrize(
    "said",
    [
        "Which build are you?",
        "which BUILD?",
        "build",
        "What is your version?",
        "The commit, please.",
        "When were you deployed?",
        "Name the deployment!",
    ],
)
def test_asked_about_its_build_it_calls_the_tool(said: str) -> None:
    delta = answer(conversation(("user", said)))
    assert (delta.role, delta.content) == ("assistant", None)
    (call,) = delta.tool_calls
    assert (call.name, call.arguments) == (BUILD_TOOL, "{}")
    assert call.call_id


def test_every_tool_call_has_an_id_of_its_own() -> None:
    context = conversation(("user", "Which build are you?"))
    ids = {call.call_id for _ in range(3) for call in answer(context).tool_calls}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("facts", "question", "said"),
    [
        ({"id": "7f3c9a1e52d0"}, "Your build?", "I am build 7f3c9a1e52d0."),
        (
            {"id": "build-2", "version": "0.1.0", "commit": "0123abc", "dirty": True},
            "Your version?",
            "I am build build-2, version 0.1.0.",
        ),
        (
            {"id": "build-2", "version": "0.1.0", "deployment": "blue"},
            "Your deployment?",
            "I am build build-2, version 0.1.0, deployment blue.",
        ),
        (
            {"id": "build-2", "commit": "0123abc"},
            "Which Commit?",
            "I am build build-2, commit 0123abc.",
        ),
        (
            {"id": "build-2", "commit": "0123abc", "dirty": True},
            "Which commit?",
            "I am build build-2, commit 0123abc with changes.",
        ),
    ],
)
def test_the_facts_that_the_tool_returned_are_said_in_a_sentence(
    facts: dict[str, Any], question: str, said: str
) -> None:
    delta = answer(after_the_tool(json.dumps(facts), question))
    assert (delta.content, delta.tool_calls) == (said, [])


@pytest.mark.parametrize("output", ["I am build-7.", "", "{", "[]", "7", '{"error": "unknown"}'])
def test_what_another_tool_returned_is_said_as_it_is(output: str) -> None:
    assert answer(after_the_tool(output)).content == output


async def test_the_model_streams_the_answer_of_the_rules() -> None:
    async with OfflineLLM().chat(chat_ctx=conversation(("user", "Good morning"))) as stream:
        chunks = [chunk async for chunk in stream]
    said = [chunk.delta.content for chunk in chunks if chunk.delta]
    assert said == ["You said: Good morning"]


def test_the_assistant_has_the_tool_that_the_rules_call() -> None:
    assert [tool.id for tool in Assistant().tools] == [BUILD_TOOL]


async def test_the_tool_returns_the_facts_that_are_known() -> None:
    build = Build("7f3c9a1e52d0", version="1.4.2", dirty=False, deployment="blue")
    which_build: Callable[[Any], Awaitable[str]] = cast(Any, Assistant().which_build)
    token = _JobContextVar.set(stub_job(build=build).ctx)
    try:
        facts = json.loads(await which_build(None))
    finally:
        _JobContextVar.reset(token)
    assert facts == {"id": "7f3c9a1e52d0", "version": "1.4.2", "deployment": "blue"}
