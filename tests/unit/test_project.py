"""Where a project begins, and what its `pyproject.toml` says about the build."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_aware.identity.build import BuildError, identify
from build_aware.identity.project import read_project, root_of
from tests.support.checkouts import write


@pytest.mark.parametrize(
    ("files", "entry", "root"),
    [
        (["a/agent.py"], "a/agent.py", "a"),
        (["a/b/agent.py", "a/Dockerfile"], "a/b/agent.py", "a"),
        (["a/b/agent.py", "a/b/Dockerfile", "a/Dockerfile"], "a/b/agent.py", "a/b"),
        (["a/b/agent.py", "a/b/pyproject.toml", "a/Dockerfile"], "a/b/agent.py", "a"),
        (["a/b/c/agent.py", "a/b/pyproject.toml", "a/pyproject.toml"], "a/b/c/agent.py", "a/b"),
        (["a/b/agent.py", "a/requirements.txt"], "a/b/agent.py", "a"),
        (["a/b/agent.py", "a/b/requirements.txt", "a/pyproject.toml"], "a/b/agent.py", "a/b"),
        (["a/agent.py", "b/Dockerfile"], "a/agent.py", "a"),
        (["a/agent.py", "a/b/Dockerfile"], "a/agent.py", "a"),
        (["a/b/agent.py", "a/dev.Dockerfile"], "a/b/agent.py", "a/b"),
        (["a/b/agent.py", "a/Dockerfile/x"], "a/b/agent.py", "a/b"),
        (["a/b/agent.py", "a/c/x", "a/b/Dockerfile"], "a/c/../b/agent.py", "a/b"),
    ],
)
def test_the_root_is_that_of_the_nearest_dockerfile_else_of_the_nearest_project(
    tmp_path: Path, files: list[str], entry: str, root: str
) -> None:
    write(tmp_path, dict.fromkeys(files, ""))
    assert root_of(tmp_path / entry) == tmp_path / root


def test_an_entry_file_may_be_given_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"Dockerfile": "", "src/agent.py": ""})
    monkeypatch.chdir(tmp_path / "src")
    assert root_of(Path("agent.py")) == tmp_path


def test_a_link_to_the_release_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"release-1/agent.py": "", "release-1/Dockerfile": ""})
    (tmp_path / "current").symlink_to("release-1")
    assert root_of(tmp_path / "current" / "agent.py") == tmp_path / "current"


@pytest.mark.parametrize(
    ("table", "files"),
    [
        ("", None),
        ("[tool.build-aware]", None),
        ("[tool.other]\nfiles = ['a']", None),
        ("[tool.build-aware]\nfiles = ['agent.py', 'src']", ("agent.py", "src")),
        ("tool.build-aware.files = ['./src/', 'a//b', '../shared']", ("src", "a/b", "../shared")),
        ("[tool.build-aware]\nfiles = ['.']", (".",)),
    ],
)
def test_a_project_may_list_its_files(
    tmp_path: Path, table: str, files: tuple[str, ...] | None
) -> None:
    write(tmp_path, {"pyproject.toml": table})
    assert read_project(tmp_path).files == files


@pytest.mark.parametrize(
    "table",
    [
        "file = ['a']",
        "files = ['a']\nfile = ['b']",
        "files = 'a'",
        "files = []",
        "files = ['']",
        "files = [1]",
        "files = { a = 1 }",
    ],
)
def test_a_list_in_another_form_is_an_error_that_names_the_file(tmp_path: Path, table: str) -> None:
    write(tmp_path, {"pyproject.toml": f"[tool.build-aware]\n{table}\n"})
    with pytest.raises(BuildError) as error:
        identify(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(error.value)
    assert "`files`, a list" in str(error.value)


def test_a_listed_path_is_relative(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": f"tool.build-aware.files = ['{tmp_path}/agent.py']"})
    with pytest.raises(BuildError, match="absolute"):
        identify(tmp_path)
