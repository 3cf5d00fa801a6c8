"""Images, built for real: with docker where an engine answers, elsewhere with buildah.

Neither fetches a base from a registry of images: `IMAGE_BASE` names a tar file with a root file
system that has Python. The other base, to build on, has what this machine needs to reach PyPI.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

from build_aware.testbed import NotInstalledError, StartError
from tests.support.paths import ROOT

BASE_VARIABLE: Final = "IMAGE_BASE"
"""The variable that names the tar file of the base; `scripts/test --slow` sets it."""

HOW_TO_GET_THEM: Final = "`scripts/test --slow tests/image` gets what is missing"

CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""Where Debian keeps the certificates that it trusts, in this machine and in the base."""

INDEX_VARIABLES: Final = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    *("UV_EXTRA_INDEX_URL", "UV_SYSTEM_CERTS"),
)
"""Where this machine's pip and uv find packages, if it says so."""

LARGE_FILES: Final = Path("/var/tmp")  # noqa: S108 for files that are large and live longer
BUILD_S: Final = 1200
"""For one command, on a very busy machine."""


class Engine(Protocol):
    """What builds images."""

    def import_base(self, tar: Path, tag: str) -> None:
        """Make an image of a root file system."""

    def build(self, context: Path, tag: str, args: Mapping[str, str]) -> None:
        """Build an image from a Dockerfile."""

    def config(self, tag: str) -> dict[str, Any]:
        """How the image says that it is to be run."""

    def save(self, tag: str, tar: Path) -> None:
        """Write the image into a file, in docker's format."""

    def unpack(self, tag: str, folder: Path) -> Path:
        """The root file system of a new container; `folder` is new, and may be used for it."""

    def close(self) -> None:
        """Remove all images and containers that were made."""


class Docker:
    """An engine of docker's."""

    def __init__(self) -> None:
        self._tags: list[str] = []

    def import_base(self, tar: Path, tag: str) -> None:
        """Make an image of a root file system."""
        self._tags.append(tag)
        run("docker", "import", str(tar), tag)

    def build(self, context: Path, tag: str, args: Mapping[str, str]) -> None:
        """Build an image from a Dockerfile."""
        self._tags.append(tag)
        run("docker", "build", *build_args(args), "-t", tag, str(context))

    def config(self, tag: str) -> dict[str, Any]:
        """How the image says that it is to be run."""
        config: dict[str, Any] = json.loads(run("docker", "image", "inspect", tag))[0]["Config"]
        return config

    def save(self, tag: str, tar: Path) -> None:
        """Write the image into a file, in docker's format."""
        run("docker", "save", "-o", str(tar), tag)

    def unpack(self, tag: str, folder: Path) -> Path:
        """The root file system of a new container."""
        folder.mkdir()
        container = run("docker", "create", tag).strip()
        tar = folder.with_suffix(".tar")
        run("docker", "export", "-o", str(tar), container)
        run("docker", "rm", container)
        run("tar", "-xpf", str(tar), "--numeric-owner", "-C", str(folder))
        tar.unlink()
        return folder

    def close(self) -> None:
        """Remove all images that were made."""
        run("docker", "image", "rm", "--force", *self._tags)


class Buildah:
    """Debian's buildah, with a storage of its own.

    Args:
        folder: where the storage is. It is as large as all images together.
    """

    def __init__(self, folder: Path) -> None:
        # With vfs each step copies all files, but it works everywhere.
        driver = "overlay" if overlay_works(folder) else "vfs"
        storage = ("--root", f"{folder}/storage", "--runroot", f"{folder}/run")
        self._buildah = ("buildah", *storage, "--storage-driver", driver)

    def import_base(self, tar: Path, tag: str) -> None:
        """Make an image of a root file system."""
        container = run(*self._buildah, "from", "scratch").strip()
        run(*self._buildah, "add", container, str(tar), "/")
        run(*self._buildah, "commit", "--rm", "--format", "docker", container, tag)

    def build(self, context: Path, tag: str, args: Mapping[str, str]) -> None:
        """Build an image from a Dockerfile; OCI's format has no health check."""
        how = ("--layers", "--isolation", "chroot", "--format", "docker", *build_args(args))
        run(*self._buildah, "build", *how, "-t", tag, str(context))

    def config(self, tag: str) -> dict[str, Any]:
        """How the image says that it is to be run."""
        about = json.loads(run(*self._buildah, "inspect", "--type", "image", tag))
        config: dict[str, Any] = about["Docker"]["config"]
        return config

    def save(self, tag: str, tar: Path) -> None:
        """Write the image into a file, in docker's format."""
        run(*self._buildah, "push", tag, f"docker-archive:{tar}")

    def unpack(self, tag: str, folder: Path) -> Path:
        """The root file system of a new container."""
        container = run(*self._buildah, "from", tag).strip()
        return Path(run(*self._buildah, "mount", container).strip())

    def close(self) -> None:
        """Give back what is mounted; the rest are files in the folder."""
        run(*self._buildah, "umount", "--all")


@dataclass(frozen=True)
class Layer:
    """One layer of an image: the tar file with what it adds."""

    tar: Path

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        with tarfile.open(self.tar) as tar:
            return sum(member.size for member in tar)

    def files(self) -> set[str]:
        """The names of all files and links in it, from the root."""
        with tarfile.open(self.tar) as tar:
            return {member.name.removeprefix("./") for member in tar if not member.isdir()}


@dataclass(frozen=True)
class Image:
    """An image, and the files of a container of it.

    Attributes:
        tag: its name where it was built.
        config: how it says that it is to be run.
        rootfs: the root file system of a container.
    """

    tag: str
    config: dict[str, Any]
    rootfs: Path

    @property
    def command(self) -> tuple[str, ...]:
        """What a container of it runs."""
        return (*(self.config.get("Entrypoint") or ()), *(self.config.get("Cmd") or ()))

    @property
    def env(self) -> dict[str, str]:
        """The environment that it gives to a container."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])


class Images:
    """Builds images, on bases that are made once.

    Args:
        folder: where files go; they may be large.

    Attributes:
        folder: the same.
        engine: what builds them.
        bases: the tags of the bases, by the build argument that names them.

    Raises:
        NotInstalledError: something that this takes is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = find_base()
        self.engine: Engine = Docker() if docker_answers() else Buildah(folder)
        self._name = f"localhost/{folder.name}"
        self.bases = {"BUILD_BASE": f"{self._name}/build-base", "BASE": f"{self._name}/base"}
        self.engine.import_base(base, self.bases["BASE"])
        self._build_on_base()

    def build(self, context: Path, name: str, **args: str) -> Image:
        """Build the Dockerfile of a folder as it is, on the two bases.

        Args:
            context: the folder.
            name: a name for the image, other than any before.
            args: more build arguments.
        """
        tag = f"{self._name}/{name}"
        self.engine.build(context, tag, self.bases | args)
        rootfs = self.engine.unpack(tag, self.folder / f"rootfs-{name}")
        return Image(tag, self.engine.config(tag), rootfs)

    def derive(self, image: Image, name: str, *lines: str, **scripts: str) -> Image:
        """Build an image on another one.

        Args:
            image: the other one.
            name: as above.
            lines: its Dockerfile, from the second line on.
            scripts: the programs that it can copy, by their name without `.sh`.
        """
        context = self.folder / f"context-{name}"
        context.mkdir()
        for script, text in scripts.items():
            (context / f"{script}.sh").write_text(text)
            (context / f"{script}.sh").chmod(0o755)
        (context / "Dockerfile").write_text("\n".join((f"FROM {image.tag}", *lines, "")))
        return self.build(context, name)

    def layers(self, image: Image) -> list[Layer]:
        """The layers of an image, from below; those of the base are the first."""
        folder = self.folder / f"saved-{image.tag.rpartition('/')[2]}"
        folder.mkdir()
        self.engine.save(image.tag, folder / "image.tar")
        run("tar", "-xf", str(folder / "image.tar"), "-C", str(folder))
        (folder / "image.tar").unlink()
        (manifest,) = json.loads((folder / "manifest.json").read_text("utf-8"))
        return [Layer((folder / name).resolve()) for name in manifest["Layers"]]

    def _build_on_base(self) -> None:
        """Build the base to build on: it has what this machine needs to reach PyPI."""
        context = self.folder / "context-build-base"
        context.mkdir()
        env = {name: os.environ[name] for name in INDEX_VARIABLES if name in os.environ}
        lines = [f"FROM {self.bases['BASE']}"]
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, context)
            lines.append(f"COPY {CERTIFICATES.name} {CERTIFICATES}")
            env |= {"PIP_CERT": str(CERTIFICATES), "UV_SYSTEM_CERTS": "1"}
        lines += [f'ENV {name}="{value}"' for name, value in env.items()]
        (context / "Dockerfile").write_text("\n".join((*lines, "")))
        self.engine.build(context, self.bases["BUILD_BASE"], {})


@contextlib.contextmanager
def building() -> Iterator[Images]:
    """Where images are built; all of them are gone after it.

    Raises:
        NotInstalledError: something that this takes is missing.
    """
    folder = LARGE_FILES / f"images-{uuid4().hex[:8]}"  # A part of names, which are in lower case.
    folder.mkdir(mode=0o700)
    try:
        images = Images(folder)
        try:
            yield images
        finally:
            images.engine.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_base() -> Path:
    """The tar file of the base.

    Raises:
        NotInstalledError: it is not there, or nobody can build an image on it.
    """
    if os.geteuid() != 0:
        raise NotInstalledError("images are built and run as root, and this is another user")
    if not docker_answers() and shutil.which("buildah") is None:
        raise NotInstalledError(
            f"no docker engine answers and buildah is not on PATH; {HOW_TO_GET_THEM}"
        )
    named = os.environ.get(BASE_VARIABLE, "")
    if not Path(named).is_file():
        raise NotInstalledError(
            f"{BASE_VARIABLE}={named!a}: expected a tar file with a root file system that has "
            f"Python; {HOW_TO_GET_THEM}"
        )
    return Path(named)


def docker_answers() -> bool:
    """Whether there is docker, and an engine behind it."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def overlay_works(folder: Path) -> bool:
    """Whether files there can be laid over others, which the file system of a container cannot."""
    parts = {name: folder / f"probe-{name}" for name in ("lower", "upper", "work", "merged")}
    for part in parts.values():
        part.mkdir()
    dirs = ",".join(f"{name}dir={parts[name]}" for name in ("lower", "upper", "work"))
    mount = ("mount", "-t", "overlay", "overlay", "-o", dirs, str(parts["merged"]))
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if mounted:
        run("umount", str(parts["merged"]))
    return mounted


def checkout(folder: Path) -> Path:
    """A copy of this checkout, without what tools have made in it, in a new folder."""
    made = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "dist")
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*made)))


def build_args(args: Mapping[str, str]) -> list[str]:
    """Build arguments as both engines take them."""
    return [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]


def run(*command: str) -> str:
    """Run a command, which may need the proxies of this machine, and return what it says.

    Raises:
        StartError: it has failed.
    """
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, errors="replace", timeout=BUILD_S
    )
    if done.returncode != 0:
        raise StartError(f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout
