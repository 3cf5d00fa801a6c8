"""Which models the agent speaks with.

Plugins are imported inside functions on purpose: the main process of a worker never needs
them, and starts faster and smaller without them.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from livekit.agents import NOT_GIVEN

if TYPE_CHECKING:
    from livekit.agents.vad import VAD

Models = Literal["openai", "realtime", "offline"]

PLUGINS: Final[dict[Models, tuple[str, ...]]] = {
    "openai": ("livekit.plugins.openai", "livekit.plugins.silero"),
    "realtime": ("livekit.plugins.openai",),
    "offline": (),
}
"""The LiveKit plugins that each choice of models needs."""

ANNOUNCED: Final[dict[Models, str]] = {
    "offline": "Models: offline, with simple rules. Set OPENAI_API_KEY for real models.",
    "openai": "Models: openai, the language model only; nothing is spoken.",
    "realtime": "Models: realtime, in writing; nothing is spoken.",
}
"""What the text console says about each choice of models."""

LOCAL_INFERENCE: Final = "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"
"""livekit-agents' switch for loading its end-of-turn model, about 250 MB, before any job."""


@dataclass(frozen=True)
class SessionModels:
    """What an `AgentSession` is made of.

    Attributes:
        options: keyword arguments for `AgentSession`.
        audio: whether the models hear and speak; without it a session is text only.
    """

    options: dict[str, Any]
    audio: bool


def chosen() -> Models:
    """What AGENT_MODELS says; `openai` if nothing."""
    name = os.environ.get("AGENT_MODELS") or "openai"
    return name if name in PLUGINS else "openai"


def choose() -> None:
    """Do without a key in a first run. `start` never does: production must not go mute."""
    first_run = sys.argv[1:2] in (["dev"], ["console"]) or "--dev" in sys.argv
    environ = os.environ
    if first_run and not environ.get("AGENT_MODELS") and not environ.get("OPENAI_API_KEY"):
        environ["AGENT_MODELS"] = "offline"
    if _in_writing():
        sys.stdout.write(f"{ANNOUNCED[chosen()]}\n")
    if sys.argv[1:2] in (["console"], ["download-files"]):
        # The session runs in a thread of this process, but plugins register on its main thread;
        # and files are downloaded for the plugins that are registered.
        import_plugins()
    if chosen() != "openai":
        # The realtime model finds the end of a turn by itself, and text needs none.
        environ.setdefault(LOCAL_INFERENCE, "0")


def problems() -> list[str]:
    """What is wrong with the choice of models, one line for each problem."""
    name = os.environ.get("AGENT_MODELS") or "openai"
    if name not in PLUGINS:
        return [f"AGENT_MODELS={name!a}: expected one of {', '.join(get_args(Models))}"]
    if PLUGINS[chosen()] and not os.environ.get("OPENAI_API_KEY"):
        return [
            f"OPENAI_API_KEY is not set; AGENT_MODELS={name} needs it "
            "(AGENT_MODELS=offline needs no key)"
        ]
    return []


def preload() -> list[str]:
    """The modules that all job processes share: the plugins, and the voice activity detector."""
    return [*PLUGINS[chosen()], *(["agent.vad"] if chosen() == "openai" else [])]


def import_plugins() -> None:
    """Import the plugins on the main thread, where LiveKit wants them registered."""
    for plugin in PLUGINS[chosen()]:
        importlib.import_module(plugin)


def load_vad() -> VAD | None:
    """The voice activity detector; None where none is used."""
    if chosen() != "openai":
        return None
    from agent.vad import VAD  # noqa: PLC0415

    return VAD


def create(vad: VAD | None) -> SessionModels:
    """Create the models of one session.

    Args:
        vad: what `load_vad` returned.
    """
    models = chosen()
    if models == "offline":
        from agent.offline import OfflineLLM  # noqa: PLC0415

        llm = OfflineLLM()
        return SessionModels({"llm": llm, "vad": None} | _turns_by("manual"), audio=False)

    from livekit.plugins import openai  # noqa: PLC0415

    if models == "realtime":
        # In the text console it hears nothing, and answers in writing.
        model = openai.realtime.RealtimeModel(modalities=["text"] if _in_writing() else NOT_GIVEN)
        return SessionModels({"llm": model, "vad": None} | _turns_by("realtime_llm"), audio=True)
    if _in_writing():
        return SessionModels({"llm": openai.LLM(), "vad": None} | _turns_by("manual"), audio=False)
    return SessionModels(
        {"stt": openai.STT(), "llm": openai.LLM(), "tts": openai.TTS(), "vad": vad}, audio=True
    )


def _in_writing() -> bool:
    return sys.argv[1:2] == ["console"] and "--text" in sys.argv


def _turns_by(detection: str) -> dict[str, Any]:
    return {"turn_handling": {"turn_detection": detection}}
