"""LiveKit's text console on a machine without an audio library."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

_HINT: Final = (
    "this machine has no audio library (PortAudio). Install it "
    "(apt-get install libportaudio2, or brew install portaudio), or use: console --text"
)


class _NoAudio(ModuleType):
    """Stands in for `sounddevice`, and says what is missing once audio is really used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # LiveKit's console prints a ValueError as one line.
        raise ValueError(_HINT)


def allow_missing_audio() -> None:
    """Let LiveKit's console start without PortAudio; it imports it even for text."""
    try:
        import sounddevice  # type: ignore[import-untyped] # noqa: F401, PLC0415
    except (ImportError, OSError):
        sys.modules["sounddevice"] = _NoAudio("sounddevice")
