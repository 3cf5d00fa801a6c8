"""A terminal with a program in it, and a person in front of it; and a pipe to one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from build_aware.testbed.waiting import DEADLINE_S, until

PROMPT: Final = "you: "
CONTROL_SEQUENCE: Final = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|\r")


class Terminal:
    """A terminal with a program in it, and a person in front of it."""

    def __init__(self, fd: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._fd = fd
        self._output = ""
        self._typed_at = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, *command: str, cwd: Path, env: Mapping[str, str]) -> AsyncIterator[Terminal]:
        """Start a program in a terminal, and end it with the block."""
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=dict(env) | {"TERM": "xterm", "COLUMNS": "200"},
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

    @property
    def raw(self) -> str:
        """All that the program has written to the terminal by now."""
        with contextlib.suppress(OSError):
            self._output += os.read(self._fd, 65536).decode(errors="replace")
        return self._output

    @property
    def shown(self) -> str:
        """The same without what moves the cursor and erases."""
        return CONTROL_SEQUENCE.sub("", self.raw)

    async def sees(self, text: str) -> None:
        """Wait until this is what is shown last, and new since something was typed."""

        def seen() -> bool:
            shown = self.shown  # Once: it grows while it is looked at.
            return shown.endswith(text) and len(shown) > self._typed_at

        try:
            await until(seen, f"to see {text!r}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.shown[-2000:]}") from None

    async def types(self, text: str) -> None:
        """Wait for the prompt, and type."""
        await self.sees(f"\n{PROMPT}")
        self.presses(text)

    def presses(self, key: str) -> None:
        """Type without waiting."""
        self._typed_at = len(self.shown)
        os.write(self._fd, key.encode())

    async def exit(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        await until(lambda: self.shown and self.process.returncode is not None, "its end")
        return self.process.returncode or 0


async def pipe(*command: str, said: str, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a program in a pipe that says this; its exit code, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=dict(env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(said.encode()), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, output.decode(), errors.decode()
