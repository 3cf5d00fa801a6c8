"""LiveKit's text console on a machine without an audio library."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

NO_AUDIO: Final = (
    "this machine has no audio library (PortAudio); use `console --text`, or install it with "
    "`apt-get install libportaudio2` or `brew install portaudio`"
)


class _NoAudio(ModuleType):
    """Stands in for `sounddevice`, which LiveKit's console imports even for text."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError(NO_AUDIO)


def has_audio() -> bool:
    """Whether the audio library is there."""
    try:
        import sounddevice  # type: ignore[import-untyped] # noqa: F401, PLC0415
    except (ImportError, OSError):
        return False
    return True


def do_without_audio() -> None:
    """Let LiveKit's console start in text mode without the audio library."""
    sys.modules["sounddevice"] = _NoAudio("sounddevice")
