"""Becomes PID 1 of a container: run by `containers`, in new PID and mount namespaces.

What an engine does: it mounts what each container has, changes the root, gives up its rights, and
turns into the container's command. It imports nothing of this repository: that takes seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom")


def main() -> None:
    spec = json.loads(sys.argv[1])
    root = Path(spec["rootfs"])
    mount("--bind", str(root), str(root))
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/sys", str(root / "sys"))
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    (root / "dev" / "shm").mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev" / "shm"))
    if spec["read_only"]:
        mount("-o", "remount,bind,ro", str(root))
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp"))
    os.chroot(root)
    os.chdir(spec["cwd"])
    os.setgroups([])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    # Python ignores these, and what is ignored stays so.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    env = spec["env"] | {name: os.environ[name] for name in spec["keep"]}
    os.execvpe(spec["command"][0], spec["command"], env)  # noqa: S606


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
