"""What is in the image, who may write to it, and which build it is."""

from __future__ import annotations

import mmap
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import Testbed
from build_aware.testbed.livekit_server import LiveKitServer
from tests.image.conftest import SECRET, Project
from tests.support.containers import output_of, user
from tests.support.images import Images, Layer
from tests.support.uploads import livekit_cloud_upload, unpack

pytestmark = [
    *(pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)),
    pytest.mark.xdist_group("image"),  # One storage, where each is built once.
]

BASE_LAYERS: Final = 1
"""How many layers of an image are those of its base."""

LOOK_FOR_RIGHTS: Final = """
import json, os
found = {"owned": [], "writable": []}
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
    for path in (folder, *(os.path.join(folder, name) for name in names)):
        if not os.path.islink(path):
            if os.stat(path).st_uid == os.getuid():
                found["owned"].append(path)
            if os.access(path, os.W_OK):
                found["writable"].append(path)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def layers(built: Images, assistant: Project) -> list[Layer]:
    """What the image of this repository adds to its base."""
    return built.layers(assistant.image)[BASE_LAYERS:]


def test_its_configuration_says_how_it_is_run_stopped_and_checked(assistant: Project) -> None:
    config = assistant.image.config
    assert assistant.image.command == ("python", "agent.py", "start")
    assert config["StopSignal"] == "SIGTERM"
    assert re.fullmatch(r"\d+:\d+", config["User"]), "Kubernetes' runAsNonRoot needs a number"
    assert user(assistant.image)[0] != 0
    assert set(config["ExposedPorts"]) == {"8081/tcp", "8082/tcp"}
    check = config["Healthcheck"]
    assert check["Test"][0] == "CMD"
    assert check["Timeout"] < check["Interval"]
    for name in ("title", "description", "licenses", "base.name"):
        assert config["Labels"][f"org.opencontainers.image.{name}"]
    assert assistant.image.env["AGENT_BUILD_ID"] == ""


def test_it_has_the_files_of_the_build_id_and_the_packages_and_nothing_else(
    assistant: Project, layers: list[Layer]
) -> None:
    names = {name for layer in layers for name in layer.files()}
    packages = {name for name in names if name.startswith("app/.venv/")}
    bytecode = {name for name in names - packages if name.endswith(".pyc")}
    code = names - packages - bytecode
    # Engines mount the last two while they build, and may leave an empty one.
    about_users = {"etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf"}
    assert code - about_users == {f"app/{name}" for name in assistant.counted}
    assert {compiled(name) for name in code if re.match(r"app/\w+/.*\.py$", name)} == bytecode
    assert not {name for name in packages if re.search(r"(/bin/|-packages/)(uv|pip)\b", name)}
    installed = set(re.findall(r"-packages/([\w.]+)/__init__\.py", "\n".join(packages)))
    assert {"aiohttp", "pydantic"} <= installed
    assert not {"build_aware", "hypothesis", "matplotlib", "mypy", "pip", "pytest"} & installed


def test_the_layer_that_changes_with_the_code_is_small(layers: list[Layer]) -> None:
    *_, packages, code = layers
    assert "app/agent.py" in code.files()
    assert "app/agent.py" not in packages.files()
    assert code.size < 0.02 * packages.size


def test_all_of_it_is_compiled(assistant: Project, layers: list[Layer]) -> None:
    names = {name for layer in layers for name in layer.files()}
    modules = {
        name
        for name in names
        if name.endswith(".py") and name != "app/agent.py" and "/bin/" not in name
    }
    assert not {name for name in modules if compiled(name) not in names}


def test_no_secret_of_the_checkout_is_in_any_layer(assistant: Project, layers: list[Layer]) -> None:
    assert not {
        name for layer in layers for name in layer.files() if re.search(r"(^|/)\.env", name)
    }
    for layer in layers:
        with layer.tar.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            assert data.find(SECRET.encode()) == -1
    assert SECRET not in str(assistant.image.config)


async def test_its_user_owns_none_of_its_files_and_can_write_only_to_tmp(
    assistant: Project, bed: Testbed
) -> None:
    look = ("python", "-c", LOOK_FOR_RIGHTS)
    said = await output_of(bed.processes, assistant.image, *look, read_only=False)
    assert said == '{"owned": [], "writable": ["/tmp"]}'


async def test_after_the_rules_of_an_upload_to_livekit_cloud_it_is_the_same_build(
    project: Project, built: Images, bed: Testbed, own_livekit: LiveKitServer, tmp_path: Path
) -> None:
    folder = unpack(livekit_cloud_upload(project.folder), tmp_path / "uploaded")
    image = built.build(folder, f"uploaded-{project.agent_name or 'assistant'}")
    await project.worker(bed, own_livekit, image)
    user = await project.user(bed, own_livekit, "room")
    assert user.agents[0].attributes["build.id"] == project.build_id


async def test_a_changed_byte_of_the_assistant_makes_another_build(
    assistant: Project, built: Images, bed: Testbed, tmp_path: Path
) -> None:
    ids = {
        await changed(assistant, name, built, bed, tmp_path / Path(name).stem)
        for name in ("agent/assistant.py", "build_aware/job/users.py")
    }
    assert len(ids | {assistant.build_id}) == 3
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in ids)


async def test_an_argument_of_the_build_overrides_the_id(
    assistant: Project, built: Images, bed: Testbed, tmp_path: Path
) -> None:
    version = "2026.11.23-1"
    # Another agent, as a cache of Debian's buildah takes no notice of the argument alone.
    folder = tmp_path / "overridden"
    said = await changed(assistant, "agent/offline.py", built, bed, folder, AGENT_BUILD_ID=version)
    assert said == version


async def test_a_changed_byte_of_another_teams_agent_makes_another_build(
    foreign: Project, built: Images, bed: Testbed, tmp_path: Path
) -> None:
    said = await changed(foreign, "src/agent.py", built, bed, tmp_path / "changed")
    assert re.fullmatch("[0-9a-f]{12}", said)
    assert said != foreign.build_id


async def changed(
    project: Project, name: str, built: Images, bed: Testbed, folder: Path, **args: str
) -> str:
    """Build an image of the project with a byte more in one file; its id."""
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns(".venv"))
    with (folder / name).open("a") as file:
        file.write("\n")
    image = built.build(folder, f"changed-{Path(name).stem}", **args)
    command = (*image.command[:-1], "build")
    return await output_of(bed.processes, image, *command, read_only=project.read_only)


def compiled(name: str) -> str:
    """Where the bytecode of a module is."""
    folder, _, module = name.rpartition("/")
    return f"{folder}/__pycache__/{module.removesuffix('.py')}.cpython-311.pyc"
