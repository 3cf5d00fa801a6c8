"""Containers: an image, run as its own configuration says, in namespaces of its own.

Like an engine with `--network host`: PIDs and mounts are the container's, and the loopback
interface is that of the test, so that it reaches the servers of the test bed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from build_aware.testbed import Process, Processes, ports
from build_aware.testbed.environ import environment
from build_aware.testbed.family import MARK
from build_aware.testbed.turns import turn
from build_aware.testbed.waiting import until
from build_aware.testbed.worker import PINNED, READY_S
from tests.support import pid_1
from tests.support.images import Image

NAMESPACES: Final = ("unshare", "--pid", "--fork", "--mount", "--kill-child")
"""Makes the command behind it PID 1, as a container does."""


@dataclass(frozen=True)
class Container:
    """A container that runs.

    Attributes:
        image: what it is a container of.
        process: what has started it; its exit code is that of PID 1.
        env: the environment of its command.
        pid_1: its first process.
    """

    image: Image
    process: Process
    env: dict[str, str]
    pid_1: psutil.Process

    @classmethod
    async def start(
        cls,
        processes: Processes,
        image: Image,
        *,
        env: Mapping[str, str],
        command: tuple[str, ...] = (),
        read_only: bool = True,
    ) -> Container:
        """Start one.

        Args:
            processes: where it is started; it ends with them.
            image: what it is a container of.
            env: what is added to the environment that the image sets.
            command: what it runs, if not what its image says.
            read_only: whether it can write to nothing but a /tmp of its own.
        """
        process, full = await _start(
            processes, image, command or image.command, env, read_only=read_only
        )
        children = await until(lambda: process.family()[1:], f"PID 1 of {process}")
        return cls(image, process, full, children[0])

    @classmethod
    async def worker(
        cls,
        processes: Processes,
        image: Image,
        credentials: Mapping[str, str],
        *,
        read_only: bool = True,
    ) -> Container:
        """Start one, and wait until its worker is registered."""
        port, *_ = ports.free(1)
        env = PINNED | {"AGENT_HEALTH_PORT": str(port)} | dict(credentials)
        async with turn():
            container = await cls.start(processes, image, env=env, read_only=read_only)
            await container.process.logged("registered worker", deadline_s=READY_S)
        return container

    def stop(self) -> None:
        """Send the image's stop signal to PID 1, once, as `docker stop` does."""
        assert self.image.config.get("StopSignal") in ("SIGTERM", "", None)
        self.pid_1.terminate()

    async def check(self) -> bool:
        """Run the image's health check in the container, and tell whether it is healthy."""
        how, *command = self.image.config["Healthcheck"]["Test"]
        assert how == "CMD"
        nsenter = shutil.which("nsenter") or "nsenter"
        uid, gid, _ = user(self.image)
        inside = ("--target", str(self.pid_1.pid), "--pid", "--mount", "--root", "--wd")
        check = await asyncio.create_subprocess_exec(
            *(nsenter, *inside, "--setuid", str(uid), "--setgid", str(gid), "--", *command),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await check.communicate()
        if check.returncode:
            self.process.log.open("ab").write(output)
        return check.returncode == 0


async def output_of(
    processes: Processes, image: Image, *command: str, read_only: bool = True
) -> str:
    """Run another command in a container, to the end, and return what it says."""
    process, _ = await _start(processes, image, command, {}, read_only=read_only)
    code = await process.exit()
    assert code == 0, f"{command} ended with {code}:\n{process.tail()}"
    return process.output


def user(image: Image) -> tuple[int, int, str]:
    """The uid, gid and home that it runs with: as its own file of users says."""
    asked, _, _ = image.config["User"].partition(":")
    lines = (image.rootfs / "etc" / "passwd").read_text("utf-8").splitlines()
    (entry,) = (user for user in (line.split(":") for line in lines) if asked in (user[0], user[2]))
    return int(entry[2]), int(entry[3]), entry[5]


async def _start(
    processes: Processes,
    image: Image,
    command: tuple[str, ...],
    env: Mapping[str, str],
    *,
    read_only: bool,
) -> tuple[Process, dict[str, str]]:
    uid, gid, home = user(image)
    full = {"HOME": home} | image.env | dict(env)
    spec = {
        "rootfs": str(image.rootfs),
        "command": command,
        "env": full,
        "cwd": image.config["WorkingDir"],
        "uid": uid,
        "gid": gid,
        "read_only": read_only,
        "keep": [MARK],
    }
    process = await processes.start(
        *(*NAMESPACES, sys.executable, "-I", pid_1.__file__, json.dumps(spec)),
        name="container",
        env=environment(),
    )
    return process, full
