"""The text console, in a real terminal, on a machine without audio, key or server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import sys
import termios
from collections.abc import AsyncIterator

from agent.build import ROOT, content_id
from testbed.processes import environment
from testbed.waiting import until

PROMPT = "❯ "  # noqa: RUF001 LiveKit's
CURSOR = "█"
CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Terminal:
    """A terminal with a program in it, and a person in front of it."""

    def __init__(self, fd: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.shown = ""
        self._fd = fd

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, *command: str, **env: str) -> AsyncIterator[Terminal]:
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=environment(TERM="xterm", COLUMNS="200", **env),
            # Its controlling terminal, so that Ctrl+C means something.
            preexec_fn=lambda: os.login_tty(theirs),
        )
        os.close(theirs)
        try:
            yield cls(ours, process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            os.close(ours)

    async def sees(self, text: str) -> None:
        def seen() -> bool:
            self._read()
            return text in CONTROL_SEQUENCE.sub("", self.shown)

        try:
            await until(seen, f"to see {text!r}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.shown[-2000:]}") from None

    async def types(self, text: str) -> None:
        """Type as a person does: LiveKit's console drops what comes faster than it reads."""
        for end in range(1, len(text) + 1):
            await self.presses(text[end - 1])
            await self.sees(f"{PROMPT}{text[:end]}{CURSOR}")

    async def presses(self, key: str) -> None:
        await until(self._waits_for_a_key, "the console to wait for a key")
        os.write(self._fd, key.encode())

    async def exit(self) -> int:
        def ended() -> bool:
            self._read()
            return self.process.returncode is not None

        await until(ended, "the console to end")
        return self.process.returncode or 0

    def _waits_for_a_key(self) -> bool:
        self._read()
        return not termios.tcgetattr(self._fd)[3] & termios.ICANON

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.shown += os.read(self._fd, 65536).decode(errors="replace")


async def test_the_text_console_answers_without_audio_key_or_server() -> None:
    async with Terminal.of(sys.executable, "agent.py", "console", "--text") as terminal:
        await terminal.sees("Type to talk")
        await terminal.types("build?")
        await terminal.presses("\r")
        await terminal.sees(f"I am build {content_id()}")
        await terminal.presses("\x03")
        assert await terminal.exit() == 0


async def test_the_voice_console_without_an_audio_library_says_what_to_install() -> None:
    without = "import sys; sys.modules['sounddevice'] = None; sys.argv = ['agent.py', 'console']"
    script = f"{without}; from agent.cli.main import main; main()"
    async with Terminal.of(sys.executable, "-c", script) as terminal:
        await terminal.sees("console --text")
        assert await terminal.exit() == 2
        assert "Traceback" not in terminal.shown
