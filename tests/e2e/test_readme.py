"""The code in the README does what it says."""

from __future__ import annotations

import re
import sys

from build_aware.testbed import Testbed
from build_aware.testbed.environ import environment
from build_aware.testbed.livekit_server import LiveKitServer
from tests.conftest import JoinRoom, StartWorker
from tests.support.copies import content_id
from tests.support.paths import ROOT


async def test_the_backend_example_gets_the_room_its_build(
    bed: Testbed, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    await worker(own_livekit, AGENT_UNTARGETED="reject")
    readme = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    backend = await bed.processes.start(
        sys.executable,
        "-c",
        example,
        "from-the-readme",
        content_id(),
        name="backend",
        env=environment(**own_livekit.credentials),
    )
    assert await backend.exit() == 0, backend.output
    user = await join(own_livekit, "from-the-readme")
    assert (await user.agent()).attributes["build.id"] == content_id()
