"""The client of the server's API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from livekit.api import LiveKitAPI

from build_aware.dispatch import ages

REQUEST_S: Final = 5.0
"""How long a list of rooms, or a look at one room, may take. LiveKit's client sets no limit."""


@contextlib.asynccontextmanager
async def client(credentials: tuple[str, str, str]) -> AsyncIterator[LiveKitAPI]:
    """A client that learns the server's time. Proxies are those of the environment.

    Args:
        credentials: URL, API key and API secret.
    """
    url, api_key, api_secret = credentials
    async with aiohttp.ClientSession(trust_env=True, trace_configs=[ages.dates()]) as http:
        yield LiveKitAPI(url, api_key, api_secret, session=http)
