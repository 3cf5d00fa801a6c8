"""The long rehearsal: `uv run python -m bench.rehearsal`. 200 sessions over 5 deploys of ours.

It takes about three minutes. Exit code 0 means that no session went wrong and that no old
worker lingered. More arguments go to `rehearse`, such as `--stop group` or `--timeline FILE`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.paths import ROOT

SESSIONS: Final = 200
DEPLOYS: Final = 5
LINGERING_S: Final = 2.0


def main() -> int:
    """Run it, and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "verdict.json"
        command = [sys.executable, "agent.py", "rehearse", "--json", str(file)]
        command += ["--sessions", str(SESSIONS), "--deploys", str(DEPLOYS), *sys.argv[1:]]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not file.exists():
            return code
        (verdict,) = json.loads(file.read_text("utf-8"))["contestants"]
    builds = {
        remark["build"]
        for session in verdict["seen"]["sessions"]
        for visit in session["visits"]
        for remark in visit["heard"]
    } - {None}
    if len(builds) <= DEPLOYS:
        print(
            f"only {sorted(builds)} ever answered: this machine is too slow for {DEPLOYS} deploys"
        )
        code = code or 1
    slow = {
        worker: seconds
        for worker, seconds in verdict["lingering"].items()
        if seconds is None or seconds >= LINGERING_S
    }
    print(f"lingering: {f'MISSED by {slow}' if slow else 'ok'} (target < {LINGERING_S:g} s)")
    return code or int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
