"""What a worker says of itself."""

from __future__ import annotations

from typing import Any

import aiohttp

from build_aware.testbed.processes import Process
from build_aware.testbed.waiting import until


class Status:
    """A client of a worker's `/ready`, `/status` and `/metrics`."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    @classmethod
    async def of(cls, worker: Process) -> Status:
        """The status of a worker that has told where it serves it."""
        (served,) = await worker.logged("status is served")
        return cls(served["port"])

    async def ready(self) -> int:
        """The HTTP status of `/ready`."""
        async with aiohttp.ClientSession() as http, http.get(f"{self._url}/ready") as response:
            return response.status

    async def get(self) -> dict[str, Any]:
        """The body of `/status`."""
        async with aiohttp.ClientSession() as http, http.get(f"{self._url}/status") as response:
            body: dict[str, Any] = await response.json()
            return body

    async def metrics(self) -> str:
        """The body of `/metrics`."""
        async with aiohttp.ClientSession() as http, http.get(f"{self._url}/metrics") as response:
            return await response.text()

    async def becomes(self, state: str) -> dict[str, Any]:
        """Wait for a state and return the whole status."""

        async def reached() -> dict[str, Any]:
            status = await self.get()
            return status if status["state"] == state else {}

        return await until(reached, f"the state {state}")
