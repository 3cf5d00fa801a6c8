"""The files in `deploy/`, as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.paths import ROOT

FOLDER: Final = ROOT / "deploy"
COMPOSE: Final = FOLDER / "compose.yaml"
KUBERNETES: Final = FOLDER / "kubernetes.yaml"
UNIT: Final = FOLDER / "agent@.service"


def compose(service: str = "agent") -> dict[str, Any]:
    """A service of the compose file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"][service]
    return found


def deployment() -> dict[str, Any]:
    """The Deployment of the file for Kubernetes."""
    found: dict[str, Any] = yaml.safe_load(KUBERNETES.read_text("utf-8"))
    return found


def service(path: Path = UNIT) -> dict[str, list[str]]:
    """The settings of the systemd unit, of all sections; a setting may come more than once."""
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found
