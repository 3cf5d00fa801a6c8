"""The fork server: how it starts, and what it tells of a process that has ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, forkserver, popen_forkserver
from pathlib import Path
from typing import Any, Final

import pytest

from build_aware.server.watch_forkserver import mend_exit_codes
from build_aware.testbed.environ import environment
from tests.support.paths import ROOT

MEETING_S: Final = 0.5
LONGEST_S: Final = 60


@pytest.fixture(autouse=True)
def restore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popen_forkserver.Popen, "poll", popen_forkserver.Popen.poll)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[popen_forkserver.Popen]:
    """A process that has ended with 7, and whose exit code is read by two threads at once."""
    meeting = threading.Barrier(2)
    read = forkserver.read_signed

    def read_together(descriptor: int) -> int:
        with contextlib.suppress(threading.BrokenBarrierError):  # Nobody else reads.
            meeting.wait(MEETING_S)
        code: int = read(descriptor)
        return code

    monkeypatch.setattr(forkserver, "read_signed", read_together)
    process = object.__new__(popen_forkserver.Popen)
    process.returncode = None
    process.pid = _pid_of_nobody()
    process.sentinel, theirs = os.pipe()
    forkserver.write_signed(theirs, 7)
    os.close(theirs)
    yield process
    os.close(process.sentinel)


def _pid_of_nobody() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    return gone.pid


@pytest.fixture
def orphan() -> Iterator[tuple[popen_forkserver.Popen, subprocess.Popen[bytes]]]:
    """A process that still runs, and whose fork server is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as runs:
        process = object.__new__(popen_forkserver.Popen)
        process.returncode = None
        process.pid = runs.pid
        process.sentinel, theirs = os.pipe()
        os.close(theirs)
        yield process, runs
        os.close(process.sentinel)


def test_a_process_whose_fork_server_is_gone_has_ended_says_python(
    orphan: tuple[popen_forkserver.Popen, subprocess.Popen[bytes]],
) -> None:
    process, _ = orphan
    assert process.poll() == 255


def test_a_process_whose_fork_server_is_gone_ends_when_it_ends(
    orphan: tuple[popen_forkserver.Popen, subprocess.Popen[bytes]],
) -> None:
    mend_exit_codes()
    process, runs = orphan
    assert process.poll() is None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(process.poll, 0)
        assert process.poll() is None
        runs.communicate(b"end\n")
        assert waiting.result() == 255
    assert process.poll() == 255


def test_python_keeps_what_it_knows_of_its_fork_server_where_we_put_it() -> None:
    names = {"_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"}
    assert names <= vars(forkserver._forkserver).keys()


# How it starts

LINUX: Final = pytest.mark.skipif(
    sys.platform != "linux", reason="LiveKit uses a fork server on Linux only"
)

PROGRAM: Final = """
import json, logging, multiprocessing, os, signal, sys, threading, time

import dependency
from build_aware.server import forkserver
from multiprocessing.forkserver import _forkserver

LOADED_IN = os.getpid()
before = len(os.listdir("/proc/self/fd"))
told = {}


def command_line(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def run(function, *arguments):
    \"\"\"Run a function in a job process; its exit code.\"\"\"
    process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def ask(what):
    \"\"\"What a job process finds.\"\"\"
    reader, writer = multiprocessing.get_context("forkserver").Pipe(duplex=False)
    run(tell, writer, what)
    return reader.recv()


def tell(writer, what):
    writer.send(eval(what))


def release(*preload):
    \"\"\"What `AgentServer.run` does, of ours and of LiveKit's.\"\"\"
    forkserver.release_when_needed()
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))


def kind():
    \"\"\"Whether the fork server was forked from this program, or is a new one.\"\"\"
    pid = _forkserver._forkserver_pid
    return "fork" if command_line(pid) == command_line(os.getpid()) else "new"


if __name__ == "__main__":
{body}
    print(json.dumps(told))
"""

TEAM: Final = """
import logging, os

LOADED_IN = os.getpid()
logging.getLogger("team").addHandler(logging.StreamHandler())
logging.basicConfig()
"""

PRELOADED: Final = """
import os, time

LOADED_IN = os.getpid()
FOUND = os.environ.get("LOADED_LATER"), os.environ.get("DELETED_LATER"), time.strftime("%Z")
"""


class Program:
    """A program as a team writes it, below a fork server of ours.

    Attributes:
        folder: its own folder, with a module of the team's, and one that is installed there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "team.py").write_text(TEAM)
        installed = folder / "installed"
        (installed / "dependency-1.0.dist-info").mkdir(parents=True)
        (installed / "dependency.py").write_text("import os\nLOADED_IN = os.getpid()\n")
        later = folder / "later"
        later.mkdir()
        (later / "preloaded.py").write_text(PRELOADED)

    def start(self, body: str, **env: str) -> subprocess.Popen[str]:
        script = self.folder / "program.py"
        script.write_text(PROGRAM.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))
        paths = os.pathsep.join([str(ROOT), str(self.folder / "installed")])
        return subprocess.Popen(
            [sys.executable, script],
            env=environment(PYTHONPATH=paths, DELETED_LATER="yes", TZ="UTC", **env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, body: str) -> dict[str, Any]:
        """What the program tells, by its end."""
        with self.start(body) as running:
            out, err = running.communicate(timeout=LONGEST_S)
        assert (running.returncode, err) == (0, "")
        told: dict[str, Any] = json.loads(out)
        return told


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def ends(pid: int) -> bool:
    """Whether a process, which is not our child, ends."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(connection.wait([process], LONGEST_S))
    finally:
        os.close(process)


@LINUX
@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        pytest.param("forkserver.fork()", "fork", id="alone"),
        # A fork would never see the locks released that a thread holds.
        pytest.param(
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
            "forkserver.fork()",
            "new",
            id="beside-a-thread",
        ),
        # A metric of it could not be registered twice.
        pytest.param("import team\nforkserver.fork()", "new", id="beside-a-module-of-the-team"),
        pytest.param("pass", "new", id="not-forked"),
        pytest.param(
            "forkserver.fork()\nos.environ[forkserver.METRICS] = '/somewhere'",
            "new",
            id="metrics-are-switched-on-later",
        ),
        pytest.param("run(os.getpid)\nforkserver.fork()", "new", id="the-team-has-one-already"),
        pytest.param("forkserver.fork()\nrun(os.getpid)", "new", id="the-team-has-one-by-then"),
        pytest.param(
            "forkserver.fork()\nos.kill(forkserver._waiting.pid, signal.SIGKILL)\n"
            "os.waitid(os.P_PID, forkserver._waiting.pid, os.WEXITED | os.WNOWAIT)",
            "new",
            id="killed-while-it-waits",
        ),
    ],
)
def test_the_fork_server_serves_and_ends_with_the_worker(
    begin: str, kind: str, program: Program
) -> None:
    body = f"""
{begin}
waited = forkserver._waiting
release("json")
told["first"] = run(os.getppid)
told["kind"] = kind()
told["pid"] = server = _forkserver._forkserver_pid
if "run(" not in {begin!r}:  # Else it was there before LiveKit said what it imports.
    os.kill(server, signal.SIGINT)
    os.kill(server, signal.SIGTERM)
told["second"] = run(sys.exit, 7)
told["same"] = _forkserver._forkserver_pid == server
told["left"] = waited is not None and waited.pid != server and not is_gone(waited.pid)
told["more_fds"] = len(os.listdir("/proc/self/fd")) - before
"""
    told = program.run(body)
    assert ends(told.pop("pid")), "the fork server has stayed"
    # One to the resource tracker, and one that keeps the fork server alive.
    assert told.pop("more_fds") <= 2
    assert told == {"first": 0, "second": 7, "kind": kind, "same": True, "left": False}


@LINUX
def test_a_job_process_is_as_below_a_fork_server_of_its_own(program: Program) -> None:
    told = program.run(
        """
        forkserver.fork()
        # What the team's code does after the import of ours.
        import team
        sys.path.append(f"{sys.path[0]}/later")
        os.environ["LOADED_LATER"] = "yes"
        os.environ["TZ"] = "Asia/Tokyo"
        del os.environ["DELETED_LATER"]
        release("preloaded")
        told["main"] = os.getpid()
        told["job"] = ask(
            "os.getpid(), LOADED_IN, __import__('team').LOADED_IN, dependency.LOADED_IN"
        )
        told["found"] = ask("__import__('preloaded').FOUND")
        told["preloaded"] = ask("__import__('preloaded').LOADED_IN"), _forkserver._forkserver_pid
        told["environ"] = ask("os.environ.get('LOADED_LATER'), os.environ.get('DELETED_LATER')")
        told["gc"] = ask("__import__('gc').isenabled()")
        told["handlers"] = ask(
            "__import__('team') and "
            "(len(logging.getLogger().handlers), len(logging.getLogger('team').handlers))"
        )
        told["signals"] = ask("[callable(signal.getsignal(n)) for n in (2, 15)]")
        """
    )
    pid, main, team, dependency = told["job"]
    # The team's code has run there, and what is installed is shared.
    assert (main, team) == (pid, pid)
    assert dependency == told["main"]
    assert told["found"] == ["yes", None, "JST"]
    loaded_in, server = told["preloaded"]
    assert loaded_in == server
    assert told["environ"] == ["yes", None]
    assert told["gc"] is True
    # Those that the team's module sets up, when it runs there.
    assert told["handlers"] == [1, 1]
    assert told["signals"] == [True, True]


@LINUX
def test_one_that_is_not_needed_is_gone_at_once(program: Program) -> None:
    told = program.run(
        """
        forkserver.end()
        forkserver.fork()
        pid = forkserver._waiting.pid
        forkserver.end()
        forkserver.end()
        told["gone"] = is_gone(pid)
        told["more_fds"] = len(os.listdir("/proc/self/fd")) - before
        """
    )
    assert told["gone"]
    assert told["more_fds"] <= 1  # to the resource tracker


@LINUX
@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_program_that_never_needs_it_leaves_nothing_behind(how: str, program: Program) -> None:
    body = """
    forkserver.fork()
    print(forkserver._waiting.pid, flush=True)
    input()
    """
    with program.start(body) as running:
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        assert os.path.exists(f"/proc/{pid}")  # noqa: PTH110
        if how == "is killed":
            running.kill()
            running.wait(LONGEST_S)
        else:
            running.communicate("go\n", timeout=LONGEST_S)
    assert ends(pid)


# What it tells of a process that has ended


def read_twice_at_once(process: popen_forkserver.Popen) -> list[int | None]:
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(process.poll, 0)
        looking = threads.submit(process.poll)
        return [waiting.result(), looking.result(), process.poll()]


def test_an_exit_code_that_is_read_twice_is_lost_by_python(ended: popen_forkserver.Popen) -> None:
    """If this fails, Python has mended it, and `mend_exit_codes` can go."""
    assert 255 in read_twice_at_once(ended)


def test_an_exit_code_is_read_once(ended: popen_forkserver.Popen) -> None:
    mend_exit_codes()
    mend_exit_codes()
    assert read_twice_at_once(ended) == [7, 7, 7]
