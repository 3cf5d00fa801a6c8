"""`console --text` for agents that others write, in a real terminal and in a pipe."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import programs
from tests.support.rules import GREETING
from tests.support.terminal import PROMPT, Terminal, pipe

CONSOLE: Final = (*programs.PYTHON, "agent.py", "console", "--text")
HEADER: Final = "An agent of the tests\nPress Ctrl+C or Ctrl+D to leave.\n\n"
CONFIGURATION: Final = 2

AGENT: Final = """
from livekit.agents import function_tool, get_job_context
from tests.support.rules import Rules

class Friend(Agent):
    def __init__(self):
        super().__init__(instructions="Be friendly.")

    @function_tool
    async def room(self) -> str:
        "The room."
        return get_job_context().room.name

    @function_tool
    async def hang_up(self) -> str:
        "Ends the call."
        self.session.shutdown()
        return "goodbye"

    @function_tool
    async def leave(self) -> str:
        "Ends the job."
        get_job_context().shutdown()
        return "goodbye"

    @function_tool
    async def hand_over(self):
        "Hands over to another agent."
        return Other()

class Other(Friend):
    async def on_enter(self):
        await self.session.say("I am another one.")

class Greeter(Friend):
    async def on_enter(self):
        self.session.generate_reply()
"""

GREETS: Final = """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    session = AgentSession(llm=Rules())
    await session.start(Friend(), room=ctx.room)
    await ctx.connect()
    await session.generate_reply()
"""

GREETS_WHEN_IT_ENTERS: Final = """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
    session = AgentSession(llm=Rules())
    await session.start(Greeter(), room=ctx.room)
"""

WAITS: Final = """
    await asyncio.Event().wait()
"""

SAYS_NOTHING: Final = """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    session = AgentSession(llm=Rules())
    await session.start(Friend(), room=ctx.room)
"""

SPEAKS_UNASKED: Final = (
    SAYS_NOTHING
    + """
    while not os.path.exists("speak"):
        await asyncio.sleep(0.02)
    await session.say("By the way.")
"""
)

LOGS: Final = """
import logging
logging.basicConfig(level="DEBUG")
"""

CALLBACK: Final = """
    async def on_shutdown(reason):
        say(f"shut down: {reason}")

    ctx.add_shutdown_callback(on_shutdown)
"""

NO_SESSION: Final = """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
"""

NO_SESSION_AND_NO_END: Final = (
    """
from build_aware.cli import console
console.STARTS_S = 0.1
"""
    + NO_SESSION
    + """
    await asyncio.Event().wait()
"""
)

RAISES: Final = """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    raise ValueError("no key\\nfor the model")
"""

RAISES_LATER: Final = (
    GREETS
    + """
    raise ValueError("a bug")
"""
)

SETUP_RAISES: Final = (
    GREETS
    + """
def setup(process):
    raise ValueError("a bug")

server.setup_fnc = setup
"""
)

PORT_IS_TAKEN: Final = (
    """
import socket
taken = socket.create_server(("", 0))
server = AgentServer(port=taken.getsockname()[1])
"""
    + GREETS
)


@contextlib.asynccontextmanager
async def terminal(folder: Path, agent: str, *arguments: str) -> AsyncIterator[Terminal]:
    """A terminal in which somebody talks to an agent."""
    programs.write(folder, AGENT + agent)
    async with Terminal.of(*CONSOLE, *arguments, cwd=folder, env=programs.environ()) as opened:
        yield opened


async def piped(folder: Path, agent: str, *arguments: str, said: str = "") -> tuple[int, str, str]:
    """What an agent answers to a pipe: exit code, output, errors."""
    programs.write(folder, AGENT + agent)
    return await pipe(*CONSOLE, *arguments, said=said, cwd=folder, env=programs.environ())


@pytest.mark.parametrize(
    ("agent", "greeting"),
    [
        pytest.param(GREETS, f"agent: {GREETING}\n", id="greets"),
        pytest.param(GREETS_WHEN_IT_ENTERS, f"agent: {GREETING}\n", id="greets when it enters"),
        pytest.param(GREETS + WAITS, f"agent: {GREETING}\n", id="never returns"),
        pytest.param(SAYS_NOTHING, "", id="says nothing"),
    ],
)
async def test_any_agent_talks_and_nothing_else_is_shown(
    agent: str, greeting: str, tmp_path: Path
) -> None:
    async with terminal(tmp_path, agent) as screen:
        await screen.types("hello\r")
        await screen.types("room()\r")
        await screen.types("\x04")
        assert await screen.exit() == 0
        assert screen.shown == (
            f"{HEADER}{greeting}{PROMPT}hello\nagent: You said: hello\n"
            f"{PROMPT}room()\nagent: It says console.\n{PROMPT}\n"
        )


async def test_a_pipe_is_answered_line_by_line(tmp_path: Path) -> None:
    code, output, errors = await piped(tmp_path, GREETS, said="hello\n\nroom()")
    assert (code, errors) == (0, "")
    assert output == (
        f"{HEADER}agent: {GREETING}\n{PROMPT}hello\nagent: You said: hello\n"
        f"{PROMPT}\n{PROMPT}room()\nagent: It says console.\n"
    )


async def test_an_agent_that_takes_over_speaks_first(tmp_path: Path) -> None:
    code, output, errors = await piped(tmp_path, GREETS, said="hand_over()\nhello")
    assert (code, errors) == (0, "")
    assert output.endswith(
        f"{PROMPT}hand_over()\nagent: I am another one.\n{PROMPT}hello\nagent: You said: hello\n"
    )


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl+C", "Ctrl+D"])
@pytest.mark.parametrize("waits", ["", WAITS], ids=["returned", "never returns"])
async def test_it_is_left_at_the_prompt_and_callbacks_run(
    key: str, waits: str, tmp_path: Path
) -> None:
    async with terminal(tmp_path, GREETS + CALLBACK + waits) as screen:
        await screen.types(key)
        assert await screen.exit() == 0
        *_, last = screen.shown.replace("^C", "").split(GREETING)
        assert last == f"\n{PROMPT}\nshut down: parent process shutdown\n"


@pytest.mark.parametrize("how", ["hang_up()", "leave()"])
async def test_it_ends_when_the_agent_ends_the_call(how: str, tmp_path: Path) -> None:
    async with terminal(tmp_path, GREETS) as screen:
        await screen.types(f"{how}\r")
        assert await screen.exit() == 0
        assert "error" not in screen.shown


async def test_errors_of_the_model_are_one_line_each_and_the_talk_goes_on(tmp_path: Path) -> None:
    async with terminal(tmp_path, GREETS) as screen:
        for _ in range(5):
            await screen.types("fail\r")
            await screen.sees(f"\nerror: the model is down\n{PROMPT}")
        screen.presses("hello\r")
        await screen.sees(f"\nagent: You said: hello\n{PROMPT}")
        assert "Traceback" not in screen.shown


async def test_what_an_agent_says_unasked_comes_before_what_is_being_typed(tmp_path: Path) -> None:
    async with terminal(tmp_path, SPEAKS_UNASKED) as screen:
        await screen.types("hel")
        await screen.sees(f"{PROMPT}hel")
        (tmp_path / "speak").touch()
        await screen.sees(f"agent: By the way.\n{PROMPT}hel")
        assert "\r\x1b[Kagent: " in screen.raw
        screen.presses("lo\r")
        await screen.sees(f"agent: You said: hello\n{PROMPT}")


@pytest.mark.parametrize("agent", [GREETS, LOGS + GREETS], ids=["by itself", "the agent logs"])
async def test_nothing_is_logged_unless_asked_for(agent: str, tmp_path: Path) -> None:
    assert await piped(tmp_path, agent, said="hello") == (
        0,
        f"{HEADER}agent: {GREETING}\n{PROMPT}hello\nagent: You said: hello\n",
        "",
    )


async def test_logs_go_to_stderr_where_they_are_asked_for(tmp_path: Path) -> None:
    code, output, errors = await piped(tmp_path, GREETS, "--log-level", "debug", said="hello")
    assert code == 0
    assert output == f"{HEADER}agent: {GREETING}\n{PROMPT}hello\nagent: You said: hello\n"
    assert "DEBUG livekit.agents" in errors


@pytest.mark.parametrize(
    "agent", [NO_SESSION, NO_SESSION_AND_NO_END], ids=["returns", "never returns"]
)
async def test_an_agent_without_a_session_is_one_clear_line(agent: str, tmp_path: Path) -> None:
    code, output, errors = await piped(tmp_path, agent, said="hello")
    assert (code, output) == (CONFIGURATION, HEADER)
    assert errors.startswith("error: this agent did not start an AgentSession")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("agent", "code", "error"),
    [
        pytest.param(RAISES, 1, "ValueError: no key for the model", id="entrypoint"),
        pytest.param(RAISES_LATER, 1, "ValueError: a bug", id="entrypoint, later"),
        pytest.param(SETUP_RAISES, 1, "ValueError: a bug", id="setup"),
        pytest.param("", CONFIGURATION, "No RTC session entrypoint", id="no entrypoint"),
        pytest.param(PORT_IS_TAKEN, CONFIGURATION, "[Errno 98]", id="port"),
    ],
)
async def test_an_agent_that_fails_is_one_line_and_no_traceback(
    agent: str, code: int, error: str, tmp_path: Path
) -> None:
    async with terminal(tmp_path, agent) as screen:
        assert await screen.exit() == code
        (line,) = [line for line in screen.shown.splitlines() if "error" in line]
        assert line.startswith(f"error: {error}")
        assert "Traceback" not in screen.shown
