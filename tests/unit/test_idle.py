from __future__ import annotations

import inspect

from livekit.agents import AgentServer
from livekit.agents.ipc.proc_pool import ProcPool

from build_aware.server import idle


def test_livekits_pool_still_has_what_stops_its_refilling() -> None:
    assert "self._proc_pool = " in inspect.getsource(AgentServer)
    assert "self._default_num_idle_processes = num_idle_processes" in inspect.getsource(ProcPool)
    # The number that is kept idle never exceeds it.
    refilling = inspect.getsource(ProcPool._main_task)
    assert "min(self._target_idle_processes, self._default_num_idle_processes)" in refilling


def test_refilling_stops() -> None:
    class Pool:
        _default_num_idle_processes = 4

    class Server:
        _proc_pool = Pool()

    idle.stop_refilling(Server())  # type: ignore[arg-type]
    assert Server._proc_pool._default_num_idle_processes == 0
