"""The private names of livekit-agents: each is checked, and means what we take it to mean."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast

import pytest
from livekit.agents import AgentServer, JobContext, JobExecutorType, JobRequest, WorkerOptions
from livekit.agents import __version__ as installed
from livekit.agents.ipc import job_proc_lazy_main, log_queue, proc_pool
from livekit.agents.ipc.job_proc_executor import ProcJobExecutor
from livekit.agents.ipc.proc_pool import ProcPool
from livekit.agents.ipc.supervised_proc import SupervisedProc
from livekit.agents.job import RunningJobInfo
from livekit.agents.worker import ServerEnvOption, WorkerPermissions

from build_aware import livekit_private, private_names
from build_aware.private_names import USES, Use
from tests.support.paths import ROOT

SERVER: Final = "livekit.agents.worker:AgentServer"


def some_use() -> None:
    """Do what cannot be done without."""


def use(owner: str, *names: str, by: str | None = None) -> Use:
    return Use(owner, names, by, some_use)


# The checks


def test_the_installed_livekit_agents_has_all_of_them() -> None:
    assert livekit_private.problems() == []


def names_of(entry: Use) -> str:
    return f"{entry.function.__name__}-{'-'.join(entry.names)}"


@pytest.mark.parametrize("entry", USES, ids=names_of)
def test_each_says_in_a_sentence_what_it_is_for(entry: Use) -> None:
    assert entry.purpose.endswith(".")


def private_attributes(source: str) -> set[str]:
    """The private names that a piece of code takes from something that is not itself."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }


def test_every_private_name_of_the_file_has_a_check() -> None:
    touched = private_attributes(inspect.getsource(livekit_private))
    assert touched
    assert touched <= {name for entry in USES for name in entry.names}


def defined_in(source: str) -> set[str]:
    """The private names that a module gives to something of its own."""
    nodes = list(ast.walk(ast.parse(source)))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in nodes if isinstance(node, functions)} | {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


PACKAGE: Final = sorted((ROOT / "build_aware").rglob("*.py"))


@pytest.mark.parametrize(
    "path",
    [path for path in PACKAGE if path.name not in {"livekit_private.py", "private_names.py"}],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_no_other_file_takes_a_private_name_of_livekits(path: Path) -> None:
    source = path.read_text("utf-8")
    theirs = {name for entry in USES for name in entry.names}
    assert private_attributes(source) & theirs <= defined_in(source)


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(use("livekit.agents.worker", "ASSIGNMENT_TIMEOUT"), id="of a module"),
        pytest.param(use(SERVER, "_answer_availability"), id="a method"),
        pytest.param(use(SERVER, "_proc_pool"), id="of an instance"),
        pytest.param(use(SERVER, "draining"), id="a property"),
        pytest.param(use(SERVER, "_draining", by="draining"), id="in a property"),
        pytest.param(
            use(
                "livekit.agents.worker", "ASSIGNMENT_TIMEOUT", by="AgentServer._answer_availability"
            ),
            id="in a function inside a function",
        ),
        pytest.param(use(SERVER, "_http_session", by="_connection_task"), id="in a decorated one"),
        pytest.param(use(SERVER, "rtc_session", by="from_server_options"), id="in a class method"),
    ],
)
def test_a_name_that_is_there_is_no_problem(there: Use) -> None:
    assert private_names.problems([there]) == []


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(use("livekit.agents.worker", "_moved"), id="of a module"),
        pytest.param(use(SERVER, "_moved"), id="of a class"),
        pytest.param(use("livekit.agents.worker:MovedServer", "_moved"), id="the class"),
        pytest.param(use("livekit.agents.moved", "_moved"), id="the module"),
        pytest.param(use(SERVER, "_proc_pool", by="worker_info"), id="another one mentions it"),
        pytest.param(use(SERVER, "_proc_pool", by="moved"), id="the function"),
    ],
)
def test_a_name_that_is_gone_is_one_line_that_says_what_to_do(gone: Use) -> None:
    (problem,) = private_names.problems([gone])
    assert f"livekit-agents {installed} " in problem
    assert f"{gone.owner}.{gone.names[0]} " in problem
    assert "some_use: Do what cannot be done without." in problem
    assert "Install livekit-agents 1.8" in problem
    assert "\n" not in problem


def test_only_the_names_that_are_gone_are_told() -> None:
    (problem,) = private_names.problems([use(SERVER, "_proc_pool", "_moved")])
    assert "_moved" in problem


def without(entry: Use, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a livekit-agents in place that has all that `entry` needs but one name."""
    kept = [each for each in entry.names if each != name]
    path, _, class_name = entry.owner.partition(":")
    namespace: dict[str, Any] = dict.fromkeys(kept)
    if entry.by is not None:
        code = f"def by(self):\n return {[f'self.{each}' for each in kept]}".replace("'", "")
        found: dict[str, Any] = {}
        exec(code, found)  # noqa: S102 names from our own list
        outer, _, inner = entry.by.rpartition(".")
        if outer:
            namespace[outer] = type(outer, (), {inner: found["by"]})
        else:
            namespace[inner] = found["by"]
    module = ModuleType(path)
    if class_name:
        class_namespace = namespace if inspect.isclass(_resolve(entry.owner)) else {}
        if class_namespace:
            setattr(module, class_name, type(class_name, (), class_namespace))
        else:

            def function() -> None: ...

            setattr(module, class_name, function)
    else:
        vars(module).update(namespace)
    monkeypatch.setitem(sys.modules, path, module)


def _resolve(owner: str) -> Any:
    path, _, name = owner.partition(":")
    return getattr(private_names.module(path), name)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        pytest.param(entry, name, id=f"{entry.function.__name__}-{name}")
        for entry in USES
        for name in entry.names
    ],
)
def test_each_name_is_missed_when_it_is_gone(
    entry: Use, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(entry, name, monkeypatch)
    assert name in entry.missing()


# What they mean


async def entrypoint(ctx: JobContext) -> None: ...


def server(**livekit: Any) -> AgentServer:
    made = AgentServer(**livekit)
    made.rtc_session(entrypoint, agent_name="support")
    return made


def test_the_name_is_the_codes_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert livekit_private.agent_name(server()) == "support"
    monkeypatch.setenv("LIVEKIT_AGENT_NAME_OVERRIDE", "forced")
    assert livekit_private.agent_name(server()) == "forced"


def test_the_credentials_are_the_codes_or_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert livekit_private.credentials(server()) == ("", "", "")
    monkeypatch.setenv("LIVEKIT_URL", "ws://environment")
    made = server(api_key="key")
    assert livekit_private.credentials(made) == ("ws://environment", "key", "")
    made.update_options(ws_url="ws://later", api_secret="secret")  # noqa: S106
    assert livekit_private.credentials(made) == ("ws://later", "key", "secret")


@pytest.mark.parametrize(
    ("said", "found"), [({}, None), ({"drain_timeout": 60}, 60), ({"drain_timeout": 3600}, None)]
)
def test_a_drain_timeout_is_said_where_it_is_not_livekits(
    said: dict[str, Any], found: float | None
) -> None:
    assert livekit_private.drain_timeout_s(server(**said)) == found


def test_a_drain_timeout_may_be_said_later() -> None:
    made = server()
    made.update_options(drain_timeout=77)
    assert livekit_private.drain_timeout_s(made) == 77


def test_livekits_older_options_say_nothing_by_themselves() -> None:
    made = AgentServer.from_server_options(WorkerOptions(entrypoint))
    assert livekit_private.drain_timeout_s(made) is None
    assert not livekit_private.says_port(made)
    assert not livekit_private.measures_itself(made)


@pytest.mark.parametrize(("port", "says"), [(None, False), (8081, True), (0, True)])
def test_a_port_is_said_where_it_is_not_livekits(port: int | None, says: bool) -> None:
    made = server() if port is None else server(port=port)
    assert livekit_private.says_port(made) is says
    livekit_private.set_port(made, 9999)
    assert ServerEnvOption.getvalue(made._port, False) == 9999


def test_the_limits_are_those_of_the_code() -> None:
    assert livekit_private.limits_s(server()) == (10, 300)
    made = server(shutdown_process_timeout=60.0, session_end_timeout=7.0)
    assert livekit_private.limits_s(made) == (60, 7)


@pytest.mark.parametrize(
    ("said", "in_threads", "forks"),
    [
        ({}, False, sys.platform == "linux"),
        ({"multiprocessing_context": "spawn"}, False, False),
        ({"multiprocessing_context": "forkserver"}, False, True),
        (
            {
                "multiprocessing_context": "forkserver",
                "job_executor_type": JobExecutorType.THREAD,
            },
            True,
            False,
        ),
    ],
)
def test_where_jobs_run(said: dict[str, Any], in_threads: bool, forks: bool) -> None:
    made = server(**said)
    assert livekit_private.runs_in_threads(made) is in_threads
    assert livekit_private.uses_fork_server(made) is forks


def test_livekit_says_what_to_preload_once_its_environment_is_complete() -> None:
    source = inspect.getsource(AgentServer.run)
    exported = source.rindex('os.environ["LIVEKIT_')
    preloads = source.index("self._mp_ctx.set_forkserver_preload(")
    starts = source.index("await self._proc_pool.start()")
    assert exported < preloads < starts


def test_an_entrypoint_is_there_once_it_is_registered() -> None:
    made = AgentServer()
    assert not livekit_private.has_entrypoint(made)
    livekit_private.wrap_entrypoint(made, lambda _: entrypoint)
    assert not livekit_private.has_entrypoint(made)
    made.rtc_session(entrypoint)
    assert livekit_private.has_entrypoint(made)


def test_an_entrypoint_is_put_something_around() -> None:
    made = server()
    seen: list[Any] = []

    def wrap(function: Callable[[JobContext], Any]) -> Callable[[JobContext], Any]:
        seen.append(function)
        return entrypoint

    livekit_private.wrap_entrypoint(made, wrap)
    assert seen == [entrypoint]


@pytest.mark.parametrize("hidden", [False, True])
def test_the_permissions_say_whether_agents_are_hidden(hidden: bool) -> None:
    made = server(permissions=WorkerPermissions(hidden=hidden))
    assert livekit_private.permissions(made).hidden is hidden


def test_a_load_is_the_teams_where_it_is_not_livekits() -> None:
    assert not livekit_private.measures_itself(server())
    assert livekit_private.measures_itself(server(load_fnc=lambda: 0.5))


async def test_livekit_asks_the_load_that_is_set() -> None:
    made = server()
    livekit_private.set_load(made, lambda: 0.25, 0.5)
    assert await made._invoke_load_fnc() == 0.25
    assert made._load_threshold == 0.5


@pytest.mark.parametrize(
    ("load", "draining", "measured"),
    [(0.9, False, (0.9, 0.7)), (0.6, False, None), (0.9, True, None)],
)
def test_a_full_server_tells_its_load(
    load: float, draining: bool, measured: tuple[float, float] | None, monkeypatch: Any
) -> None:
    made = server(load_threshold=0.7)
    # As when it has started.
    vars(made).update(
        _devmode=False,
        _worker_load=load,
        _reserved_slots=0,
        _draining=draining,
        _proc_pool=SimpleNamespace(processes=[]),
    )
    assert livekit_private.measured_load(made) == measured


async def test_a_job_is_launched_in_the_pool() -> None:
    launched: list[Any] = []

    async def launch_job(info: Any) -> None:
        launched.append(info)

    made = server()
    made._proc_pool = cast(ProcPool, SimpleNamespace(launch_job=launch_job))
    running = cast(RunningJobInfo, object())
    await livekit_private.launch(made, running)
    assert launched == [running]
    assert [*inspect.signature(ProcPool.launch_job).parameters] == ["self", "info"]


def test_the_pool_keeps_no_more_idle_than_its_default() -> None:
    source = inspect.getsource(proc_pool)
    assert "min(self._target_idle_processes, self._default_num_idle_processes)" in source
    made = server()
    made._proc_pool = cast(ProcPool, SimpleNamespace(_default_num_idle_processes=4))
    livekit_private.stop_refilling(made)
    assert made._proc_pool._default_num_idle_processes == 0


class Turns(ProcPool):
    """A pool of jobs that all end in the same moment; asked for too often, it fails."""

    asked = 0

    @property
    def processes(self) -> list[Any]:
        self.asked += 1
        assert self.asked < 100, "the drain spins"
        return super().processes

    def run(self, executors: list[Any]) -> None:
        self._executors = executors
        self._warmed_proc_queue = asyncio.Queue()
        self._events = {}
        self.monitors = [
            asyncio.create_task(self._monitor_process_task(each)) for each in executors
        ]


def ends_with(end: asyncio.Event) -> ProcJobExecutor:
    executor = object.__new__(ProcJobExecutor)
    vars(executor).update(_running_job=object(), _supervise_atask=asyncio.create_task(end.wait()))
    return executor


async def drains() -> None:
    end = asyncio.Event()
    made: Any = server()
    made._proc_pool = pool = object.__new__(Turns)
    pool.run([ends_with(end) for _ in range(3)])

    async def nothing() -> None: ...

    made._update_worker_status = nothing
    vars(made).update(_draining=False, _lock=asyncio.Lock(), _job_lifecycle_tasks=set(), _id="")
    draining = asyncio.create_task(made.drain(None))
    await asyncio.sleep(0)
    end.set()
    await draining


@pytest.fixture
def unmended(monkeypatch: Any) -> None:
    monkeypatch.setattr(SupervisedProc, "join", inspect.unwrap(SupervisedProc.join))


@pytest.mark.usefixtures("unmended")
async def test_livekits_drain_spins_where_jobs_end_in_the_same_moment() -> None:
    """If this fails, LiveKit has mended it, and `keep_drain_from_spinning` can go."""
    with pytest.raises(AssertionError, match="the drain spins"):
        await drains()


@pytest.mark.usefixtures("unmended")
async def test_the_drain_does_not_spin() -> None:
    livekit_private.keep_drain_from_spinning()
    livekit_private.keep_drain_from_spinning()
    await drains()


def test_the_handler_of_a_job_process_sends_from_a_thread() -> None:
    assert isinstance(vars(log_queue.LogQueueHandler)["thread"], property)
    thread = threading.Thread()
    with_one = cast(logging.Handler, SimpleNamespace(thread=thread))
    assert livekit_private.log_thread(with_one) is thread
    assert livekit_private.log_thread(logging.StreamHandler()) is None


def test_the_session_that_opens_the_connection_is_replaced() -> None:
    made: Any = server()
    made._http_session = "theirs"
    livekit_private.replace_http_session(made, lambda session: f"before {session}")
    assert made._http_session == "before theirs"


def test_livekit_calls_what_we_put_in_front_of_a_jobs_own_methods() -> None:
    """Public, but replaced on the instance: LiveKit has to go by that."""
    assert "self._room.connect(" in inspect.getsource(JobContext.connect)
    ctx: Any = object.__new__(JobContext)
    ctx.shutdown = ctx.add_shutdown_callback = "ours"
    assert (ctx.shutdown, ctx.add_shutdown_callback) == ("ours", "ours")


def test_a_request_is_made_as_livekit_makes_it() -> None:
    assert {"job", "on_reject", "on_accept"} == set(
        inspect.signature(JobRequest.__init__).parameters
    ) - {"self"}


def test_the_order_of_a_jobs_end_is_the_one_that_we_count_on() -> None:
    """`job.ending` adds up their limits."""
    source = inspect.getsource(job_proc_lazy_main._JobProc)
    steps = [
        "asyncio.wait_for(asyncio.shield(job_entry_task), timeout=15)",
        "session.aclose(), timeout=_SESSION_ACLOSE_TIMEOUT",
        "self._session_end_fnc(self._job_ctx)",
        "self._room.disconnect()",
        "self._job_ctx._shutdown_callbacks",
    ]
    places = [source.index(step) for step in steps]
    assert places == sorted(places)
    assert job_proc_lazy_main._SESSION_ACLOSE_TIMEOUT == 60
