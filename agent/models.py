"""Which models the agent speaks with.

Plugins are imported inside functions on purpose: the main process of a worker never needs
them, and starts faster and smaller without them.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from livekit.agents.vad import VAD

    from build_aware.settings import Models

PLUGINS: Final[dict[Models, tuple[str, ...]]] = {
    "openai": ("livekit.plugins.openai", "livekit.plugins.silero"),
    "realtime": ("livekit.plugins.openai",),
    "offline": (),
}
"""The LiveKit plugins that each choice of models needs."""


@dataclass(frozen=True)
class SessionModels:
    """What an `AgentSession` is made of.

    Attributes:
        options: keyword arguments for `AgentSession`.
        audio: whether the models hear and speak; without it a session is text only.
    """

    options: dict[str, Any]
    audio: bool


def import_plugins(models: Models) -> None:
    """Import the plugins on the main thread, where LiveKit wants them registered."""
    for plugin in PLUGINS[models]:
        importlib.import_module(plugin)


@functools.cache
def load_vad(models: Models) -> VAD | None:
    """Load the voice activity detector, once; None where none is used.

    The fork server loads it for all job processes: 28 MB less for each of them.
    """
    if models != "openai":
        return None
    from livekit.plugins import silero  # noqa: PLC0415

    return silero.VAD.load()


def create(models: Models, vad: VAD | None) -> SessionModels:
    """Create the models of one session.

    Args:
        models: the choice of `AGENT_MODELS`.
        vad: what `load_vad` returned.
    """
    if models == "offline":
        from agent.offline import OfflineLLM  # noqa: PLC0415

        llm = OfflineLLM()
        return SessionModels({"llm": llm, "vad": None} | _turns_by("manual"), audio=False)

    from livekit.plugins import openai  # noqa: PLC0415

    if models == "realtime":
        model = openai.realtime.RealtimeModel()
        return SessionModels({"llm": model, "vad": None} | _turns_by("realtime_llm"), audio=True)
    return SessionModels(
        {"stt": openai.STT(), "llm": openai.LLM(), "tts": openai.TTS(), "vad": vad}, audio=True
    )


def create_for_text(models: Models) -> dict[str, Any]:
    """Create what an `AgentSession` is made of where users write and read only.

    To be called on the main thread: it imports plugins.
    """
    if models == "offline":
        return create(models, None).options

    from livekit.plugins import openai  # noqa: PLC0415

    if models == "realtime":
        # It hears nothing, and answers in writing.
        model = openai.realtime.RealtimeModel(modalities=["text"])
        return {"llm": model, "vad": None} | _turns_by("realtime_llm")
    return {"llm": openai.LLM(), "vad": None} | _turns_by("manual")


def _turns_by(detection: str) -> dict[str, Any]:
    return {"turn_handling": {"turn_detection": detection}}
