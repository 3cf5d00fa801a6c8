"""A systemd of the test's own: PID 1 of a namespace, with no unit but those that it is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import uuid4

from build_aware.testbed.environ import environment
from build_aware.testbed.errors import NotInstalledError
from build_aware.testbed.processes import Process, Processes
from build_aware.testbed.waiting import until

PROGRAM: Final = Path("/lib/systemd/systemd")
HOW_TO_GET_IT: Final = "needs systemd, root and cgroups; to get systemd: apt-get install systemd"

STUBS: Final = ("basic", "sysinit", "shutdown", "network-online", "multi-user")
"""Targets that units refer to. Those of the machine, with all that they start, are left alone."""

HERE: Final = Path("/run/test")
"""The folder of the test, as what runs in the namespace sees it."""

BOOT: Final = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/test
mount --bind "$FOLDER" /run/test
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir /opt/agent
for release in /run/test/releases/*; do
    mkdir "/opt/agent/${release##*/}"
    mount --bind "$release" "/opt/agent/${release##*/}"
    mount --bind "$VENV" "/opt/agent/${release##*/}/.venv"
done
mkdir -p /run/etc /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
cp -r /run/test/units/. /etc/systemd/system
cp /run/test/agent.env /etc/agent.env
chmod 600 /etc/agent.env
# What units with a /tmp of their own leave behind goes away with the namespace.
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
exec env -i container=test SYSTEMD_UNIT_PATH=/etc/systemd/system PATH="$PATH" \\
    "$SYSTEMD" --system --unit=multi-user.target --log-target=null --show-status=no
"""


class Systemd:
    """A running systemd, and the way to talk to it.

    Attributes:
        folder: the folder of the test: `units` is where units are, and `releases` is `/opt/agent`.
        process: what has started it.
    """

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder = folder
        self.process = process

    @property
    def pid(self) -> int | None:
        """Its process id outside of its namespace."""
        return next((child.pid for child in self.process.family()[1:2]), None)

    async def ctl(self, *arguments: str) -> str:
        """Run `systemctl`, and return what it prints."""
        return await self.enter("systemctl", "--no-pager", *arguments)

    async def enter(self, *command: str) -> str:
        """Run a command where it runs, and return what that prints."""
        process = await asyncio.create_subprocess_exec(
            *("nsenter", "--target", str(self.pid), "--mount", "--pid", *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, f"{' '.join(command)}: {output}"
        return output

    async def runs(self) -> bool:
        """Whether it has started, and answers."""
        assert self.process.running, self.process.output
        try:
            return "running" in await self.ctl("list-units", "--state=active")
        except AssertionError:
            return False

    async def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        output = await self.ctl("show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in output.splitlines())


def write_units(folder: Path, unit: Path, dropin: str) -> None:
    """Write a unit as it is, what a test adds to it, and empty targets where it needs some."""
    units = folder / "units"
    (units / f"{unit.name}.d").mkdir(parents=True)
    shutil.copy(unit, units)
    (units / f"{unit.name}.d" / "test.conf").write_text(dropin)
    for name in STUBS:
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")


def python_within() -> str:
    """Lines of a unit with which a Python in somebody's home can be run in spite of ProtectHome."""
    if not sys.base_prefix.startswith(("/root/", "/home/")):
        return ""
    return f"ProtectHome=tmpfs\nBindReadOnlyPaths={sys.base_prefix}\n"


@contextlib.asynccontextmanager
async def booted(processes: Processes, folder: Path) -> AsyncIterator[Systemd]:
    """Boot it.

    Args:
        processes: where it is started.
        folder: with `units`, `releases` and `agent.env`.

    Raises:
        NotInstalledError: this machine cannot.
    """
    root = Path("/sys/fs/cgroup/systemd")
    cgroup = (root if root.exists() else root.parent) / f"test-{uuid4().hex}"
    try:
        _need()
        cgroup.mkdir()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotInstalledError(f"{HOW_TO_GET_IT} ({error})") from None
    enter = f'echo $$ >{cgroup}/cgroup.procs; exec "$@"'
    namespaces = ("--pid", "--mount", "--cgroup", "--ipc", "--uts", "--mount-proc", "--fork")
    process = await processes.start(
        *("sh", "-c", enter, "sh", "unshare", *namespaces, "--kill-child", "sh", "-c", BOOT),
        name="systemd",
        env=environment(FOLDER=str(folder), SYSTEMD=str(PROGRAM), VENV=sys.prefix),
    )
    systemd = Systemd(folder, process)
    try:
        await until(systemd.runs, "systemd to boot")
        yield systemd
    finally:
        await process.stop()
        await until(lambda: _removed(cgroup), f"{cgroup} to be removed")


def _need() -> None:
    if not PROGRAM.exists() or os.geteuid() != 0:
        raise OSError(f"{PROGRAM}, as user {os.geteuid()}")
    subprocess.run(["unshare", "--pid", "--cgroup", "--fork", "true"], check=True)


def _removed(cgroup: Path) -> bool:
    try:
        for folder in sorted(filter(Path.is_dir, cgroup.rglob("*")), reverse=True):
            folder.rmdir()
        cgroup.rmdir()
    except OSError:
        return False
    return True
