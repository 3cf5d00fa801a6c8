"""What this worker tells the outside: `/ready`, `/status` and `/metrics`.

LiveKit's own health check says 200 before the worker is registered and while it drains: it
tells a supervisor whether to restart the worker, not whether jobs can reach it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

State: TypeAlias = Literal["starting", "ready", "disconnected", "draining"]

_BUILD: Final = Gauge("agent_build_info", "1, with the build of this worker.", ["id", "version"])
_READY: Final = Gauge("agent_ready", "1 while LiveKit can send jobs to this worker, else 0.")
_SESSIONS: Final = Gauge("agent_sessions", "Sessions that run on this worker.")
_DRAIN_LEFT: Final = Gauge(
    "agent_drain_seconds_left", "Seconds until a draining worker is gone; NaN if not draining."
)
CURRENT: Final = Gauge(
    "agent_rollout_current_info", "1, with the build that takes the jobs that name none.", ["id"]
)
WANTED: Final = Gauge(
    "agent_rollout_wanted", "1 while some jobs that name no build are for this worker, else 0."
)
PAUSED: Final = Gauge(
    "agent_rollout_paused",
    "1 while this worker takes the jobs of another build, since nobody seems to take them, else 0.",
)


class StatusServer:
    """Serves the status of one worker.

    Args:
        status: gives the body of `/status`: `build`, `state`, `sessions`, `drain_left_s`, ...
        port: where to listen; 0 takes a free port.
    """

    def __init__(self, status: Callable[[], dict[str, Any]], port: int) -> None:
        self._status = status
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Start to listen, on all interfaces, and return the port.

        Raises:
            OSError: the port is taken.
        """
        application = web.Application()
        application.router.add_get("/ready", self._ready)
        application.router.add_get("/status", self._report)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        # One socket for IPv4 and IPv6: two would get two different free ports.
        dual = socket.has_dualstack_ipv6()
        listener = socket.create_server(
            ("", self._port),
            family=socket.AF_INET6 if dual else socket.AF_INET,
            dualstack_ipv6=dual,
        )
        await web.SockSite(self._runner, listener).start()
        port: int = listener.getsockname()[1]
        return port

    async def _ready(self, _: web.Request) -> web.Response:
        state: State = self._status()["state"]
        return web.Response(status=200 if state == "ready" else 503, text=f"{state}\n")

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def _metrics(self, _: web.Request) -> web.Response:
        status = self._status()
        build = status["build"]
        _BUILD.labels(build["id"], build["version"] or "").set(1)
        _READY.set(status["state"] == "ready")
        _SESSIONS.set(status["sessions"])
        rollout = status["rollout"]
        CURRENT.clear()
        if rollout["current"] is not None:
            CURRENT.labels(rollout["current"]).set(1)
        WANTED.set(rollout["wanted"])
        PAUSED.set(rollout["paused"])
        left = status["drain_left_s"]
        _DRAIN_LEFT.set(float("nan") if left is None else left)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
