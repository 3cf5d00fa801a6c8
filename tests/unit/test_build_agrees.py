"""A laptop, a clean clone, docker and LiveKit Cloud compute the same build id, or loudly not."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from build_aware.identity.project import root_of
from tests.support.checkouts import commit_all, git, write
from tests.support.copies import content_id, copy_of_the_agent
from tests.support.paths import ROOT
from tests.support.uploads import copy_all, livekit_cloud_upload, unpack

LITTER: Final = {
    ".env.local": "LIVEKIT_API_SECRET=secret\n",
    ".venv/pyvenv.cfg": "home = /usr/bin\n",
    ".venv/lib/python3.11/site-packages/a.py": "a = 1\n",
    "env/pyvenv.cfg": "home = /usr/bin\n",
    "env/lib/python3.11/site-packages/b.py": "b = 1\n",
    "venv/bin/activate": "",
    "node_modules/left-pad/index.js": "",
    "__pycache__/agent.cpython-311.pyc": "compiled",
    "src/__pycache__/agent.cpython-311.pyc": "compiled",
    ".mypy_cache/3.11/a.json": "{}",
    "an_agent.egg-info/PKG-INFO": "Name: an-agent\n",
    "livekit.toml": '[agent]\nid = "CA_1"\n',
    ".DS_Store": "",
    "recordings/room-1.ogg": "a recording",
}
"""What lies about on a laptop. Git knows nothing of it."""

IGNORE_FILES: Final = {
    ".gitignore": "# What we make.\n__pycache__/\n*.pyc\n.venv/\nrecordings/\n.env*\n",
    ".dockerignore": "# And what no image needs.\n.git\n**/__pycache__\nrecordings\nnotes\n",
}


@dataclass(frozen=True)
class Shape:
    """A kind of project: its files, and the one that is started."""

    entry: str
    files: dict[str, str]


SHAPES: Final = {
    "a single file": Shape("agent.py", {"agent.py": "agent = 1\n"}),
    "a single file with a Dockerfile": Shape(
        "agent.py", {"agent.py": "agent = 1\n", "Dockerfile": "FROM python\nCOPY . .\n"}
    ),
    "src/agent.py": Shape(
        "src/agent.py",
        {
            "src/agent.py": "agent = 1\n",
            "src/prompt.txt": "Be kind.\n",
            "pyproject.toml": '[project]\nname = "an-agent"\nversion = "1.0"\n',
            "uv.lock": "version = 1\n",
            "Dockerfile": "FROM python\nCOPY . .\n",
            "README.md": "An agent.\n",
            "notes/todo.md": "Be kinder.\n",
        }
        | IGNORE_FILES,
    ),
    "a package": Shape(
        "my_agent/__main__.py",
        {
            "my_agent/__init__.py": "",
            "my_agent/__main__.py": "agent = 1\n",
            "my_agent/tools/__init__.py": "tools = 1\n",
            "pyproject.toml": '[project]\nname = "my-agent"\n',
            "Dockerfile": "FROM python\nCOPY . .\n",
        }
        | IGNORE_FILES
        # Neither file of docker's gets into the image.
        | {".dockerignore": "Dockerfile\n.*\nrecordings\n"},
    ),
    "without pyproject.toml": Shape(
        "app/main.py",
        {
            "app/main.py": "agent = 1\n",
            "requirements.txt": "build-aware\n",
            "Dockerfile": "FROM python\nCOPY . .\n",
        }
        | IGNORE_FILES,
    ),
    "only what is named": Shape(
        "agent.py",
        {
            "agent.py": "agent = 1\n",
            "src/tools.py": "tools = 1\n",
            "docs/index.md": "An agent.\n",
            "requirements.txt": "build-aware\n",
            ".gitignore": "*.pyc\n",
            ".dockerignore": "**\n!agent.py\n!src\n!requirements.txt\n**/__pycache__\n",
        },
    ),
    "a list": Shape(
        "agents/front/agent.py",
        {
            "agents/front/agent.py": "agent = 1\n",
            "agents/front/Dockerfile": "FROM python\nCOPY . /app\n",
            "agents/front/pyproject.toml": (
                '[tool.build-aware]\nfiles = ["agent.py", "Dockerfile", "../../shared"]\n'
            ),
            "shared/tools.py": "tools = 1\n",
        }
        | IGNORE_FILES,
    ),
}


def build_id(project: Path, entry: str) -> str:
    return content_id(root_of(project / entry))


@pytest.fixture(params=[*SHAPES, "this repository"])
def shape(request: pytest.FixtureRequest, tmp_path: Path) -> Shape:
    if request.param != "this repository":
        return SHAPES[request.param]
    copy = copy_of_the_agent(tmp_path / "copy")
    for name in (".gitignore", ".dockerignore", "README.md", "livekit.toml"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "docs", copy / "docs")
    files = {
        path.relative_to(copy).as_posix(): path.read_bytes().decode()
        for path in copy.rglob("*")
        if path.is_file() and path.suffix != ".png"
    }
    return Shape("agent.py", files)


@pytest.fixture
def laptop(shape: Shape, tmp_path: Path) -> Path:
    """A checkout in which somebody has worked."""
    project = write(tmp_path / "laptop", shape.files)
    commit_all(project)
    write(project, {name: text for name, text in LITTER.items() if name not in shape.files})
    if not (project / ".dockerignore").exists():
        # Docker would ship it, and nothing says otherwise.
        shutil.rmtree(project / "recordings")
    (project / "latest.py").symlink_to(shape.entry)
    return project


def test_laptop_clean_clone_image_and_upload_have_the_same_id(
    shape: Shape, laptop: Path, tmp_path: Path
) -> None:
    here = build_id(laptop, shape.entry)

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(laptop), str(clone))
    assert build_id(clone, shape.entry) == here

    image = copy_all(laptop, tmp_path / "image")
    assert build_id(image, shape.entry) == here

    uploaded = unpack(livekit_cloud_upload(laptop), tmp_path / "uploaded")
    assert build_id(uploaded, shape.entry) == here

    image_on_cloud = copy_all(uploaded, tmp_path / "image on cloud")
    assert build_id(image_on_cloud, shape.entry) == here

    (laptop / shape.entry).write_text("agent = 2\n")
    assert build_id(laptop, shape.entry) != here


def test_a_clone_with_other_line_endings_has_the_same_id(tmp_path: Path) -> None:
    shape = SHAPES["src/agent.py"]
    project = write(tmp_path / "project", shape.files)
    commit_all(project)
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", str(project), str(tmp_path / "clone"))
    assert b"\r\n" in (tmp_path / "clone" / ".dockerignore").read_bytes()
    assert build_id(tmp_path / "clone", shape.entry) == build_id(project, shape.entry)


def test_the_upload_is_what_livekits_tool_makes_it(tmp_path: Path) -> None:
    project = write(tmp_path / "project", SHAPES["src/agent.py"].files | LITTER)
    write(project, {".dockerignore": "*.md\n/src\n!.env.local\n", "docs/Dockerfile.md": ""})
    write(project, {"src/.env": "", "env/.gitignore": "*", "script.sh": "", "notes/a.pyc": ""})
    (project / "script.sh").chmod(0o755)
    (project / "link").symlink_to("src")
    uploaded = unpack(livekit_cloud_upload(project), tmp_path / "uploaded")
    names = {p.relative_to(uploaded).as_posix() for p in uploaded.rglob("*") if p.is_file()}
    assert names == {
        ".DS_Store",
        ".env.local",
        ".mypy_cache/3.11/a.json",
        "Dockerfile",
        "an_agent.egg-info/PKG-INFO",
        "docs/Dockerfile.md",
        "env/lib/python3.11/site-packages/b.py",
        "env/pyvenv.cfg",
        "notes/a.pyc",
        "notes/todo.md",
        "pyproject.toml",
        "script.sh",
        "src/__pycache__/agent.cpython-311.pyc",
        "src/agent.py",
        "src/prompt.txt",
        "uv.lock",
    }
    assert (uploaded / "script.sh").stat().st_mode & stat.S_IXUSR


# Where it cannot hold


def test_an_image_without_some_of_the_files_has_another_id(tmp_path: Path) -> None:
    shape = SHAPES["src/agent.py"]
    project = write(tmp_path / "project", shape.files)
    image = copy_all(project, tmp_path / "image")
    (image / "README.md").unlink()
    assert build_id(image, shape.entry) != build_id(project, shape.entry)


def test_a_file_that_git_ignores_and_docker_does_not_makes_another_id(tmp_path: Path) -> None:
    shape = SHAPES["a package"]
    project = write(tmp_path / "project", shape.files | {"a.log": ""})
    write(project, {".gitignore": "*.log\n"})
    image = copy_all(project, tmp_path / "image")
    assert build_id(image, shape.entry) != build_id(project, shape.entry)


def test_a_list_holds_a_library_beside_the_agent_and_without_one_it_does_not_count(
    tmp_path: Path,
) -> None:
    shape = SHAPES["a list"]
    project = write(tmp_path / "project", shape.files)
    before = build_id(project, shape.entry)
    write(project, {"shared/tools.py": "tools = 2\n"})
    assert build_id(project, shape.entry) != before

    (project / "agents" / "front" / "pyproject.toml").unlink()
    before = build_id(project, shape.entry)
    write(project, {"shared/tools.py": "tools = 3\n"})
    assert build_id(project, shape.entry) == before
