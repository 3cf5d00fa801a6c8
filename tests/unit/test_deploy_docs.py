"""What docs/deploy.md and the files in deploy/ say exists, and fits the other documents."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final, get_args

import pytest

from agent import session
from build_aware.drain.exit_codes import ExitCode
from build_aware.settings import Command, Settings
from tests.support import deploy_files, lk
from tests.support.paths import ROOT

DEPLOY: Final = (ROOT / "docs" / "deploy.md").read_text("utf-8")
DRAINING: Final = (ROOT / "docs" / "draining.md").read_text("utf-8")
VARIABLES: Final = (ROOT / ".env.example").read_text("utf-8")
DOCUMENTS: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

TMP: Final = "/tmp"  # noqa: S108 of a container

HEALTH_PORT: Final = 8081
"""LiveKit's health check in `start`; tests/e2e/test_foreign_agents.py looks at it."""


def commands(document: str) -> list[list[str]]:
    """The commands in a document, word by word, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def of_lk() -> list[list[str]]:
    """The commands of `lk agent` and `lk cloud` in all documents."""
    found = [words for path in DOCUMENTS for words in commands(path.read_text("utf-8"))]
    return [words for words in found if words[0] == "lk" and words[1] in {"agent", "cloud"}]


def environment() -> dict[str, dict[str, str]]:
    """The variables that each platform's file sets."""
    (container,) = deploy_files.deployment()["spec"]["template"]["spec"]["containers"]
    pairs = " ".join(deploy_files.service()["Environment"]).split()
    return {
        "compose": deploy_files.compose()["environment"],
        "Kubernetes": {each["name"]: each["value"] for each in container["env"]},
        "systemd": dict(pair.split("=", 1) for pair in pairs),
    }


def pod() -> dict[str, Any]:
    found: dict[str, Any] = deploy_files.deployment()["spec"]["template"]["spec"]
    return found


# What to type


@pytest.mark.parametrize("words", of_lk(), ids=" ".join)
def test_every_lk_command_has_the_flags_of_the_release_that_is_named(words: list[str]) -> None:
    name = " ".join(words[1:3])
    assert name in lk.FLAGS
    flags = {word.partition("=")[0] for word in words[3:] if word.startswith("-")}
    assert flags <= lk.FLAGS[name]
    assert lk.REQUIRED.get(name, set()) <= flags


def test_the_page_names_the_release_and_says_that_it_was_not_run() -> None:
    section = DEPLOY.partition("## LiveKit Cloud")[2].partition("\n## ")[0]
    assert "need a LiveKit Cloud project" in section
    assert f"{lk.RELEASE}, and not been run" in section
    outside = DEPLOY.replace(section, "")
    assert not [words for words in commands(outside) if words[0] == "lk"]


def test_every_command_of_the_agent_exists() -> None:
    lines = [words for words in commands(DEPLOY) if "agent.py" in words]
    assert lines
    for words in lines:
        assert words[words.index("agent.py") + 1].rstrip(")") in get_args(Command)


def test_every_file_is_there_and_is_told_of() -> None:
    told = set(re.findall(r"\bdeploy/([\w@]+\.[a-z]+)", DEPLOY))
    assert told == {path.name for path in deploy_files.FOLDER.iterdir() if path.name != ".env"}


def test_every_service_and_label_in_a_command_is_in_its_file() -> None:
    composes = [words for words in commands(DEPLOY) if "compose" in words]
    for words in composes:
        assert words[words.index("-f") + 1] == "deploy/compose.yaml"
    name = deploy_files.deployment()["metadata"]["name"]
    assert f"deployment/{name}" in DEPLOY
    (container,) = pod()["containers"]
    (secret,) = container["envFrom"]
    assert f"secret generic {secret['secretRef']['name']} " in DEPLOY
    (env_file,) = deploy_files.service()["EnvironmentFile"]
    assert env_file in DEPLOY


# The budget


def test_each_platform_waits_longer_than_the_drain_takes_as_the_table_says() -> None:
    default = f"{Settings.model_validate({}).drain_timeout_s:g}"
    grace = {
        "compose": ("docker", "stop_grace_period", deploy_files.compose()["stop_grace_period"]),
        "Kubernetes": (
            "Kubernetes",
            "terminationGracePeriodSeconds",
            pod()["terminationGracePeriodSeconds"],
        ),
        "systemd": ("systemd", "TimeoutStopSec", deploy_files.service()["TimeoutStopSec"][0]),
    }
    for platform, (row, name, value) in grace.items():
        assert environment()[platform]["AGENT_DRAIN_TIMEOUT"] == default
        assert float(str(value).removesuffix("s")) > float(default)
        (line,) = re.findall(rf"^\| {row} \|.*", DRAINING, re.MULTILINE)
        assert re.search(rf"`{name}(: |=){value}`", line)
        assert f"`AGENT_DRAIN_TIMEOUT={default}`" in line


def test_what_is_restarted_follows_the_table_of_exit_codes() -> None:
    table = dict(re.findall(r"^\| (\d) \|.*\| (yes|no) \|$", DRAINING, re.MULTILINE))
    unit = deploy_files.service()
    assert unit["Restart"] == ["on-failure"]  # which leaves out 0
    (prevented,) = unit["RestartPreventExitStatus"]
    never = {code for code, restart in table.items() if restart == "no"}
    assert {str(int(ExitCode.DRAINED)), *prevented.split()} == never


@pytest.mark.parametrize("platform", environment())
def test_every_variable_exists(platform: str) -> None:
    for name in environment()[platform]:
        assert f"{name}=" in VARIABLES or name == "HOME", name


def test_ports_and_probes_are_those_of_the_worker() -> None:
    (container,) = pod()["containers"]
    live, ready = container["livenessProbe"]["httpGet"], container["readinessProbe"]["httpGet"]
    assert live == {"path": "/", "port": HEALTH_PORT}
    assert ready == {"path": "/ready", "port": session.STATUS_PORT}
    assert environment()["Kubernetes"]["AGENT_STATUS_PORT"] == str(session.STATUS_PORT)
    assert environment()["compose"]["AGENT_STATUS_PORT"] == str(session.STATUS_PORT)
    assert f", {session.STATUS_PORT}, " in deploy_files.compose()["healthcheck"]["test"][-1]


# One SIGTERM, to Python itself; tests/e2e/test_deploy.py shows that it is one


def test_nothing_stands_between_the_platform_and_the_worker() -> None:
    agent = deploy_files.compose()
    assert (agent["init"], agent["stop_signal"]) == (False, "SIGTERM")
    assert not {"command", "entrypoint", "pid", "tty", "post_start", "pre_stop"} & agent.keys()
    (container,) = pod()["containers"]
    assert not {"command", "args", "lifecycle", "tty"} & container.keys()
    assert not {"shareProcessNamespace", "hostPID"} & pod().keys()
    unit = deploy_files.service()
    (start,) = unit["ExecStart"]
    assert start.endswith(".venv/bin/python agent.py start")
    assert unit["KillMode"] == ["mixed"]
    assert not {"ExecStop", "ExecStopPost", "ExecReload", "KillSignal", "PIDFile"} & unit.keys()


def test_two_builds_can_run_side_by_side() -> None:
    assert not {"ports", "container_name"} & deploy_files.compose().keys()
    update = deploy_files.deployment()["spec"]["strategy"]["rollingUpdate"]
    assert update["maxUnavailable"] == 0
    for name in ("AGENT_HEALTH_PORT", "AGENT_STATUS_PORT"):
        assert environment()["systemd"][name] == "0"


# What a worker may do


def test_a_worker_may_write_to_tmp_only() -> None:
    agent = deploy_files.compose()
    assert agent["read_only"] is True
    assert agent["tmpfs"] == [TMP]
    assert "volumes" not in agent
    (container,) = pod()["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": TMP}]
    assert pod()["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    unit = deploy_files.service()
    assert (unit["DynamicUser"], unit["ProtectSystem"]) == (["yes"], ["strict"])
    assert not {"ReadWritePaths", "StateDirectory", "CacheDirectory"} & unit.keys()


def test_a_worker_is_not_root() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    uid = pod()["securityContext"]["runAsUser"]
    assert re.search(rf"\b{uid}\b", (ROOT / "Dockerfile").read_text("utf-8"))
    assert f"USER {uid}" in DEPLOY
    assert deploy_files.service()["NoNewPrivileges"] == ["yes"]


def test_no_secret_is_in_a_file() -> None:
    for path in deploy_files.FOLDER.glob("*.*"):
        for name, value in re.findall(r"(\w*(?:KEY|SECRET)\w*): (\S.*)", path.read_text("utf-8")):
            assert value.startswith('"${'), f"{path.name}: {name}"
    assert deploy_files.compose()["env_file"] == ".env"
    assert "\n.env\n" in (ROOT / ".gitignore").read_text("utf-8")
