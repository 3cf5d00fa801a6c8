"""A LiveKit voice agent that knows which build it is. This folder is the one to make your own.

`server` is what LiveKit's tools look for.
"""

from pathlib import Path

from build_aware import cli
from agent import models

# Before the server, which is made from it.
cli.load_env(Path(__file__).parent.with_name(".env.local"))
models.choose()

from agent.session import server  # noqa: E402

__all__ = ["server"]
