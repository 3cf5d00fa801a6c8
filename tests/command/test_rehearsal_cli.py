"""`rehearse` on the command line: what it refuses, each in one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

from build_aware.testbed.environ import environment
from build_aware.testbed.livekit_server import BINARY_VARIABLE
from tests.support.copies import copy_of_the_agent
from tests.support.paths import ROOT

Done: TypeAlias = "subprocess.CompletedProcess[str]"

USAGE = 2


def rehearse(*arguments: str, folder: Path = ROOT, **env: str) -> Done:
    return subprocess.run(
        [sys.executable, "agent.py", "rehearse", *arguments],
        cwd=folder,
        # Never a real server: these are about what comes before it.
        env=environment(**({BINARY_VARIABLE: sys.executable} | env)),
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def problem(done: Done, command: str = "rehearse") -> str:
    assert (done.returncode, done.stdout) == (USAGE, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{command}: ")
    return line.removeprefix(f"{command}: ")


def test_a_missing_livekit_server_is_one_line_that_tells_how_to_get_it() -> None:
    text = problem(rehearse(LIVEKIT_SERVER_BIN="", PATH="/nowhere"))
    assert text.startswith("livekit-server is not on PATH")
    assert "https://get.livekit.io" in text
    assert BINARY_VARIABLE in text


def test_a_wrong_path_of_livekit_server_is_named() -> None:
    text = problem(rehearse(LIVEKIT_SERVER_BIN="/nowhere/livekit-server"))
    assert text.startswith(f"{BINARY_VARIABLE}='/nowhere/livekit-server'")


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        (("--worker", "best"), "--worker 'best': expected ours, stock, naive, naive-false"),
        (("--worker", "missing.py"), "--worker 'missing.py': expected"),
        (("--stop", "politely"), "--stop 'politely': expected sigterm, group, twice, eaten"),
        (("--deploys", "0"), "--deploys 0: expected at least 1"),
        (("--length", "3", "1"), "--length 3 1: expected"),
        (("--timeline", "picture.jpg"), "--timeline picture.jpg: expected"),
        (("--json", "nowhere/x.json"), "nowhere/x.json: its folder does not exist"),
    ],
)
def test_what_is_not_possible_is_one_line(arguments: tuple[str, ...], begin: str) -> None:
    assert problem(rehearse(*arguments)).startswith(begin)


def test_an_unknown_option_is_named() -> None:
    done = rehearse("--session", "5")
    assert done.returncode == USAGE
    assert "--session" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_tells_all_options() -> None:
    done = rehearse("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in (
        *("--worker", "--all", "--deploys", "--workers", "--sessions", "--length", "--overlap"),
        *("--stop", "--target-first", "--untargeted", "--kill-one", "--patience", "--grace"),
        *("--seed", "--json", "--timeline", "--logs"),
    ):
        assert f"  {option} " in done.stdout


@pytest.mark.parametrize("module", ["psutil", "matplotlib"])
def test_a_missing_dependency_is_one_line_that_tells_what_to_run(
    tmp_path: Path, module: str
) -> None:
    folder = copy_of_the_agent(tmp_path)
    (folder / f"{module}.py").write_text(f"raise ModuleNotFoundError({module!r}, name={module!r})")
    done = rehearse("--timeline", "picture.svg", folder=folder)
    text = done.stderr.strip()
    assert done.returncode == USAGE, done
    assert module in text
    assert "build-aware[rehearse]" in text
    assert len(text.splitlines()) == 1
