"""Where the stop signal of a container arrives, by how its command is written.

Where it does not, the worker says so when it starts, and it says so nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psutil
import pytest

from build_aware.testbed import Testbed
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.status import Status
from tests.image.conftest import Project
from tests.support.images import Images

pytestmark = [
    *(pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)),
    pytest.mark.xdist_group("image"),  # One storage, where each is built once.
]


@dataclass(frozen=True)
class Form:
    """A way to write the command.

    Attributes:
        lines: how it stands in the Dockerfile.
        arrives: whether the stop signal reaches the worker.
        script: the entrypoint that is copied, if there is one.
    """

    lines: tuple[str, ...]
    arrives: bool
    script: str = ""


def entrypoint(script: str, command: str, *, arrives: bool) -> Form:
    """A script that starts the command."""
    copied = "COPY entrypoint.sh /usr/local/bin/"
    lines = (copied, 'ENTRYPOINT ["entrypoint.sh"]', f"CMD {command}")
    return Form(lines, arrives, f"#!/bin/sh\nset -e\n{script}\n")


PYTHON: Final = '["python", "agent.py", "start"]'

OURS: Final = {
    "shell form": Form(("CMD python agent.py start",), arrives=False),
    # bash becomes the one command that it is given; Debian's /bin/sh does not.
    "shell form of bash": Form(('CMD ["/bin/bash", "-c", "python agent.py start"]',), arrives=True),
    "entrypoint without exec": entrypoint('"$@"', PYTHON, arrives=False),
    "entrypoint with exec": entrypoint('exec "$@"', PYTHON, arrives=True),
    "entrypoint that passes it on": entrypoint(
        '"$@" &\nworker=$!\ntrap \'kill -TERM "$worker"\' TERM\nwait "$worker" || wait "$worker"',
        PYTHON,
        arrives=True,
    ),
}

UV: Final = '["uv", "run", "--no-dev", "src/agent.py", "start"]'

FOREIGN: Final = {
    "uv run": Form((f"CMD {UV}",), arrives=True),
    "uv run in shell form": Form(("CMD uv run --no-dev src/agent.py start",), arrives=False),
    "uv run in an entrypoint without exec": entrypoint('"$@"', UV, arrives=False),
}


@pytest.mark.parametrize("name", OURS)
async def test_of_this_image(
    name: str, assistant: Project, built: Images, bed: Testbed, own_livekit: LiveKitServer
) -> None:
    await is_warned_of_where_it_does_not_arrive(
        assistant, name, OURS[name], built, bed, own_livekit
    )


@pytest.mark.parametrize("name", FOREIGN)
async def test_of_another_teams_image(
    name: str, foreign: Project, built: Images, bed: Testbed, own_livekit: LiveKitServer
) -> None:
    await is_warned_of_where_it_does_not_arrive(
        foreign, name, FOREIGN[name], built, bed, own_livekit
    )


async def is_warned_of_where_it_does_not_arrive(
    project: Project,
    name: str,
    form: Form,
    built: Images,
    bed: Testbed,
    livekit: LiveKitServer,
) -> None:
    scripts = {"entrypoint": form.script} if form.script else {}
    image = built.derive(project.image, name.replace(" ", "-"), *form.lines, **scripts)
    container = await project.worker(bed, livekit, image)
    running = container.process
    user = await project.user(bed, livekit, "room")
    assert bool(running.find("the stop signal will not arrive")) is not form.arrives

    container.stop()
    if not form.arrives:
        # It would have arrived before this answer.
        await user.ask("still there?", expect="still there?")
        assert (await (await Status.of(running)).get())["state"] == "ready"
        worker(container.pid_1).terminate()
    await running.logged("draining worker")
    await user.ask("and now?", expect="and now?")
    await user.leave()
    assert await running.exit() == 0


def worker(pid_1: psutil.Process) -> psutil.Process:
    """The main process of the worker below PID 1."""
    return next(
        child
        for child in pid_1.children(recursive=True)
        if child.name().startswith("python") and child.cmdline()[-1:] == ["start"]
    )
