"""PID 1, without a container."""

from __future__ import annotations

import os
import subprocess
from typing import Final

import pytest

NAMESPACE: Final = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Makes the command behind it PID 1, as a container does."""


def need_namespaces() -> None:
    """Skip the test where there are none; in CI that is a failure."""
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs PID namespaces, which take Linux and root: {error}")
