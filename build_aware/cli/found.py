"""The agent server of a command, which is imported when it is needed."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from build_aware import early
from build_aware.drain.exit_codes import fail

if TYPE_CHECKING:
    import livekit.agents
    from livekit.agents import WorkerOptions

    from build_aware.server.agent_server import AgentServer


class Found:
    """What `run_app` was given.

    Args:
        given: a server, LiveKit's older options, or where a server is, as in `agent:server`.
        file: the program; None takes the script that was started, else whoever calls `run_app`.
    """

    def __init__(
        self, given: livekit.agents.AgentServer | WorkerOptions | str, file: Path | None = None
    ) -> None:
        self._given = given
        self.file = file or _program() or _caller()

    def server(self) -> AgentServer:
        """The server; ends the program if it is none of ours."""
        import livekit.agents  # noqa: PLC0415 slow, and imported by now where it is used

        from build_aware.server.agent_server import AgentServer  # noqa: PLC0415

        early.livekit_is_imported()
        given = self._given
        if isinstance(given, str):
            module, _, name = given.partition(":")
            given = _in_module(importlib.import_module(module), name)
        if isinstance(given, livekit.agents.WorkerOptions):
            given = AgentServer.from_server_options(given)
        if not isinstance(given, AgentServer):
            kind = f"{type(given).__module__}.{type(given).__qualname__}"
            fail(f"cli.run_app got a {kind}; import AgentServer from build_aware")
        self._given = given
        return given


def _in_module(module: ModuleType, name: str) -> Any:
    """The server of a module: the one of this name, else as LiveKit's tools look for it."""
    if name:
        return getattr(module, name)
    from livekit.agents import AgentServer  # noqa: PLC0415

    names = ("app", "server", "agent", *dir(module))
    servers = (getattr(module, each, None) for each in names)
    found = next((each for each in servers if isinstance(each, AgentServer)), None)
    return found or fail(f"{module.__file__} has no AgentServer; name one `server`")


def _program() -> Path | None:
    main = sys.modules["__main__"]
    name = str(getattr(main, "__file__", ""))
    return Path(name) if name.endswith(".py") and getattr(main, "__spec__", None) is None else None


def _caller() -> Path:
    here = Path(__file__).parent
    for frame in inspect.stack(0):
        if not (file := Path(frame.filename)).is_relative_to(here):
            return file
    return Path()
