"""A container on a machine without any network: `python -m tests.support.alone IMAGE FOLDER`.

Run in a network namespace of its own, with livekit-server and a user beside the container: they
reach each other on its loopback interface, and nothing else. The container has no settings but
its credentials and its models, and so the ports of its image. Prints what happened, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from build_aware.testbed import Testbed
from tests.support.containers import Container
from tests.support.images import Image

ADDRESS: Final = "198.51.100.1/32"
"""One that nobody has. An rtc client takes no part in a network that is loopback only."""


def make_network() -> None:
    """Loopback, and a cable with nobody at its other end; there is a route to neither."""
    for command in (
        "ip link set lo up",
        "ip link add near type veth peer name far",
        "ip link set near up",
        "ip link set far up",
        f"ip address add {ADDRESS} dev near",
    ):
        subprocess.run(command.split(), check=True)


async def happens(image: Image, folder: Path) -> dict[str, Any]:
    """Serve a user, and leave."""
    async with Testbed(folder) as bed:
        livekit = await bed.livekit()
        env = livekit.credentials | {"AGENT_MODELS": "offline"}
        container = await Container.start(bed.processes, image, env=env)
        await container.process.logged("registered worker")
        user = await bed.user(livekit, "room")
        agent = await user.agent()
        answer = await user.ask("hello", expect="hello")
        healthy = await container.check()
        container.stop()
        await container.process.logged("draining worker")
        await user.leave()
        code = await container.process.exit()
        return {
            "interfaces": sorted(name for _, name in socket.if_nameindex()),
            "build": agent.attributes["build.id"],
            "answer": answer,
            "healthy": healthy,
            "code": code,
        }


def main() -> None:
    """Run it, and print it."""
    about = json.loads(sys.argv[1])
    image = Image(about["tag"], about["config"], Path(about["rootfs"]))
    make_network()
    happened = asyncio.run(happens(image, Path(sys.argv[2])))
    sys.stdout.write(f"{json.dumps(happened)}\n")


if __name__ == "__main__":
    main()
