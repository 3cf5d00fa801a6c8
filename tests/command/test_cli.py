from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import typer
from livekit.agents import AgentServer
from livekit.agents.cli import _legacy

from build_aware.cli import env as cli_env
from build_aware.cli.app import app
from build_aware.testbed.environ import environment
from tests.support.copies import content_id, copy_of_the_agent
from tests.support.paths import ROOT

Done: TypeAlias = "subprocess.CompletedProcess[str]"

CONFIGURATION: Final = 2
DEADLINE_S: Final = 60
SECRET: Final = "do-not-print-me"  # noqa: S105


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the agent, without the checkout and the `.env.local` of a developer."""
    return copy_of_the_agent(tmp_path_factory.mktemp("agent"))


def run(folder: Path, *arguments: str, **env: str) -> Done:
    return subprocess.run(
        [sys.executable, "agent.py", *arguments],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE_S,
    )


def problems(done: Done) -> list[str]:
    """The problems that a command ended with: one line each on stderr, and nothing else."""
    assert done.returncode == CONFIGURATION, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("build-aware: ") for line in lines), done.stderr
    return [line.removeprefix("build-aware: ") for line in lines]


def assert_hidden(done: Done, secrets: Iterable[str] = (SECRET,)) -> None:
    for secret in secrets:
        assert secret not in done.stdout + done.stderr


# build


def test_build_prints_the_content_id(folder: Path) -> None:
    done = run(folder, "build")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{content_id(folder)}\n", "")


def test_running_the_agent_does_not_change_its_build(tmp_path: Path) -> None:
    folder = copy_of_the_agent(tmp_path)
    before = content_id(folder)
    done = run(folder, "build", PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX="")
    assert list(folder.rglob("__pycache__"))
    assert done.stdout == f"{before}\n"


def test_build_prints_all_that_is_known_as_json(folder: Path) -> None:
    done = run(folder, "build", "--json", LIVEKIT_AGENT_DEPLOYMENT="blue")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    facts = json.loads(line)
    assert list(facts) == ["id", "version", "commit", "dirty", "deployment", "origin"]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert facts == {
        "id": content_id(folder),
        "version": version[1],
        "commit": None,
        "dirty": None,
        "deployment": "blue",
        "origin": "files",
    }


def test_the_environment_tells_the_id_and_the_commit(folder: Path) -> None:
    known = {"AGENT_BUILD_ID": "release-10", "AGENT_BUILD_COMMIT": "0123abc"}
    assert run(folder, "build", **known).stdout == "release-10\n"
    facts = json.loads(run(folder, "build", "--json", **known).stdout)
    assert (facts["id"], facts["commit"], facts["origin"]) == ("release-10", "0123abc", "env")


@pytest.mark.parametrize("illegal", ["re lease", "-release", "release/10", "a" * 64])
def test_an_illegal_build_id_is_one_clear_line(folder: Path, illegal: str) -> None:
    (problem,) = problems(run(folder, "build", AGENT_BUILD_ID=illegal))
    assert problem.startswith(f"AGENT_BUILD_ID='{illegal}': expected 1 to 63 letters")


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    folder = copy_of_the_agent(tmp_path)
    (folder / "uv.lock").unlink()
    (problem,) = problems(run(folder, "build"))
    assert "uv.lock is missing" in problem
    assert "AGENT_BUILD_ID" in problem
    assert run(folder, "build", AGENT_BUILD_ID="release-10").stdout == "release-10\n"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("release-10", 0),
        ("any", 0),
        ('["other", "release-10"]', 0),
        ('{"id": "release-10", "fallback": "any", "wait": 5}', 0),
        ('{"agent_build": "release-10", "user": 7}', 0),
        ("release-1", 1),
        ('{"agent_build": ["other"]}', 1),
        ('{"id": "other", "fallback": "any"}', 1),
    ],
)
def test_match_tells_by_exit_code_whether_this_build_serves_a_target(
    folder: Path, target: str, code: int
) -> None:
    done = run(folder, "build", "--match", target, AGENT_BUILD_ID="release-10")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(
    "target",
    [
        "",
        '["a"',
        '{"agent_build": 5}',
        "[" * 10_000,
        '["über\n", 1]',
    ],
    ids=lambda target: target[:20],
)
def test_match_says_what_is_wrong_with_a_malformed_target(folder: Path, target: str) -> None:
    (problem,) = problems(run(folder, "build", "--match", target))
    assert problem.startswith("--match ")
    assert 'expected "agent_build" as a build name' in problem


# Bad configuration


def test_start_with_nothing_set_names_every_problem(folder: Path) -> None:
    named = [problem.split()[0] for problem in problems(run(folder, "start"))]
    assert named == ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "OPENAI_API_KEY"]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("dev", ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]),
        ("connect", ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "OPENAI_API_KEY"]),
    ],
)
def test_other_commands_name_what_they_need(folder: Path, command: str, missing: list[str]) -> None:
    assert [problem.split()[0] for problem in problems(run(folder, command))] == missing


def test_no_secret_is_printed_beside_a_problem(folder: Path) -> None:
    secrets = {
        name: f"{SECRET}-{name}"
        for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "OPENAI_API_KEY")
    }
    done = run(folder, "start", AGENT_MODELS="clever", **secrets)
    assert [re.split("[ =]", problem)[0] for problem in problems(done)] == [
        "LIVEKIT_URL",
        "AGENT_MODELS",
    ]
    assert_hidden(done)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--api-secret", SECRET, "--url", "ws://localhost:7880"),
        (f"--api-secret={SECRET}", "--url=ws://localhost:7880"),
    ],
)
def test_livekits_connection_flags_count_as_settings(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    done = run(folder, "start", *arguments, AGENT_MODELS="offline")
    assert [problem.split()[0] for problem in problems(done)] == ["LIVEKIT_API_KEY"]
    assert_hidden(done)


def test_env_local_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    folder = copy_of_the_agent(tmp_path)
    (folder / ".env.local").write_text("AGENT_BUILD_ID=from-file\nAGENT_BUILD_COMMIT=0123abc\n")
    # A test bed shields what it starts from the `.env.local` of a developer.
    assert json.loads(run(folder, "build", "--json").stdout)["origin"] == "files"

    read = {"PYTHON_DOTENV_DISABLED": ""}
    facts = json.loads(run(folder, "build", "--json", **read).stdout)
    assert (facts["id"], facts["commit"]) == ("from-file", "0123abc")
    facts = json.loads(run(folder, "build", "--json", AGENT_BUILD_ID="from-env", **read).stdout)
    assert (facts["id"], facts["commit"]) == ("from-env", "0123abc")


def _nul(file: Path) -> None:
    file.write_bytes(b"AGENT_BUILD_ID=a\0b\n")


def _not_utf_8(file: Path) -> None:
    file.write_bytes("AGENT_BUILD_ID=\u00fcber\n".encode("utf-16"))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (_nul, "holds a NUL character"),
        (_not_utf_8, "is not UTF-8 text"),
        (os.mkfifo, "is not a regular file"),
        (Path.mkdir, "is not a regular file"),
    ],
)
def test_an_env_local_that_cannot_be_read_is_one_clear_line(
    make: Callable[[Path], None], found: str, tmp_path: Path
) -> None:
    folder = copy_of_the_agent(tmp_path)
    file = folder / ".env.local"
    make(file)
    (problem,) = problems(run(folder, "build", PYTHON_DOTENV_DISABLED=""))
    assert problem.startswith(f"{file} {found}")


def test_an_env_local_that_may_not_be_read_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Root, as which CI runs, may read everything.
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(cli_env, "load_dotenv", refuse)
    with pytest.raises(SystemExit) as ended:
        cli_env.load_env(tmp_path / ".env.local")
    assert ended.value.code == CONFIGURATION
    assert capsys.readouterr().err == (
        f"build-aware: {tmp_path / '.env.local'} cannot be read: Permission denied\n"
    )


# Help


def test_help_lists_livekits_commands_and_ours(folder: Path) -> None:
    done = run(folder, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = re.findall(r"^  ([a-z][a-z-]+)  ", done.stdout, re.MULTILINE)
    assert {"console", "dev", "start", "connect", "download-files", "build", "rehearse"} <= set(
        listed
    )


def test_without_a_command_help_is_shown(folder: Path) -> None:
    done = run(folder)
    assert done.stdout + done.stderr == run(folder, "--help").stdout


def test_an_unknown_command_is_an_error_that_names_it(folder: Path) -> None:
    done = run(folder, "strat")
    assert done.returncode == CONFIGURATION
    assert "'strat'" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_of_livekits_commands_are_there() -> None:
    theirs = typer.main.get_group(_legacy._build_cli(AgentServer()))
    assert set(theirs.commands) <= set(typer.main.get_group(app).commands)


def test_help_of_the_console_names_its_options_and_those_of_livekits(folder: Path) -> None:
    done = run(folder, "console", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    theirs = typer.main.get_group(_legacy._build_cli(AgentServer())).commands["console"]
    options = {name for parameter in theirs.params for name in parameter.opts}
    assert "--text" in options
    assert options - set(re.findall(r"--[a-z-]+", done.stdout)) == set()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--text", "--record"), "'--record'"),
        (("--texts", "--text"), "'--texts'"),
        (("--text", "hello"), "'hello'"),
        (("--text", "--log-level", "loud"), "'loud'"),
    ],
)
def test_what_the_text_console_does_not_know_is_one_clear_line(
    folder: Path, arguments: tuple[str, ...], found: str
) -> None:
    (problem,) = problems(run(folder, "console", *arguments))
    assert found in problem


@pytest.mark.parametrize("command", ["start", "dev"])
def test_help_of_a_livekit_command_needs_no_settings(folder: Path, command: str) -> None:
    done = run(folder, command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"agent.py {command}" in done.stdout
    assert "--api-secret" in done.stdout
    assert "Traceback" not in done.stderr


# An agent that others wrote


THEIRS: Final = """
import os

import livekit.agents
from livekit.agents import JobContext

from build_aware import AgentServer, cli

# As `load_dotenv()` does it.
os.environ["LIVEKIT_URL"] = "ws://localhost:1"
os.environ["LIVEKIT_API_KEY"] = "the-api-key"

server = AgentServer(api_secret="do-not-print-me", drain_timeout=60)


@server.rtc_session(agent_name="theirs")
async def serve(ctx: JobContext) -> None: ...
"""

RUNS_ITSELF: Final = """

if __name__ == "__main__":
    cli.run_app(server)
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of somebody else's: `agent.py` runs itself, `plain.py` does not."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "requirements.txt").write_text("build-aware\n")
    (folder / "agent.py").write_text(THEIRS + RUNS_ITSELF)
    (folder / "plain.py").write_text(THEIRS)
    stock = THEIRS.replace("AgentServer(api", "livekit.agents.AgentServer(api")
    (folder / "stock.py").write_text(stock + RUNS_ITSELF)
    return folder


def python(folder: Path, *arguments: str, **env: str) -> Done:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), **env),
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE_S,
    )


WAYS_IN: Final = [
    pytest.param(("agent.py", "start"), id="by itself"),
    pytest.param(("-m", "build_aware", "start", "plain.py"), id="by ours"),
    pytest.param(("-m", "livekit.agents", "start", "plain.py"), id="by livekit"),
]


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_what_the_teams_module_says_and_sets_counts(theirs: Path, way_in: tuple[str, ...]) -> None:
    """Only what is wrong is named, and with no traceback, whoever runs the worker."""
    done = python(theirs, *way_in, AGENT_MAX_SESSIONS="0", AGENT_DRAIN_TIMEOUT="5")
    assert done.returncode == CONFIGURATION
    assert "Traceback" not in done.stdout
    (problem,) = done.stderr.splitlines()
    assert problem.startswith("build-aware: AGENT_MAX_SESSIONS='0': ")
    assert_hidden(done)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [("5", "AGENT_DRAIN_TIMEOUT='5': "), ("soon", "--drain-timeout 'soon': expected a number")],
)
def test_a_drain_timeout_on_the_command_line_wins_over_the_code(
    theirs: Path, seconds: str, found: str
) -> None:
    (problem,) = problems(python(theirs, "agent.py", "start", "--drain-timeout", seconds))
    assert problem.startswith(found)


def test_the_same_build_whoever_asks(theirs: Path) -> None:
    by_itself = python(theirs, "agent.py", "build")
    by_ours = python(theirs, "-m", "build_aware", "build", "plain.py")
    assert (by_itself.returncode, by_itself.stderr) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{12}\n", by_itself.stdout)
    assert by_ours.stdout == by_itself.stdout


def test_build_needs_no_livekit(theirs: Path) -> None:
    done = python(theirs, "-X", "importtime", "-m", "build_aware", "build", "plain.py")
    assert done.returncode == 0
    assert "livekit.agents" not in done.stderr
    assert "prometheus_client" not in done.stderr


def test_a_misspelt_variable_is_warned_of_and_refuses_nothing(theirs: Path) -> None:
    done = python(theirs, "agent.py", "build", AGENT_BUILDID="x")
    assert (done.returncode, len(done.stdout)) == (0, 13)
    assert done.stderr == (
        "build-aware: AGENT_BUILDID is not a setting; did you mean AGENT_BUILD_ID?\n"
    )


def test_the_files_that_count_are_listed(theirs: Path) -> None:
    done = python(theirs, "agent.py", "build", "--files", AGENT_BUILD_ID="release-10")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["agent.py", "plain.py", "requirements.txt", "stock.py"]


def test_files_that_cannot_be_counted_are_one_clear_line(tmp_path: Path) -> None:
    folder = copy_of_the_agent(tmp_path)
    (folder / "uv.lock").unlink()
    (problem,) = problems(run(folder, "build", "--files", AGENT_BUILD_ID="release-10"))
    assert "uv.lock is missing" in problem


def test_a_server_of_livekits_own_is_one_clear_line(theirs: Path) -> None:
    (problem,) = problems(python(theirs, "stock.py", "start"))
    assert problem == (
        "cli.run_app got a livekit.agents.worker.AgentServer; import AgentServer from build_aware"
    )


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("start",), "no agent file is given"),
        (("start", "missing.py"), "missing.py does not exist"),
    ],
)
def test_ours_says_how_it_is_called(theirs: Path, arguments: tuple[str, ...], found: str) -> None:
    (problem,) = problems(python(theirs, "-m", "build_aware", *arguments))
    assert found in problem


def test_importing_changes_nothing_in_other_programs(theirs: Path) -> None:
    """No process, no thread, no handler; the agent server alone needs livekit-agents."""
    script = """
import gc, os, signal, sys, threading
from multiprocessing import forkserver
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
import build_aware
from build_aware import Build, Options, cli
print("livekit.agents" in sys.modules)
import plain
print("livekit.agents" in sys.modules)
print(before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)))
print(gc.isenabled(), threading.active_count(), forkserver._forkserver._forkserver_pid)
from build_aware.server import forkserver
print(forkserver._waiting)
"""
    done = python(theirs, "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["False", "True", "True", "True", "1", "None", "None"]
