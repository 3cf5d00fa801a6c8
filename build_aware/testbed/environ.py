"""The environment of what a test bed starts, and of the test bed itself."""

from __future__ import annotations

import os
from typing import Final

CLEARED: Final = ("LIVEKIT_", "AGENT_", "OPENAI_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Variables that would make a difference, by their beginning: to what is started, or its speed."""

PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy")
"""Proxies are for other machines, and a test bed talks to this one only."""


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without proxies and settings of agents, and with `extra`.

    A `.env.local` is not read, so that nobody's own settings change what happens.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(CLEARED) and name.lower() not in PROXIES
    }
    return inherited | {"PYTHON_DOTENV_DISABLED": "1"} | extra


def talk_to_this_machine_only() -> None:
    """Take away this process's proxies: rtc clients and API clients would use them."""
    for name in list(os.environ):
        if name.lower() in PROXIES:
            del os.environ[name]
