"""Free ports on loopback."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from typing import Final

BELOW_EPHEMERAL: Final = range(10_000, 32_000)
"""Ports that the system does not hand out to outgoing connections by itself."""


def free(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """Ports that nobody listens on, all different."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.choice(BELOW_EPHEMERAL)  # noqa: S311 no secret
            listener = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
