"""What the platforms of docs/deploy.md do to a worker when they stop it: one SIGTERM, to it alone."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import NotInstalledError, Testbed
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import logged_at
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom
from tests.support import systemd
from tests.support.foreign import COUNTS_SIGNALS, Caller, Journal, copy
from tests.support.paths import ROOT

TAKEN_OVER: Final = "taken over a stop signal"
"""What the worker says once it calls the agent's handler after its own."""

UNIT: Final = ROOT / "deploy" / "agent@.service"


def prepare(folder: Path, livekit: LiveKitServer, more: str = "") -> Journal:
    """Lay out what systemd is given: the unit, one release, and its environment."""
    release = copy(COUNTS_SIGNALS, folder / "releases" / "one").folder
    shutil.copytree(ROOT / "build_aware", release / "build_aware")
    (release / ".venv").mkdir()
    folder.chmod(0o777)
    env = livekit.credentials | {
        "LIVEKIT_AGENT_NAME": COUNTS_SIGNALS.agent_name,
        "JOURNAL": str(systemd.HERE / "journal"),
    }
    (folder / "agent.env").write_text("".join(f"{key}={value}\n" for key, value in env.items()))
    systemd.write_units(
        folder,
        UNIT,
        f"""[Service]
StandardOutput=append:{systemd.HERE}/worker.log
StandardError=inherit
ReadWritePaths={systemd.HERE}
{systemd.python_within()}{more}""",
    )
    return Journal(folder / "journal")


async def test_systemd_sends_one_sigterm_to_the_worker_alone(
    bed: Testbed, own_livekit: LiveKitServer, join: JoinRoom, tmp_path: Path
) -> None:
    folder = tmp_path / "systemd"
    folder.mkdir()
    journal = prepare(folder, own_livekit)
    log = folder / "worker.log"
    async with systemd.booted(bed.processes, folder) as booted:
        await booted.ctl("start", "agent@one")
        await until(lambda: TAKEN_OVER in log.read_text(), "the worker to find the agent's handler")
        await own_livekit.create_room("call", agent_name=COUNTS_SIGNALS.agent_name)
        caller = await Caller.joins(join, own_livekit, COUNTS_SIGNALS, "call")
        await caller.agent()
        await journal.noted("started", who="program")

        await booted.ctl("stop", "--no-block", "agent@one")
        await journal.noted("SIGTERM", who="worker")
        await caller.is_answered()
        await caller.leave()

        async def gone() -> bool:
            return (await booted.show("agent@one", "ActiveState"))["ActiveState"] == "inactive"

        await until(gone, "the unit to be inactive")
        shown = await booted.show("agent@one", "ExecMainStatus", "Result")
        assert shown == {"ExecMainStatus": "0", "Result": "success"}
    assert [note["who"] for note in journal.find("SIGTERM")] == ["worker"]
