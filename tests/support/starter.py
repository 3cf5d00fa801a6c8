"""A project in the manner of LiveKit's starter, to which this package is a wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.support.foreign import AGENTS, STARTER, ours
from tests.support.paths import ROOT

DOCKERFILE: Final = """\
ARG BUILD_BASE
FROM ${BUILD_BASE}
ENV PYTHONUNBUFFERED=1
# The starter's base has it.
RUN python3 -m venv /opt/uv \\
    && /opt/uv/bin/pip install uv==0.13.9 \\
    && mv /opt/uv/bin/uv /usr/local/bin/uv
RUN useradd --create-home --home-dir /app --shell /sbin/nologin --uid 10001 appuser
USER appuser
WORKDIR /app
COPY --chown=appuser:appuser pyproject.toml uv.lock ./
COPY --chown=appuser:appuser vendor ./vendor
RUN mkdir -p src
RUN uv sync --locked --no-dev --compile-bytecode --no-cache
COPY --chown=appuser:appuser . .
RUN uv run --no-dev src/agent.py download-files
HEALTHCHECK CMD ["/app/.venv/bin/python", "-c", "\\
import http.client, os; \\
port = int(os.environ.get('AGENT_HEALTH_PORT') or 8081); \\
livekit = http.client.HTTPConnection('127.0.0.1', port); \\
livekit.request('GET', '/'); \\
raise SystemExit(livekit.getresponse().status != 200)"]
CMD ["/app/.venv/bin/python", "src/agent.py", "start"]
"""

OF_THIS_REPOSITORY: Final = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_LOCKED")
"""Variables of uv's that are about another project, where the tests run in CI or in its shell."""

IGNORED: Final = "**/__pycache__\n*.pyc\n.venv\n.git\n.env\n.env.*\n"

PROJECT: Final = """\
[project]
name = "my-agent"
version = "1.0.0"
requires-python = ">=3.11"
dependencies = ["build-aware", "livekit-agents", "python-dotenv"]

[dependency-groups]
dev = ["iniconfig"]

[tool.uv.sources]
build-aware = {{ path = "vendor/{wheel}" }}

[tool.uv]
# The versions that this repository is tested with.
constraint-dependencies = {constraints}
"""


def write(folder: Path) -> Path:
    """Write the project into a new folder, with a wheel of this checkout, and lock it."""
    (folder / "src").mkdir(parents=True)
    source = ours((AGENTS / f"{STARTER.name}.py").read_text("utf-8"))
    # Its port in the code is for tests that run many agents side by side.
    assert "AgentServer(port=0, " in source
    (folder / "src" / "agent.py").write_text(source.replace("port=0, ", ""))
    shutil.copy(AGENTS / "rules.py", folder / "src")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / ".dockerignore").write_text(IGNORED)
    (folder / ".gitignore").write_text(IGNORED)
    (folder / ".env.local").write_text("LIVEKIT_API_SECRET=nobody-may-ship-this\n")
    uv("build", "--wheel", "--out-dir", str(folder / "vendor"), str(ROOT), cwd=folder)
    (folder / "vendor" / ".gitignore").unlink()
    (wheel,) = (folder / "vendor").glob("*.whl")
    (folder / "pyproject.toml").write_text(
        PROJECT.format(wheel=wheel.name, constraints=json.dumps(locked(), indent=4))
    )
    uv("lock", cwd=folder)
    return folder


def locked() -> list[str]:
    """What this repository is locked to."""
    how = ("--frozen", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-project")
    return uv("export", *how, "--quiet", cwd=ROOT).splitlines()


def said(folder: Path, *command: str) -> str:
    """What `python src/agent.py` says, as its team runs it."""
    how = ("run", "--quiet", "--locked", "--no-dev", "python", "src/agent.py")
    return uv(*how, *command, cwd=folder)


def uv(*arguments: str, cwd: Path) -> str:
    """Run uv, and return what it prints."""
    env = {name: value for name, value in os.environ.items() if name not in OF_THIS_REPOSITORY}
    done = subprocess.run(
        ["uv", *arguments], cwd=cwd, env=env, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
