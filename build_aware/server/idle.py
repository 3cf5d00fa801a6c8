"""A draining worker warms up no more job processes: no job will come for them.

livekit-agents keeps refilling its pool of idle processes until the worker exits. That costs the
CPU that other workers need to start, and each process has to be ended before the worker can exit.
"""

from __future__ import annotations

from livekit.agents import AgentServer


def stop_refilling(server: AgentServer) -> None:
    """Let the pool of `server`, which is started, shrink from now on.

    Jobs that are already accepted still get a process each. Uses the private
    `AgentServer._proc_pool` and its `_default_num_idle_processes`, of which the public
    `num_idle_processes` is no more than the start value; tests fail when these move.
    """
    server._proc_pool._default_num_idle_processes = 0
