"""The files in deploy/ are what those who read them take: by their own programs, not by a look."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support import deploy_files

pytestmark = pytest.mark.slow  # They need programs that nothing else does.

HOW_TO_GET: Final = {
    "compose-spec": "go install github.com/compose-spec/compose-go/v2/cmd@v2.9.1",
    "systemd-analyze": "apt-get install systemd",
    "uv": "pip install uv",
}
"""The reference implementation of the compose specification; systemd's own check; and uv, which
gets one of Kubernetes' files."""

KUBERNETES_VALIDATE: Final = (
    *("tool", "run", "--quiet", "--from", "kubernetes-validate==1.37.0", "kubernetes-validate"),
    *("--strict", "--kubernetes-version", "1.30"),
)
"""Validates against the schemas that Kubernetes publishes with a release."""


def run(name: str, *arguments: str | Path) -> tuple[int, str]:
    """Run a program: its exit code and its output. Skip without it; in CI that is a failure."""
    program = shutil.which(name)
    if program is None:
        message = f"{name} is not on PATH; get it with `{HOW_TO_GET[name]}`"
        assert not os.environ.get("CI"), message
        pytest.skip(message)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def mistaken(file: Path, folder: Path, right: str, wrong: str) -> Path:
    """A copy of a file with a mistake in it."""
    text = file.read_text("utf-8")
    assert right in text
    copy = folder / file.name
    copy.write_text(text.replace(right, wrong), "utf-8")
    return copy


def composed(file: str | Path) -> tuple[int, str]:
    return run("compose-spec", "-no-interpolation", "-no-path-resolution", file)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the `.env` that the compose file asks for."""
    (tmp_path / ".env").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_compose_file_is_as_the_specification_says(here: Path) -> None:
    code, output = composed(shutil.copy(deploy_files.COMPOSE, here))
    assert code == 0, output
    assert "stop_grace_period" in output


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("stop_grace_period", "stop_grace"),
        ("condition: service_healthy", "condition: service_is_healthy"),
        ("init: false", "init: [false]"),
    ],
)
def test_a_mistake_in_it_is_found(right: str, wrong: str, here: Path) -> None:
    code, output = composed(mistaken(deploy_files.COMPOSE, here, right, wrong))
    assert code != 0, output


def test_kubernetes_takes_its_file() -> None:
    code, output = run("uv", *KUBERNETES_VALIDATE, deploy_files.KUBERNETES)
    assert code == 0, output
    assert "passed for resource deployment/agent" in output


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("readinessProbe", "readinesProbe"),
        ('value: "3300"', "value: 3300"),
        ("matchLabels: {app: agent}", "matchLabels: agent"),
    ],
)
def test_a_mistake_in_that_is_found(right: str, wrong: str, tmp_path: Path) -> None:
    file = mistaken(deploy_files.KUBERNETES, tmp_path, right, wrong)
    code, output = run("uv", *KUBERNETES_VALIDATE, file)
    assert "did not validate for resource deployment/agent" in output
    assert code != 0


def verified(unit: Path, folder: Path) -> tuple[int, str]:
    """What systemd says of the unit, with a Python that exists."""
    file = mistaken(unit, folder, "/opt/agent/%i/.venv/bin/python", sys.executable)
    instance = file.rename(folder / "agent@one.service")
    return run("systemd-analyze", "verify", "--recursive-errors=no", instance)


def test_systemd_takes_its_file(tmp_path: Path) -> None:
    code, output = verified(deploy_files.UNIT, tmp_path)
    assert (code, output) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("KillMode=mixed", "KillMode=main"), ("TimeoutStopSec", "TimeoutStopSecs")],
)
def test_a_mistake_in_the_unit_is_found(right: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "mistaken").mkdir()
    file = mistaken(deploy_files.UNIT, tmp_path / "mistaken", right, wrong)
    _, output = verified(file, tmp_path)
    assert "agent@one.service:" in output
