"""The console, in a real terminal and in a pipe, on a machine without audio or a server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator

import pytest

from build_aware.identity.build import identify
from build_aware.testbed import Testbed
from build_aware.testbed.environ import environment
from build_aware.testbed.waiting import DEADLINE_S
from tests.support.copies import content_id
from tests.support.paths import ROOT
from tests.support.terminal import PROMPT, Terminal, pipe

TEXT = (sys.executable, "-W", "error::DeprecationWarning", "agent.py", "console", "--text")
GREETING = "agent: Hello! I only follow simple rules. Ask me which build I am.\n"
LEAVE = "Press Ctrl+C or Ctrl+D to leave."
HEADER_LINES = 4
WITHOUT_AUDIO = """
import sys
sys.modules["sounddevice"] = None
sys.argv[0] = "agent.py"
from build_aware import cli
cli.run_app("agent:server")
"""


@contextlib.asynccontextmanager
async def terminal_with(*command: str, **env: str) -> AsyncIterator[Terminal]:
    """A terminal with a command of this checkout."""
    async with Terminal.of(*command, cwd=ROOT, env=environment(**env)) as terminal:
        yield terminal


async def text_in_a_pipe(*arguments: str, said: str, **env: str) -> tuple[int, str, str]:
    """Run the text console in a pipe; its exit code, its output and its errors."""
    return await pipe(*TEXT, *arguments, said=said, cwd=ROOT, env=environment(**env))


async def test_the_text_console_shows_what_the_readme_shows() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (transcript,) = re.findall(
        r"```console\n\$ uv run agent.py console --text\n(.*?)```", readme, re.DOTALL
    )
    written = re.search(r"\bI am build ([0-9a-f]{12})\b", transcript)
    assert written is not None
    expected = transcript.replace(written[1], content_id())
    async with terminal_with(*TEXT) as terminal:
        for said in re.findall(rf"^{PROMPT}(.+)$", transcript, re.MULTILINE):
            await terminal.types(f"{said}\r")
        await terminal.types("\x04")
        assert await terminal.exit() == 0
        assert terminal.shown == f"{expected}{PROMPT}\n"
    assert transcript.index("agent: ") == transcript.index("\n\n") + 2
    assert transcript.split("agent: ")[0].count("\n") <= HEADER_LINES


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl+C", "Ctrl+D"])
async def test_the_text_console_is_left_at_the_prompt(key: str) -> None:
    async with terminal_with(*TEXT) as terminal:
        await terminal.types("\r")
        await terminal.types(key)
        assert await terminal.exit() == 0
        _, talk = terminal.shown.split(GREETING)
        assert talk.replace("^C", "") == f"{PROMPT}\n{PROMPT}\n"


async def test_the_text_console_is_left_while_the_provider_is_silent() -> None:
    asked = asyncio.Event()
    async with await asyncio.start_server(lambda *_: asked.set(), "127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1"
        async with terminal_with(*TEXT, OPENAI_API_KEY="sk-fake", OPENAI_BASE_URL=url) as terminal:
            await asyncio.wait_for(asked.wait(), DEADLINE_S)
            await terminal.sees(f"{LEAVE}\n\n")
            terminal.presses("\x03")
            assert await terminal.exit() == 0
            assert terminal.shown.split(LEAVE)[1].replace("^C", "").strip() == ""


async def test_the_text_console_answers_a_pipe_and_ends_with_it() -> None:
    code, output, errors = await text_in_a_pipe(said="which build are you?\n\nhello")
    assert (code, errors) == (0, "")
    header, talk = output.split("\n\n", 1)
    assert content_id() in header
    assert talk == (
        f"{GREETING}{PROMPT}which build are you?\n"
        f"agent: I am build {content_id()}, version {identify(ROOT).version}.\n"
        f"{PROMPT}\n{PROMPT}hello\nagent: You said: hello\n"
    )


async def test_logs_are_shown_where_they_are_asked_for() -> None:
    code, output, errors = await text_in_a_pipe("--log-level", "DEBUG", said="hello")
    assert code == 0
    assert output.endswith("agent: You said: hello\n")
    assert "DEBUG livekit.agents" in errors


async def test_an_error_of_the_provider_is_one_line_and_the_talk_goes_on(bed: Testbed) -> None:
    openai = await bed.fake_openai()
    openai.refuses_the_key = True
    async with terminal_with(*TEXT, **openai.settings) as terminal:
        for _ in range(5):
            await terminal.types("hello\r")
            await terminal.sees(f"error: Incorrect API key provided. (HTTP 401)\n{PROMPT}")
        openai.refuses_the_key = False
        await terminal.types("which build are you?\r")
        await terminal.sees(f"\nagent: I am build {content_id()}. \n{PROMPT}")
        assert "Traceback" not in terminal.shown
        said = [message["content"] for message in openai.messages if message["role"] == "user"]
        assert said == [*5 * ["hello"], "which build are you?"]


async def test_the_voice_console_without_an_audio_library_says_what_to_install() -> None:
    async with terminal_with(sys.executable, "-c", WITHOUT_AUDIO, "console") as terminal:
        assert await terminal.exit() == 2
        assert "console --text" in terminal.shown
        assert "libportaudio2" in terminal.shown
        assert len(terminal.shown.splitlines()) == 1


async def test_the_text_console_needs_no_audio_library() -> None:
    async with terminal_with(sys.executable, "-c", WITHOUT_AUDIO, "console", "--text") as terminal:
        await terminal.types("\x04")
        assert await terminal.exit() == 0
        assert GREETING in terminal.shown
