"""The wheel has `build_aware` and nothing else, and an agent runs with that alone installed."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import NotInstalledError
from build_aware.testbed.environ import environment
from build_aware.testbed.livekit_server import find_binary
from tests.support.paths import ROOT

pytestmark = pytest.mark.xdist_group("package")  # One wheel and one environment for all of them.

DEADLINE_S: Final = 300
"""For one command, on a very busy machine: what it imports is compiled there for the first time."""

INSTALL_S: Final = 300
"""Where nothing is in uv's cache, all packages are downloaded."""

COMMANDS: Final = (
    *("console", "dev", "start", "connect", "download-files"),
    *("build", "rehearse", "builds", "promote", "ramp", "rollback"),
)

TROUBLES: Final = ("misrouted", "outdated", "lost", "cut", "doubled")

AGENT: Final = """
from livekit.agents import JobContext

from build_aware import AgentServer, cli

server = AgentServer()


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
"""

IMPORT_ALL: Final = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"


@pytest.fixture(scope="module")
def uv() -> str:
    found = shutil.which("uv")
    if found is None and os.environ.get("CI"):
        raise FileNotFoundError("uv")
    return found or pytest.skip("uv is not on PATH; scripts/test gets it")


@pytest.fixture(scope="module")
def wheel(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(uv, "build", "--out-dir", str(folder), ".", cwd=ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(uv: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(uv, wheel, tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def livekit_server() -> str:
    try:
        return find_binary()
    except NotInstalledError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of another team: one file."""
    (tmp_path / "my_agent.py").write_text(AGENT)
    return tmp_path


def installed(uv: str, wheel: Path, folder: Path, *options: str) -> Path:
    """Python in a new environment with the wheel and what it depends on, as uv.lock has it."""
    venv = folder / "venv"
    without = ("--no-default-groups", "--no-install-project")
    command = (uv, "sync", "--locked", *without, *options, "--python", sys.executable)
    run(*command, cwd=ROOT, env={"UV_PROJECT_ENVIRONMENT": str(venv)})
    run(uv, "pip", "install", "--no-deps", "--python", str(venv), str(wheel), cwd=folder)
    return venv / "bin" / "python"


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run what installs something, which may need the proxies of this machine."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        check=False,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def say(python: Path, *arguments: str, cwd: Path, **env: str) -> str:
    """Run the environment's Python, and return what it prints."""
    done = subprocess.run(
        [str(python), *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(wheel: Path) -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(archive.read(name))


def required(message: Message, extra: str = "") -> set[str]:
    """The distributions that are required, always or by an extra."""
    marker = f"extra == '{extra}'" if extra else ""
    found = [each.partition(";") for each in message.get_all("Requires-Dist", [])]
    return {re.split(r"[^\w-]", need)[0] for need, _, when in found if when.strip() == marker}


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    package = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "build_aware").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    about = {name for name in names(wheel) if ".dist-info/" in name}
    assert names(wheel) - about == package
    assert {
        "build_aware/py.typed",
        "build_aware/rehearsal/contestants/stock.py",
        "build_aware/rehearsal/eaten/sitecustomize.py",
    } <= package
    assert any(name.endswith("/licenses/LICENSE") for name in about)


def test_it_requires_no_plugin_and_the_rehearsal_is_an_extra(wheel: Path) -> None:
    said = metadata(wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (said["Name"], said["Version"]) == ("build-aware", project["version"])
    assert required(said) == {
        *("livekit-agents", "prometheus-client", "pydantic", "python-dotenv", "typer"),
    }
    assert said.get_all("Provides-Extra") == ["rehearse"]
    assert required(said, "rehearse") == {"matplotlib", "psutil"}


@pytest.mark.slow
def test_its_requirements_are_all_that_it_imports(
    uv: str, python: Path, wheel: Path, tmp_path: Path
) -> None:
    run(uv, "pip", "check", "--python", str(python), cwd=tmp_path)
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in names(wheel)
        if name.endswith(".py") and not re.match("build_aware/(rehearsal|testbed)/", name)
    )
    assert len(modules) > 20
    say(python, "-c", IMPORT_ALL, *modules, cwd=tmp_path)
    public = "from build_aware import AgentServer, Build, Options, cli, current_build"
    say(python, "-c", public, cwd=tmp_path)
    installed = run(uv, "pip", "freeze", "--python", str(python), cwd=tmp_path)
    assert "livekit-agents==" in installed
    assert not re.search("^(livekit-plugins-|matplotlib=)", installed, re.MULTILINE), installed


@pytest.mark.slow
def test_an_agent_of_one_file_knows_its_build_with_the_wheel_alone(
    python: Path, folder: Path
) -> None:
    first = say(python, "my_agent.py", "build", cwd=folder)
    assert re.fullmatch(r"[0-9a-f]{12}\n", first)
    assert say(python, "my_agent.py", "build", "--files", cwd=folder) == "my_agent.py\n"
    assert say(python, "-m", "build_aware", "build", "my_agent.py", cwd=folder) == first
    (folder / "my_agent.py").write_text(AGENT + "\n")
    assert say(python, "my_agent.py", "build", cwd=folder) != first


@pytest.mark.slow
def test_its_help_shows_livekits_commands_and_ours(python: Path, folder: Path) -> None:
    said = say(python, "my_agent.py", "--help", cwd=folder)
    commands = re.findall(r"^  ([a-z-]+)  ", said.partition("Commands:")[2], re.MULTILINE)
    assert commands == list(COMMANDS)


@pytest.mark.slow
@pytest.mark.long
def test_with_the_extra_that_agent_is_rehearsed_to_a_verdict(
    uv: str,
    wheel: Path,
    folder: Path,
    livekit_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    python = installed(uv, wheel, tmp_path_factory.mktemp("fresh"), "--extra", "rehearse")
    small = ("--deploys", "1", "--workers", "1", "--sessions", "3", "--patience", "60")
    command = ("my_agent.py", "rehearse", *small, "--timeline", "picture.png")
    said = say(python, *command, cwd=folder, LIVEKIT_SERVER_BIN=livekit_server)
    heading, verdict = said.splitlines()
    assert heading.split()[: 3 + len(TROUBLES)] == ["worker", "asked", "served", *TROUBLES]
    assert verdict.split()[: 3 + len(TROUBLES)] == ["ours", "3", "3", *("0" for _ in TROUBLES)]
    assert (folder / "picture.png").is_file()
