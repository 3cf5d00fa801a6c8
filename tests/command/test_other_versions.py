"""The oldest livekit-agents that we allow, and the newest there is, beside the locked one.

Each gets a virtual environment of its own, outside the checkout. There the checks of private names
run, workers against a fake LiveKit, and agents of others with real calls. The assistant of this
repository is not tried: it uses what the oldest release does not have.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed.environ import environment
from tests.support.paths import ROOT

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "build-aware-agent"

TESTED: Final = (
    "tests/unit/test_livekit_private.py",
    "tests/wire/test_runner.py",
    "tests/e2e/test_foreign_agents.py::"
    "test_its_build_serves_goes_on_after_two_signals_and_leaves_with_the_last_user",
)

LONGEST_S: Final = 900
"""How long it may take, on a busy machine."""

INDEX: Final = "https://pypi.org/pypi/livekit-agents/json"


def oldest() -> str:
    """The oldest release that pyproject.toml allows."""
    found = re.search(r'"livekit-agents>=([\d.]+),', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert found is not None
    return found[1]


def newest() -> str:
    """The newest release that the package index has; the locked one where it cannot be asked."""
    try:
        with urllib.request.urlopen(INDEX, timeout=30) as answer:
            return str(json.load(answer)["info"]["version"])
    except OSError:
        return importlib.metadata.version("livekit-agents")


def run(*command: str, **env: str) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"


def python_with(version: str) -> str:
    """The Python of an environment that has this release of livekit-agents."""
    folder = CACHE / "other-versions" / f"{version}-{sys.version_info.major}.{sys.version_info[1]}"
    python = str(folder / "bin" / "python")
    run("uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder))
    run(
        *("uv", "pip", "install", "--quiet", "--python", python, "--compile-bytecode"),
        *("--requirements", "pyproject.toml", "--extra", "rehearse", "--group", "tests"),
        f"livekit-agents=={version}",
    )
    return python


@pytest.mark.slow
@pytest.mark.timeout(2 * LONGEST_S)
@pytest.mark.parametrize("which", [oldest, newest])
def test_another_livekit_agents_does_as_well(which: object) -> None:
    assert callable(which)
    version = which()
    if version == importlib.metadata.version("livekit-agents"):
        return  # This one runs the whole suite already.
    python = python_with(version)
    run(python, "-m", "pytest", "-q", *TESTED, CI="true")
