"""Faults that users' code really has, added to a copy of the agent."""

from __future__ import annotations

from pathlib import Path

from tests.support.copies import copy_of_the_agent

IN_THE_MAIN_PROCESS = """
import asyncio, multiprocessing, os, signal, time

_run = AgentServer.run


async def run(self, **options):
    loop = asyncio.get_running_loop()
    {when}
    await _run(self, **options)


AgentServer.run = run
"""
"""Appended to `SERVER`: `fault(server)` runs on the event loop of the main process."""

SERVER = "build_aware/server/agent_server.py"
SESSION = "agent/session.py"

SWALLOW_WITH_SIGNAL = """
def greedy(number, frame):
    print("greedy was called", number, flush=True)


def fault(server):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, greedy)
"""

SWALLOW_WITH_LOOP = """
def greedy():
    print("greedy was called", flush=True)


def fault(server):
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, greedy)
"""

HANDLER = {
    SWALLOW_WITH_SIGNAL: "def greedy(number, frame):",
    SWALLOW_WITH_LOOP: "def greedy():",
}
"""The line at which each greedy handler begins."""

BLOCK_THE_LOOP = """
def fault(server):
    print("blocking", flush=True)
    time.sleep(30)
    print("no longer blocking", flush=True)
"""

SIGNALS_BETWEEN_THE_STEPS = """
def fault(server):
    loop = asyncio.get_running_loop()
    before = loop.run_until_complete

    def run_until_complete(future):
        os.kill(os.getpid(), signal.SIGTERM)
        print("signalled between two steps", flush=True)
        return before(future)

    loop.run_until_complete = run_until_complete
"""
"""A SIGTERM comes just before each step of LiveKit's command line after its wait for the first."""

STARTS_PROCESSES_UNTIL_STOPPED = """
def fault(server):
    before = multiprocessing.process.BaseProcess.start

    def start(process):
        print("starting a process", flush=True)
        while server.status()["state"] != "draining":
            time.sleep(0.01)
        before(process)

    multiprocessing.process.BaseProcess.start = start
"""
"""The worker is always starting a job process, as in a burst of jobs."""


def at_registration(folder: Path, fault: str) -> Path:
    """A copy of the agent in which `fault` happens in the main process, once registered."""
    when = 'self.on("worker_registered", lambda *_: loop.call_soon(fault, self))'
    return _append(folder, SERVER, IN_THE_MAIN_PROCESS.replace("{when}", when) + fault)


def full_by_cpu(folder: Path) -> Path:
    """A copy of the agent on a machine that LiveKit measures as full."""
    measure = "\nfrom livekit.agents.worker import _DefaultLoadCalc\n"
    measure += "_DefaultLoadCalc.get_load = staticmethod(lambda: 0.95)\n"
    return _append(folder, SERVER, measure)


def ends_every_job(folder: Path) -> Path:
    """A copy of the agent that refuses jobs by a bare `reject()`, which ends them for everybody."""
    refuse = "\nasync def _refuse(self, request):\n    await request.reject()\n"
    return _append(folder, SERVER, refuse + "\n\nAgentServer._on_request = _refuse\n")


def with_a_late_clock(folder: Path, late_s: float) -> Path:
    """A copy of the agent on a machine whose clock is behind."""
    clock = f"\nimport time\n_right = time.time\ntime.time = lambda: _right() - {late_s}\n"
    return _append(folder, SERVER, clock)


SIGNALS_BEFORE_OURS_ARE_HANDLED = """
def fault(server):
    print("signalling twice", flush=True)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
"""
"""Two SIGTERMs come when LiveKit's command line has its handlers in place, and calls the worker."""


def before_run(folder: Path, fault: str) -> Path:
    """A copy of the agent in which `fault` happens when LiveKit's command line runs the worker."""
    return _append(folder, SERVER, IN_THE_MAIN_PROCESS.replace("{when}", "fault(self)") + fault)


def with_patience(folder: Path, patience_s: float) -> Path:
    """A copy of the agent that soon gives up on a LiveKit that answers 401 or 403."""
    return _append(folder, "build_aware/server/connection.py", f"\nPATIENCE_S = {patience_s}\n")


def with_short_pauses(folder: Path, pause_s: float) -> Path:
    """A copy of the agent that soon looks again for a build that is gone."""
    return _append(folder, "build_aware/dispatch/following.py", f"\nPAUSE_S = {pause_s}\n")


AT_THE_START = """
_before = end_with_the_session


def end_with_the_session(ctx, session):
    _before(ctx, session)
    fault(ctx, session)
"""
"""Appended to `SESSION`: `fault(ctx, session)` runs in each session, before it connects."""

IGNORES_CANCELLATION = """
from typing import TypeVar

T = TypeVar("T")
_AgentSession = AgentSession


class AgentSession(_AgentSession[T]):
    async def start(self, *arguments, **options):
        await super().start(*arguments, **options)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
"""

CALLBACK_NEVER_RETURNS = (
    AT_THE_START
    + """
def fault(ctx, session):
    async def never(reason):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    ctx.add_shutdown_callback(never)
"""
)

CALLBACK_FAILS = (
    AT_THE_START
    + """
def fault(ctx, session):
    async def fails(reason):
        raise ValueError("the database is down")

    ctx.add_shutdown_callback(fails)
"""
)

THREAD_NEVER_ENDS = (
    AT_THE_START
    + """
import threading, time

def fault(ctx, session):
    threading.Thread(target=time.sleep, args=(3600,), name="forgotten").start()
"""
)

ENTRYPOINT_RAISES = """
def turn_to_others(room, session):
    raise ValueError("a bug in the entrypoint")
"""

LOOP_HANGS = """
import time

_before = turn_to_others


def turn_to_others(room, session):
    _before(room, session)
    asyncio.get_running_loop().call_later(0.5, time.sleep, 3600)
"""

CALLBACK_WRITES = (
    AT_THE_START
    + """
from pathlib import Path


def fault(ctx, session):
    async def write(reason):
        Path("ended").write_text(reason)

    ctx.add_shutdown_callback(write)
"""
)
"""A shutdown callback that leaves a file named `ended`, with the reason."""

ENDS_THE_CALL = """
from livekit.agents import get_job_context

_before = turn_to_others


def turn_to_others(room, session):
    _before(room, session)
    shutdown = get_job_context().shutdown
    end = {"by-session": session.shutdown, "by-job": shutdown}.get(room.name)
    if end is not None:
        asyncio.get_running_loop().call_later(0.5, end)
"""
"""The agent hangs up, in one of two ways that depend on the room."""

CUT_OFF_WHEN_ANOTHER_AGENT_COMES = """
from livekit.rtc._proto.room_pb2 import SIMULATE_FULL_RECONNECT

_before = turn_to_others


def turn_to_others(room, session):
    _before(room, session)

    @room.on("participant_connected")
    def on_joined(other):
        if other.kind not in USER_KINDS:
            room.off("participant_connected", on_joined)
            asyncio.ensure_future(room.simulate_scenario(SIMULATE_FULL_RECONNECT))
"""
"""The agent has to join again, and finds another one there."""

PUBLISHES_NOTHING = """
async def _be_counted(room):
    pass
"""
"""The list of rooms does not show such an agent."""

NATIVE_PANIC = """
import os, signal

_before = turn_to_others


def turn_to_others(room, session):
    _before(room, session)
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGTERM)
"""
"""What LiveKit's native library does when it panics: it signals its own process."""


def in_the_session(folder: Path, fault: str) -> Path:
    """A copy of the agent whose sessions have `fault`."""
    return _append(folder, SESSION, fault)


def _append(folder: Path, module: str, code: str) -> Path:
    copy_of_the_agent(folder)
    with (folder / module).open("a") as file:
        file.write(code)
    return folder
