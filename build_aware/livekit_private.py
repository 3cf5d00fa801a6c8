"""Every private name of livekit-agents that this package uses: what for, and a check.

livekit-agents may move these in any release. `problems` finds that out before a worker starts,
instead of a behaviour that is silently gone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from livekit.agents import AgentServer, __version__
from livekit.agents.job import RunningJobInfo
from livekit.agents.worker import ServerEnvOption


@dataclass(frozen=True, slots=True)
class Name:
    """A private name.

    Attributes:
        path: where it is: module, then attributes.
        use: what we use it for.
        there: whether it still is what we take it for.
    """

    path: str
    use: str
    there: Callable[[], bool]


def agent_name(server: AgentServer) -> str:
    """The name under which `server` registers: the code's, or that of the environment."""
    return server._agent_name


def own_load(server: AgentServer) -> bool:
    """Whether the team measures its worker's load itself."""
    return server._load_fnc is not None and server._load_fnc != _default_load()


def set_load(server: AgentServer, load: Callable[[], float], threshold: float) -> None:
    """Measure the load of `server`, which has not started, by `load`."""
    server._load_fnc = load
    server._load_threshold = threshold


def set_port(server: AgentServer, port: int) -> None:
    """Serve LiveKit's health check of `server`, which has not started, on `port`."""
    server._port = port


def limits_s(server: AgentServer) -> tuple[float, float]:
    """What LiveKit gives shutdown callbacks and `on_session_end`, in seconds."""
    return server._shutdown_process_timeout, server._session_end_timeout


def executor(server: AgentServer) -> Any:
    """Where `server` runs its jobs, a `JobExecutorType`."""
    return server._job_executor_type


def is_hidden(server: AgentServer) -> bool:
    """Whether the agents of `server` are hidden from other participants."""
    return bool(server._permissions.hidden)


def entrypoint(server: AgentServer) -> Any:
    """What runs a job; None before `rtc_session`."""
    return server._entrypoint_fnc


def credentials(server: AgentServer) -> tuple[str, str, str]:
    """URL, API key and API secret; empty strings where they are not known."""
    return server._ws_url, server._api_key, server._api_secret


def measured_load(server: AgentServer) -> tuple[float, float] | None:
    """Load and threshold of a started server if LiveKit counts it as full, else None.

    A server that drains takes no job, whatever it measures.
    """
    if server.draining or server._is_available():
        return None
    threshold = ServerEnvOption.getvalue(server._load_threshold, server._devmode)
    return server._get_effective_load(), threshold


async def launch(server: AgentServer, running: RunningJobInfo) -> None:
    """Run a job in a process of `server` that no dispatcher offered.

    The public `simulate_job` starts one job after the other, and drops what a session may need:
    metadata and attributes of its dispatch, and the agent's name.
    """
    await server._proc_pool.launch_job(running)


def stop_refilling(server: AgentServer) -> None:
    """Let the pool of idle job processes shrink; accepted jobs still get one each.

    The public `num_idle_processes` is no more than the start value.
    """
    server._proc_pool._default_num_idle_processes = 0


def replace_http_session(server: AgentServer, wrap: Callable[[Any], Any]) -> None:
    """Stand between a started server and its HTTP session, which opens its connection."""
    server._http_session = wrap(server._http_session)


def preload_names(server: AgentServer) -> list[str]:
    """The modules that `server` asks its fork server to import."""
    return list(server._preload_modules)


def _default_load() -> Any:
    return importlib.import_module("livekit.agents.worker")._DefaultLoadCalc.get_load


def _server_has(*names: str) -> Callable[[], bool]:
    def there() -> bool:
        server = AgentServer()
        return all(hasattr(server, name) for name in names)

    return there


NAMES: Final[tuple[Name, ...]] = (
    Name(
        "livekit.agents.AgentServer._agent_name",
        "the name under which waiting rooms ask for the agent",
        _server_has("_agent_name"),
    ),
)


def problems() -> list[str]:
    """A line for each private name that has moved."""
    return [
        f"livekit-agents {__version__} has no {name.path} any more, which this package needs for "
        f"{name.use}; install a livekit-agents that this version of build-aware allows, "
        "or a newer build-aware"
        for name in NAMES
        if not name.there()
    ]
