"""What the platforms of docs/deploy.md do to a worker: one SIGTERM, to it alone, and no gap."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from build_aware.testbed import Testbed
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker, installed
from tests.support import systemd
from tests.support.foreign import COUNTS_SIGNALS, Caller, Journal, copy
from tests.support.namespaces import NAMESPACE, need_namespaces
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]

UNIT: Final = ROOT / "deploy" / "agent@.service"

COUNTS: Final = "taken over a stop signal"
"""What the worker says once it calls the agent's handler after its own."""


@dataclass(frozen=True)
class Host:
    """A machine with systemd, and a folder for each release of the agent."""

    systemd: systemd.Systemd
    folder: Path

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "journal")

    @property
    def ended(self) -> list[str]:
        """How units have ended, as systemd tells it."""
        file = self.folder / "ended"
        return file.read_text().splitlines() if file.exists() else []

    def found(self, message: str) -> list[dict[str, Any]]:
        """What workers have logged, of all releases."""
        log = self.folder / "worker.log"
        text = log.read_text() if log.exists() else ""
        complete = text[: text.rfind("\n") + 1].splitlines()
        records = [json.loads(line) for line in complete if line.startswith("{")]
        return [record for record in records if message in record["message"]]

    async def logs(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for what workers log."""

        def enough() -> list[dict[str, Any]] | None:
            found = self.found(message)
            return found if len(found) >= count else None

        return await until(enough, f"{count} x {message!r}")

    async def becomes(self, unit: str, **facts: str) -> None:
        """Wait until a unit has these properties."""

        async def has_become() -> bool:
            return await self.systemd.show(unit, *facts) == facts

        await until(has_become, f"{unit} to be {facts}")


Boots: TypeAlias = Callable[..., contextlib.AbstractAsyncContextManager[Host]]


@pytest.fixture
def boots(bed: Testbed, own_livekit: LiveKitServer, tmp_path: Path) -> Boots:
    """Boots a systemd with the unit of `deploy/`, and releases in `/opt/agent`."""

    @contextlib.asynccontextmanager
    async def boot(*releases: str, unit: str = "", **env: str) -> AsyncIterator[Host]:
        folder = tmp_path / "host"
        for name in releases:
            release = copy(COUNTS_SIGNALS, folder / "releases" / name).folder
            shutil.copytree(ROOT / "build_aware", release / "build_aware")
            (release / ".venv").mkdir()
        folder.chmod(0o777)  # for the journal, which the worker's own user writes
        names = {"LIVEKIT_AGENT_NAME": COUNTS_SIGNALS.agent_name}
        written = {"JOURNAL": f"{systemd.HERE}/journal"}
        environ = own_livekit.credentials | names | written | env
        lines = "".join(f"{name}={value}\n" for name, value in environ.items())
        (folder / "agent.env").write_text(lines)
        dropin = (
            "[Service]\n"
            f"StandardOutput=append:{systemd.HERE}/worker.log\n"
            "StandardError=inherit\n"
            f"ReadWritePaths={systemd.HERE}\n"
            f"ExecStopPost=sh -c 'echo %i ${{SERVICE_RESULT}} ${{EXIT_CODE}} ${{EXIT_STATUS}}"
            f" >>{systemd.HERE}/ended'\n"
            f"{systemd.python_within()}{unit}\n"
        )
        systemd.write_units(folder, UNIT, dropin)
        async with contextlib.AsyncExitStack() as stack:
            booting = stack.enter_async_context(systemd.booted(bed.processes, folder))
            yield Host(await installed(booting), folder)

    return boot


async def call(
    room: str, join: JoinRoom, livekit: LiveKitServer, journal: Journal, *, calls: int = 1
) -> Caller:
    """A user in a room with an agent, whose job has started its program."""
    await livekit.create_room(room, agent_name=COUNTS_SIGNALS.agent_name)
    caller = await Caller.joins(join, livekit, COUNTS_SIGNALS, room)
    await caller.agent()
    await until(lambda: len(journal.find("started")) == calls, "the program of the job to start")
    return caller


def reached(journal: Journal) -> list[str]:
    """Whom each SIGTERM has reached."""
    return [note["who"] for note in journal.find("SIGTERM")]


async def test_docker_and_kubernetes_send_one_sigterm_to_pid_1(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    """Both ask the runtime to signal the container's process, and wait until it is gone."""
    need_namespaces()
    agent = copy(COUNTS_SIGNALS, tmp_path / "agent")
    running = await agent.start(worker, own_livekit, below=NAMESPACE)
    await running.logged(COUNTS)
    caller = await call("call", join, own_livekit, agent.journal)

    pid_1 = running.family()[1]
    assert pid_1.cmdline()[-2:] == ["agent.py", "start"]
    os.kill(pid_1.pid, signal.SIGTERM)
    await agent.journal.noted("SIGTERM", who="worker")
    await caller.is_answered()
    await caller.leave()
    assert await running.exit() == 0
    assert reached(agent.journal) == ["worker"]


async def test_systemd_deploys_the_next_release_without_a_gap_and_sends_one_sigterm(
    boots: Boots, own_livekit: LiveKitServer, join: JoinRoom
) -> None:
    async with boots("one", "two") as host:
        await host.systemd.ctl("daemon-reload")
        await host.systemd.ctl("enable", "--now", "agent@one")
        await host.logs(COUNTS)
        caller = await call("first", join, own_livekit, host.journal)

        await host.systemd.ctl("enable", "--now", "agent@two")
        await host.logs(COUNTS, count=2)
        await host.systemd.ctl("disable", "--now", "--no-block", "agent@one")
        await host.logs("draining worker")
        await caller.is_answered()
        second = await call("second", join, own_livekit, host.journal, calls=2)
        await caller.leave()
        await until(lambda: host.ended, "the unit to have ended")
        assert host.ended == ["one success exited 0"]
        await host.becomes("agent@one", ActiveState="inactive", UnitFileState="disabled")
        await second.is_answered()
        await host.becomes("agent@two", ActiveState="active", UnitFileState="enabled")
        assert reached(host.journal) == ["worker"]


async def test_without_its_kill_mode_the_unit_would_signal_the_programs_of_jobs_too(
    boots: Boots, own_livekit: LiveKitServer, join: JoinRoom
) -> None:
    async with boots("one", unit="KillMode=control-group") as host:
        await host.systemd.ctl("start", "agent@one")
        await host.logs(COUNTS)
        caller = await call("call", join, own_livekit, host.journal)
        await host.systemd.ctl("stop", "--no-block", "agent@one")
        for who in ("worker", "job", "program"):
            await host.journal.noted("SIGTERM", who=who)
        await caller.is_answered()
        await caller.leave()


async def test_systemd_restarts_what_crashes_and_not_what_is_set_wrong(boots: Boots) -> None:
    async with boots("one", AGENT_UNTARGETED="maybe") as host:
        await host.systemd.ctl("start", "agent@one")
        await host.becomes("agent@one", ActiveState="failed", ExecMainStatus="2", NRestarts="0")

        env = host.folder / "agent.env"
        env.write_text(env.read_text().replace("maybe", "accept"))
        await host.systemd.enter("cp", f"{systemd.HERE}/agent.env", "/etc/agent.env")
        await host.systemd.ctl("start", "agent@one")
        await host.logs("registered worker")
        await host.systemd.ctl("kill", "--kill-whom=main", "--signal=KILL", "agent@one")
        await host.logs("registered worker", count=2)
        await host.becomes("agent@one", ActiveState="active", NRestarts="1")
