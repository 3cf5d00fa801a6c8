"""The deploy of docs/deploy.md with docker compose stops the old agent only for a new one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

DEPLOY: Final = (ROOT / "docs" / "deploy.md").read_text("utf-8")

DOCKER: Final = """#!/bin/sh
echo "$*" >>calls
case "$*" in
*" build agent") exit "$BUILD" ;;
*" ps --quiet agent") cat agents ;;
*" up "*) [ "$UP" = 0 ] && echo new-1 >>agents; exit "$UP" ;;
inspect*) echo "$HEALTH" ;;
esac
"""
"""A docker that notes what it is told, and whose agents are the lines of a file."""

NOT_FOR_LONG: Final = """#!/bin/sh
shift
exec "$TIMEOUT" 1 "$@"
"""
"""A `timeout` for what never happens."""


def deploy(folder: Path, **happens: str) -> tuple[int, list[str]]:
    """Type the deploy; returns its exit code, and what docker was told but for its questions."""
    (block,) = (
        each for each in re.findall(r"```sh\n(.*?)```", DEPLOY, re.DOTALL) if "--scale" in each
    )
    (folder / "agents").write_text("old-1\nold-2\n")
    (folder / "docker").write_text(DOCKER)
    if happens.get("HEALTH"):
        (folder / "timeout").write_text(NOT_FOR_LONG)
    for program in ("docker", "timeout"):
        if (folder / program).exists():
            (folder / program).chmod(0o755)
    found = subprocess.run(["which", "timeout"], check=True, capture_output=True, text=True)
    env = {
        "BUILD": "0",
        "UP": "0",
        "HEALTH": "healthy",
        "TIMEOUT": found.stdout.strip(),
        **happens,
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    done = subprocess.run(["sh", "-c", block], cwd=folder, env=env, check=False)
    calls = (folder / "calls").read_text().splitlines()
    return done.returncode, [call for call in calls if not call.startswith("inspect")]


def test_the_old_ones_are_stopped_when_the_new_one_is_healthy(tmp_path: Path) -> None:
    code, calls = deploy(tmp_path)
    assert code == 0
    assert "--scale agent=3 agent" in next(call for call in calls if " up " in call)
    assert calls[-2:] == ["stop old-1 old-2", "rm old-1 old-2"]


@pytest.mark.parametrize("happens", [{"BUILD": "1"}, {"UP": "1"}, {"HEALTH": "starting"}])
def test_they_go_on_when_it_does_not_start(happens: dict[str, str], tmp_path: Path) -> None:
    code, calls = deploy(tmp_path, **happens)
    assert code != 0
    assert not [call for call in calls if call.startswith(("stop", "rm"))]
