"""The images under test, each built once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import NotInstalledError, Testbed, User
from build_aware.testbed.environ import environment
from build_aware.testbed.livekit_server import LiveKitServer
from tests.support import images, starter
from tests.support.containers import NAMESPACES, Container
from tests.support.foreign import STARTER, ask_for
from tests.support.images import Image, Images
from tests.support.paths import ROOT

SECRET: Final = "nobody-may-ship-this"  # noqa: S105 nobody may
"""What is in each of `SECRETS`."""

SECRETS: Final = (
    *(".env", ".env.local", ".env.production", "id_rsa", "secrets/livekit.json"),
    *("agent/.env", "agent/.env.local", "build_aware/.env", "build_aware/cli/.env.local"),
)
"""Files of a checkout that must not get into an image."""


@dataclass(frozen=True)
class Project:
    """A project, and the image that its own Dockerfile makes of it.

    Attributes:
        folder: where it is.
        build_id: the id that its team gets for it.
        counted: the files that make it.
        image: the image.
        read_only: whether its containers need nothing writable but /tmp.
        agent_name: what rooms call its agent, if they have to.
    """

    folder: Path
    build_id: str
    counted: tuple[str, ...]
    image: Image
    read_only: bool
    agent_name: str = ""

    async def worker(
        self, bed: Testbed, server: LiveKitServer, image: Image | None = None
    ) -> Container:
        """Start a container, of this image or of one that was derived from it."""
        return await Container.worker(
            bed.processes, image or self.image, server.credentials, read_only=self.read_only
        )

    async def user(self, bed: Testbed, server: LiveKitServer, room: str) -> User:
        """A user who talks to its agent."""
        if self.agent_name:
            await ask_for(server, STARTER, room)
        user = await bed.user(server, room, identity=f"user of {room}")
        await user.agent()
        return user


@pytest.fixture(scope="session")
def built() -> Iterator[Images]:
    """Where images are built: skip where that is not possible; in CI it has to be."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(images.building())
            subprocess.run([*NAMESPACES, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError, NotInstalledError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no image is built: {error}")
        yield made


@pytest.fixture(scope="session")
def assistant(built: Images, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """This repository, with secrets in its checkout."""
    folder = images.checkout(tmp_path_factory.mktemp("checkouts") / "assistant")
    for name in SECRETS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"LIVEKIT_API_SECRET={SECRET}\n")
    build_id, *counted = (
        *said_by_the_checkout("build").splitlines(),
        *said_by_the_checkout("build", "--files").splitlines(),
    )
    image = built.build(folder, "assistant")
    return Project(folder, build_id, tuple(counted), image, read_only=True)


def said_by_the_checkout(*command: str) -> str:
    """What `python agent.py` says."""
    done = subprocess.run(
        (sys.executable, "agent.py", *command),
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture(scope="session")
def foreign(built: Images, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another team's project, in the manner of LiveKit's starter."""
    folder = starter.write(tmp_path_factory.mktemp("foreign") / "project")
    build_id, *counted = (
        *starter.said(folder, "build").splitlines(),
        *starter.said(folder, "build", "--files").splitlines(),
    )
    image = built.build(folder, "foreign")
    return Project(
        *(folder, build_id, tuple(counted), image),
        read_only=False,
        agent_name=STARTER.agent_name,
    )


@pytest.fixture(params=["assistant", "foreign"])
def project(request: pytest.FixtureRequest) -> Project:
    """Each of them."""
    found: Project = request.getfixturevalue(request.param)
    return found
