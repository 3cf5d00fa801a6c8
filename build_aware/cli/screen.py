"""A terminal, or a pipe, in which a person and an agent write in turn."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Final

import typer
from livekit.agents.voice.io import TextOutput

AGENT: Final = "agent: "
USER: Final = "you: "
ERROR: Final = "error: "

_CLEAR_LINE: Final = "\r\x1b[K"
"""ANSI: back to the beginning of the line, and erase it."""


class Screen(TextOutput):
    """Shows what an agent says while it says it, and reads what the person writes.

    The agent writes from the event loop of its job, the person's thread is the main thread.

    Attributes:
        reads: whether the person is waited for.
    """

    def __init__(self) -> None:
        super().__init__(label="terminal", next_in_chain=None)
        self._speaks = False
        self._prompts = False
        self.reads = False
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        with contextlib.suppress(ImportError):
            # The import alone gives `input` line editing and a history.
            import readline  # noqa: F401, PLC0415

    def read(self) -> str:
        """Read a line.

        Raises:
            EOFError: there is none any more.
        """
        self.reads = True
        try:
            return self._read()
        finally:
            self.reads = False

    def _read(self) -> str:
        if sys.stdin.isatty():
            self._prompts = True
            try:
                return input(USER).strip()
            finally:
                self._prompts = False
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        # What comes out of a pipe is on no terminal yet.
        typer.echo(f"{USER}{line.strip()}")
        return line.strip()

    async def capture_text(self, text: str) -> None:
        """Show a piece of a speech."""
        if not self._speaks:
            text = text.lstrip()
            if not text:
                return
            self._speaks = True
            self._leave_prompt()
            text = f"{AGENT}{text}"
        typer.echo(text, nl=False)

    def flush(self) -> None:
        """End the line of a speech."""
        if self._speaks:
            self._speaks = False
            typer.echo()
            self._prompt_again()

    def show_error(self, text: str) -> None:
        """Show what went wrong, in a line of its own."""
        self.flush()
        self._leave_prompt()
        typer.echo(f"{ERROR}{text}", err=True)
        self._prompt_again()

    def end(self) -> None:
        """End the line that was begun, so that the next program begins with one of its own."""
        self.flush()
        if sys.stdin.isatty():
            typer.echo()

    def _leave_prompt(self) -> None:
        if self._prompts and sys.stdout.isatty():
            typer.echo(_CLEAR_LINE, nl=False)

    def _prompt_again(self) -> None:
        """Show the prompt again, and what has been typed so far, below what has just been said."""
        if self._prompts and sys.stdout.isatty():
            readline = sys.modules.get("readline")
            typed = readline.get_line_buffer() if readline is not None else ""
            typer.echo(f"{USER}{typed}", nl=False)
