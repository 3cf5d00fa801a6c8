"""Every private name of livekit-agents that this package stands on, and a check of each.

Any release of livekit-agents may move one of them. Without a check a behaviour would be gone in
silence; so nothing else in this package touches a private name, and a worker does not start where
`problems` finds one missing.

To add one, write a function that does one thing with it, and put `uses` in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from build_aware import private_names
from build_aware.private_names import uses

if TYPE_CHECKING:
    from livekit.agents import AgentServer, JobContext
    from livekit.agents.cli import AgentsConsole
    from livekit.agents.job import RunningJobInfo
    from livekit.agents.worker import WorkerPermissions


def problems() -> list[str]:
    """A line for each of these names that the installed livekit-agents does not have any more."""
    return private_names.problems(private_names.USES)


# Stop signals


@uses("livekit.agents.cli.cli", "HANDLED_SIGNALS", by="_run_worker")
def follow_signal_handlers(numbers: Sequence[int], then: Callable[[int], None]) -> None:
    """Have `then` called as soon as LiveKit's command line handles one of `numbers`."""
    private_names.module("livekit.agents.cli.cli").HANDLED_SIGNALS = _Followed(numbers, then)


@uses("livekit.agents.cli.cli", "HANDLED_SIGNALS", by="_run_worker")
def keep_signal_handlers() -> None:
    """Keep LiveKit's command line from handling signals again, at the beginning of its drain."""
    private_names.module("livekit.agents.cli.cli").HANDLED_SIGNALS = ()


@uses("livekit.agents.ipc.supervised_proc", "_mask_ctrl_c", by="SupervisedProc._start")
def keep_ctrl_c() -> None:
    """Keep LiveKit from ignoring SIGINT in the worker while it starts a job process."""
    private_names.module("livekit.agents.ipc.supervised_proc")._mask_ctrl_c = contextlib.nullcontext


@uses("livekit.agents.cli.cli", "_EXIT_ESCALATION_TIMEOUT", by="_run_worker")
def escalation_s() -> float:
    """How long LiveKit waits for a blocked event loop before it signals once more, in seconds."""
    timeout_s: float = private_names.module("livekit.agents.cli.cli")._EXIT_ESCALATION_TIMEOUT
    return timeout_s


# The server

SERVER: Final = "livekit.agents.worker:AgentServer"


@uses(SERVER, "_agent_name", by="rtc_session")
def agent_name(server: AgentServer) -> str:
    """The name under which a server registers: the code's, or that of the environment."""
    return server._agent_name


@uses(SERVER, "_ws_url", "_api_key", "_api_secret", by="update_options")
def credentials(server: AgentServer) -> tuple[str, str, str]:
    """URL, API key and API secret of a server; empty where they are not known."""
    return server._ws_url, server._api_key, server._api_secret


@uses(SERVER, "_shutdown_process_timeout", "_session_end_timeout", by="run")
def limits_s(server: AgentServer) -> tuple[float, float]:
    """What LiveKit gives shutdown callbacks and `on_session_end`, in seconds."""
    return server._shutdown_process_timeout, server._session_end_timeout


@uses(SERVER, "_job_executor_type", by="run")
def runs_in_threads(server: AgentServer) -> bool:
    """Whether a server runs its jobs in threads of the worker."""
    return bool(server._job_executor_type.value == "thread")


@uses(SERVER, "_mp_ctx_str", "set_forkserver_preload", by="run")
def uses_fork_server(server: AgentServer) -> bool:
    """Whether a server runs its jobs in processes that are forked from a fork server."""
    return not runs_in_threads(server) and server._mp_ctx_str == "forkserver"


@uses(SERVER, "_simulation", by="run")
def is_in_simulation(server: AgentServer) -> bool:
    """Whether a server runs in one of LiveKit's simulations of conversations."""
    return server._simulation


@uses(SERVER, "_entrypoint_fnc", by="run")
def has_entrypoint(server: AgentServer) -> bool:
    """Whether `rtc_session` has told a server what runs a job."""
    return server._entrypoint_fnc is not None


@uses(SERVER, "_drain_timeout", by="drain")
@uses("livekit.agents.worker", "DRAIN_TIMEOUT")
def drain_timeout_s(server: AgentServer) -> float | None:
    """What the team's code gives the drain of a server, in seconds; None if it says nothing."""
    default_s: float = private_names.module("livekit.agents.worker").DRAIN_TIMEOUT
    return None if server._drain_timeout == default_s else server._drain_timeout


@uses(SERVER, "_permissions", by="_connection_task")
def permissions(server: AgentServer) -> WorkerPermissions:
    """What the agents of a server may do in a room."""
    return server._permissions


@uses(SERVER, "_port", by="run")
@uses(SERVER, "_default_port")
def says_port(server: AgentServer) -> bool:
    """Whether the team's code says on which port LiveKit's health check is served."""
    return server._port != server._default_port


@uses(SERVER, "_port", by="run")
def set_port(server: AgentServer, port: int) -> None:
    """Serve LiveKit's health check on `port`; the server must not have started."""
    server._port = port


@uses(SERVER, "_load_fnc", by="run")
@uses("livekit.agents.worker", "_DefaultLoadCalc", by="AgentServer.run")
@uses("livekit.agents.worker:_DefaultLoadCalc", "get_load")
def measures_itself(server: AgentServer) -> bool:
    """Whether the team measures its worker's load itself."""
    default = private_names.module("livekit.agents.worker")._DefaultLoadCalc.get_load
    return server._load_fnc not in (None, default)


@uses(SERVER, "_load_fnc", "_load_threshold", by="run")
def set_load(server: AgentServer, load: Callable[[], float], threshold: float) -> None:
    """Measure the load of a server, which must not have started, by `load`."""
    server._load_fnc = load
    server._load_threshold = threshold


@uses(SERVER, "_is_available", "_get_effective_load", "_load_threshold", "_devmode")
@uses("livekit.agents.worker:ServerEnvOption", "getvalue")
def measured_load(server: AgentServer) -> tuple[float, float] | None:
    """Load and threshold of a started server if LiveKit counts it as full, else None.

    A server that drains takes no job, whatever it measures.
    """
    if server.draining or server._is_available():
        return None
    option = private_names.module("livekit.agents.worker").ServerEnvOption
    threshold = option.getvalue(server._load_threshold, server._devmode)
    return server._get_effective_load(), threshold


@uses(SERVER, "_proc_pool", by="simulate_job")
@uses("livekit.agents.ipc.proc_pool:ProcPool", "launch_job")
async def launch(server: AgentServer, running: RunningJobInfo) -> None:
    """Run a job in a process of a server that no dispatcher offered.

    The public `simulate_job` starts one job after the other, and drops what a session may need:
    metadata and attributes of its dispatch, and the agent's name.
    """
    await server._proc_pool.launch_job(running)


@uses(SERVER, "_proc_pool", by="run")
@uses(
    "livekit.agents.ipc.proc_pool:ProcPool",
    *("_default_num_idle_processes", "_target_idle_processes"),
    by="_main_task",
)
def stop_refilling(server: AgentServer) -> None:
    """Let the pool of idle job processes shrink; accepted jobs still get one each.

    LiveKit refills it until the worker exits, which takes CPU from those that start. The public
    `num_idle_processes` is no more than the start value.
    """
    server._proc_pool._default_num_idle_processes = 0


@uses("livekit.agents.ipc.supervised_proc:SupervisedProc", "join")
def keep_drain_from_spinning() -> None:
    """Have LiveKit's drain let the event loop run after each job that it has waited for.

    It waits for one job after the other for as long as the pool lists any. To wait for one that has
    ended gives way to nobody. So where the last two end in the same moment, it would ask for the
    second one for ever, and the pool, which takes it from its list, would never get its turn.
    """
    process = private_names.module("livekit.agents.ipc.supervised_proc").SupervisedProc
    join = process.join
    if hasattr(join, "__wrapped__"):
        return

    @functools.wraps(join)
    async def joined(self: Any) -> None:
        await join(self)
        await asyncio.sleep(0)

    process.join = joined


@uses("livekit.agents.ipc.log_queue:LogQueueHandler", "thread")
def log_thread(handler: logging.Handler) -> threading.Thread | None:
    """The thread that sends the records of a job process to its worker, if `handler` has it."""
    thread = getattr(handler, "thread", None)
    return thread if isinstance(thread, threading.Thread) else None


@uses(SERVER, "_http_session", by="_connection_task")
def replace_http_session(server: AgentServer, wrap: Callable[[Any], Any]) -> None:
    """Stand between a started server and its HTTP session, which opens its connection."""
    server._http_session = wrap(server._http_session)


# The command line


@uses("livekit.agents.cli.log:setup_logging", "log_level", "devmode", "console")
def set_up_logging(level: str, *, colored: bool) -> None:
    """Log as LiveKit's command line does: JSON, or coloured lines.

    The module is not exported.
    """
    log = private_names.module("livekit.agents.cli.log")
    log.setup_logging(level, devmode=colored, console=False)


def monitor(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Have LiveKit report what blocks the worker's event loop; the result ends that.

    Its module is exported, and missing in releases before the monitor came: then nothing reports.
    """
    loop_monitor = getattr(private_names.module("livekit.agents.telemetry"), "loop_monitor", None)
    if loop_monitor is None:
        return lambda: None
    loop_monitor.start_monitoring(loop, name="worker", emit_spans=False)
    return lambda: loop_monitor.stop_monitoring(loop)


# The console


@uses("livekit.agents.cli.cli:AgentsConsole", "_instance", by="get_instance")
@uses("livekit.agents.voice.agent_session:AgentSession", "acquire_io", "io_acquired", by="start")
def put_in_place(console: AgentsConsole) -> None:
    """Have each `AgentSession` that starts in this process ask `console` for input and output."""
    private_names.module("livekit.agents.cli").AgentsConsole._instance = console


@uses("livekit.agents.worker:AgentServer", "_entrypoint_fnc", by="run")
def wrap_entrypoint(
    server: AgentServer, wrap: Callable[[Callable[[JobContext], Any]], Callable[[JobContext], Any]]
) -> None:
    """Put something around the team's entrypoint, before `server` runs.

    A server without an entrypoint is left alone: it says so itself when it runs.
    """
    if server._entrypoint_fnc is not None:
        server._entrypoint_fnc = wrap(server._entrypoint_fnc)


class _Followed:
    """Stands for the signals that LiveKit's command line handles, one after the other."""

    def __init__(self, numbers: Sequence[int], then: Callable[[int], None]) -> None:
        self._numbers = numbers
        self._then = then

    def __iter__(self) -> Iterator[int]:
        for number in self._numbers:
            yield number
            self._then(number)
