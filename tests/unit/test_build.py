from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from build_aware.identity.build import Build, BuildError, identify
from build_aware.identity.files import ID_LENGTH
from build_aware.identity.project import read_project
from build_aware.identity.snapshot import take
from build_aware.testbed.environ import environment
from tests.support.checkouts import commit_all, git, write
from tests.support.copies import SHIPPED, content_id
from tests.support.paths import ROOT

FILES: Final = {
    "agent.py": "print('hello')\n",
    "agent/__init__.py": "",
    "agent/assistant.py": "class Assistant:\n    pass\n",
    "agent/cli/main.py": "def main() -> None:\n    pass\n",
    "build_aware/__init__.py": "",
    "pyproject.toml": """\
[project]
name = "an-agent"
version = "1.4.2"

[tool.build-aware]
files = ["agent.py", "agent", "build_aware", "pyproject.toml", "uv.lock", "Dockerfile"]
""",
    "uv.lock": "version = 1\n",
    "Dockerfile": "FROM scratch\n",
}

CONTENT_ID: Final = "7f3c9a1e52d0"
COMMIT: Final = "89abcdef" * 5
LONG_COMMIT: Final = "89abcdef" * 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small agent's shipped files."""
    return write(tmp_path / "root", FILES)


# The content id


def test_an_id_is_twelve_hex_digits(root: Path) -> None:
    found = content_id(root)
    assert len(found) == ID_LENGTH == 12
    assert set(found) <= set("0123456789abcdef")


def test_a_checkout_and_a_copy_without_git_have_the_same_id(root: Path, tmp_path: Path) -> None:
    commit_all(root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".git"))
    assert identify(root).commit is not None
    assert identify(copy).commit is None
    assert identify(root).id == identify(copy).id


def test_a_checkout_with_other_line_endings_has_the_same_id(root: Path, tmp_path: Path) -> None:
    commit_all(root)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", str(root), str(clone))
    assert b"\r\n" in (clone / "agent.py").read_bytes()
    assert content_id(clone) == content_id(root)


def test_the_folder_that_holds_the_files_does_not_count(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "some" / "where" / "else"
    shutil.copytree(root, elsewhere)
    assert content_id(elsewhere) == content_id(root)


def shipped_files() -> list[str]:
    """Every file that this repository ships, found without the code under test."""
    files = [ROOT / name for name in SHIPPED if (ROOT / name).is_file()]
    folders = [ROOT / name for name in SHIPPED if (ROOT / name).is_dir()]
    files += [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT).as_posix() for path in files]
    return sorted(n for n in names if "__pycache__" not in n and "/." not in n)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what this repository ships; tests leave it as they found it."""
    root = tmp_path_factory.mktemp("repository")
    for name in shipped_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    return root


@pytest.mark.parametrize("name", shipped_files())
def test_one_changed_character_in_any_shipped_file_is_another_id(
    repository: Path, name: str
) -> None:
    path = repository / name
    # Read once: the changed character may be one of what pyproject.toml lists.
    project = read_project(repository)
    before, content = take(project).id, path.read_bytes()
    middle = len(content) // 2
    other = b"y" if content[middle : middle + 1] == b"x" else b"x"
    try:
        path.write_bytes(content[:middle] + other + content[middle + 1 :])
        assert take(project).id != before
    finally:
        path.write_bytes(content)
    assert take(project).id == before


def test_this_repository_ships_what_the_contract_says() -> None:
    assert set(SHIPPED) == {
        "agent.py",
        "agent",
        "build_aware",
        "pyproject.toml",
        "uv.lock",
        "Dockerfile",
    }


def swap_two_contents(root: Path) -> None:
    one, other = root / "agent" / "assistant.py", root / "agent" / "cli" / "main.py"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def move_the_end_of_one_file_to_the_start_of_the_next(root: Path) -> None:
    one, other = root / "agent" / "assistant.py", root / "agent" / "cli" / "main.py"
    content = one.read_bytes()
    one.write_bytes(content[:-5])
    other.write_bytes(content[-5:] + other.read_bytes())


def move_the_end_of_a_name_into_the_file(root: Path) -> None:
    old = root / "agent" / "assistant.py"
    content = old.read_bytes()
    old.unlink()
    (root / "agent" / "assistant").write_bytes(b".py" + content)


def rename_a_file(root: Path) -> None:
    (root / "agent" / "assistant.py").rename(root / "agent" / "helper.py")


def rename_a_file_in_its_place(root: Path) -> None:
    (root / "agent" / "assistant.py").rename(root / "agent" / "assistent.py")


def move_a_file_to_another_folder(root: Path) -> None:
    (root / "agent" / "assistant.py").rename(root / "agent" / "cli" / "assistant.py")


def add_a_file(root: Path) -> None:
    (root / "agent" / "cli" / "more.py").write_text("more\n")


def add_an_empty_file(root: Path) -> None:
    (root / "agent" / "py.typed").touch()


def remove_an_empty_file(root: Path) -> None:
    (root / "agent" / "__init__.py").unlink()


def add_a_file_that_python_does_not_read(root: Path) -> None:
    (root / "agent" / "prompt.txt").write_text("Be kind.\n")


def remove_the_last_newline(root: Path) -> None:
    (root / "agent.py").write_bytes(FILES["agent.py"].rstrip("\n").encode())


@pytest.mark.parametrize(
    "change",
    [
        swap_two_contents,
        move_the_end_of_one_file_to_the_start_of_the_next,
        move_the_end_of_a_name_into_the_file,
        rename_a_file,
        rename_a_file_in_its_place,
        move_a_file_to_another_folder,
        add_a_file,
        add_an_empty_file,
        remove_an_empty_file,
        add_a_file_that_python_does_not_read,
        remove_the_last_newline,
    ],
)
def test_other_files_are_another_id(root: Path, change: Callable[[Path], None]) -> None:
    before = content_id(root)
    change(root)
    assert content_id(root) != before


def link_to(target: str, *, name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).symlink_to(root / target)

    return change


def new_file(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        write(root, {name: "something else\n"})

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(new_file("agent/__pycache__/main.cpython-311.pyc"), id="a cache"),
        pytest.param(new_file("agent/__pycache__/readme.txt"), id="any file in a cache"),
        pytest.param(new_file("agent/cli/__pycache__/a.py"), id="a cache further down"),
        pytest.param(new_file("agent/main.pyc"), id="compiled code outside a cache"),
        pytest.param(new_file("agent/.DS_Store"), id="a hidden file"),
        pytest.param(new_file("agent/.mypy_cache/3.11/a.json"), id="a hidden folder"),
        pytest.param(new_file("README.md"), id="a file beside the agent"),
        pytest.param(new_file("tests/test_agent.py"), id="a folder beside the agent"),
        pytest.param(link_to("agent.py", name="agent/link.py"), id="a link to a file"),
        pytest.param(link_to("agent/cli", name="agent/commands"), id="a link to a folder"),
        pytest.param(link_to("missing.py", name="agent/broken.py"), id="a link to nothing"),
        pytest.param(lambda root: (root / "agent" / "empty").mkdir(), id="an empty folder"),
    ],
)
def test_what_is_not_shipped_does_not_count(root: Path, change: Callable[[Path], None]) -> None:
    before = content_id(root)
    change(root)
    assert content_id(root) == before


def test_line_endings_of_text_do_not_count(root: Path) -> None:
    text = root / "agent" / "prompt.txt"
    text.write_bytes(b"one\ntwo\n")
    unix = content_id(root)
    text.write_bytes(b"one\r\ntwo\r\n")
    assert content_id(root) == unix


def test_a_carriage_return_alone_is_no_line_ending(root: Path) -> None:
    text = root / "agent" / "prompt.txt"
    text.write_bytes(b"one\ntwo\n")
    unix = content_id(root)
    text.write_bytes(b"one\rtwo\n")
    assert content_id(root) != unix


def test_a_binary_file_counts_as_it_is(root: Path) -> None:
    binary = root / "agent" / "sound.wav"
    binary.write_bytes(b"RIFF\0\n")
    before = content_id(root)
    binary.write_bytes(b"RIFF\0\r\n")
    assert content_id(root) != before


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"pyproject.toml"}))
def test_a_missing_file_is_an_error_that_names_it_and_the_way_out(root: Path, name: str) -> None:
    if (root / name).is_dir():
        shutil.rmtree(root / name)
    else:
        (root / name).unlink()
    with pytest.raises(BuildError) as error:
        identify(root)
    assert f"{name} is missing in {root}" in str(error.value)
    assert "AGENT_BUILD_ID" in str(error.value)


# What else is known


def test_an_id_from_the_environment_wins(root: Path) -> None:
    assert identify(root).origin == "files"
    assert identify(root).id == content_id(root)
    build = identify(root, build_id="release-10")
    assert (build.id, build.origin) == ("release-10", "env")


def test_files_that_were_hashed_already_are_not_hashed_again(root: Path) -> None:
    snapshot = take(read_project(root))
    (root / "agent.py").unlink()
    build = identify(root, snapshot=snapshot)
    assert (build.id, build.version) == (snapshot.id, "1.4.2")


def test_with_an_id_from_the_environment_no_file_is_needed(tmp_path: Path) -> None:
    assert identify(tmp_path, build_id="release-10") == Build(id="release-10", origin="env")


@pytest.mark.parametrize(
    ("project", "version"),
    [
        ('[project]\nversion = "1.4.2"\n', "1.4.2"),
        ('[project]\nversion = ""\n', None),
        ("[project]\nversion = 1.4\n", None),
        ('[project]\nname = "an-agent"\n', None),
        ('[tool.other]\nversion = "9"\n', None),
        ("", None),
    ],
)
def test_the_version_is_that_of_pyproject_toml(
    root: Path, project: str, version: str | None
) -> None:
    (root / "pyproject.toml").write_text(project)
    assert identify(root).version == version


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[project\n", id="not TOML"),
        pytest.param(b'version = "\xff"\n', id="not UTF-8"),
    ],
)
def test_a_broken_pyproject_toml_is_an_error_that_names_it(root: Path, content: bytes) -> None:
    (root / "pyproject.toml").write_bytes(content)
    with pytest.raises(BuildError) as error:
        identify(root)
    assert str(root / "pyproject.toml") in str(error.value)
    assert "not valid TOML" in str(error.value)


def test_without_a_checkout_there_is_no_commit(root: Path) -> None:
    build = identify(root)
    assert (build.commit, build.dirty) == (None, None)


def test_a_checkout_above_the_agent_is_not_its_own(root: Path) -> None:
    commit_all(root.parent)
    build = identify(root)
    assert (build.commit, build.dirty) == (None, None)


def test_a_checkout_without_a_commit_has_none(root: Path) -> None:
    git(root, "init", "--quiet")
    build = identify(root)
    assert (build.commit, build.dirty) == (None, None)


def test_a_fresh_checkout_is_clean(root: Path) -> None:
    commit = commit_all(root)
    build = identify(root)
    assert (build.commit, build.dirty) == (commit, False)


def test_an_edited_file_makes_a_checkout_dirty(root: Path) -> None:
    commit = commit_all(root)
    (root / "agent.py").write_text("print('edited')\n")
    build = identify(root)
    assert (build.commit, build.dirty) == (commit, True)


def test_an_untracked_file_makes_a_checkout_dirty(root: Path) -> None:
    commit = commit_all(root)
    (root / "agent" / "untracked.py").touch()
    build = identify(root)
    assert (build.commit, build.dirty) == (commit, True)


def test_an_ignored_file_leaves_a_checkout_clean(root: Path) -> None:
    write(root, {".gitignore": "__pycache__/\n"})
    commit_all(root)
    write(root, {"agent/__pycache__/a.pyc": "compiled"})
    assert identify(root).dirty is False


def test_a_commit_from_the_environment_wins_and_says_nothing_of_edits(root: Path) -> None:
    commit_all(root)
    build = identify(root, commit=COMMIT)
    assert (build.commit, build.dirty) == (COMMIT, None)


@pytest.mark.parametrize(("given", "known"), [("blue", "blue"), ("", None), (None, None)])
def test_the_deployment_is_the_one_given(root: Path, given: str | None, known: str | None) -> None:
    assert identify(root, deployment=given).deployment == known


# The names of a build

BUILD: Final = Build(id=CONTENT_ID, version="1.4.2", commit=COMMIT, deployment="blue")


@pytest.mark.parametrize(
    ("build", "name", "answers"),
    [
        pytest.param(BUILD, CONTENT_ID, True, id="id"),
        pytest.param(BUILD, "1.4.2", True, id="version"),
        pytest.param(BUILD, COMMIT, True, id="commit"),
        pytest.param(BUILD, "blue", True, id="deployment"),
        pytest.param(BUILD, CONTENT_ID[:7], True, id="7 characters of a content id"),
        pytest.param(BUILD, CONTENT_ID[:11], True, id="11 characters of a content id"),
        pytest.param(BUILD, COMMIT[:7], True, id="7 characters of a commit"),
        pytest.param(BUILD, COMMIT[:39], True, id="39 characters of a commit"),
        pytest.param(Build("x", commit=LONG_COMMIT), LONG_COMMIT[:7], True, id="SHA-256 commit"),
        pytest.param(Build("x", commit="0123abcdef"), "0123abcdef", True, id="short commit"),
        pytest.param(
            Build("x", commit="0123abcdef"), "0123abc", True, id="prefix of a short commit"
        ),
        pytest.param(BUILD, CONTENT_ID[:6], False, id="6 characters of a content id"),
        pytest.param(BUILD, COMMIT[:6], False, id="6 characters of a commit"),
        pytest.param(BUILD, CONTENT_ID[1:], False, id="the end of a content id"),
        pytest.param(BUILD, CONTENT_ID + "0", False, id="more than a content id"),
        pytest.param(BUILD, CONTENT_ID.upper(), False, id="id in the wrong case"),
        pytest.param(BUILD, CONTENT_ID[:7].upper(), False, id="prefix in the wrong case"),
        pytest.param(BUILD, "Blue", False, id="deployment in the wrong case"),
        pytest.param(BUILD, f" {CONTENT_ID}", False, id="a space before"),
        pytest.param(BUILD, f"{CONTENT_ID}\n", False, id="a newline after"),
        pytest.param(BUILD, "1.4", False, id="the start of a version"),
        pytest.param(BUILD, "blu", False, id="the start of a deployment"),
        pytest.param(BUILD, "", False, id="nothing"),
        pytest.param(Build("x", version="", deployment=""), "", False, id="nothing twice"),
        pytest.param(Build("x"), "None", False, id="the word None"),
        pytest.param(Build("release-10"), "release-10", True, id="free-form id"),
        pytest.param(Build("release-10"), "release-1", False, id="prefix of a free-form id"),
        pytest.param(Build("release-1"), "release-10", False, id="free-form id as a prefix"),
        pytest.param(Build("1.10.0-rc.12"), "1.10.0-rc.1", False, id="12 characters, no hash"),
        pytest.param(Build("x", version="2026.10.01"), "2026.10.0", False, id="long version"),
        pytest.param(Build("x", deployment="production"), "product", False, id="long deployment"),
        pytest.param(Build("x", commit=COMMIT, dirty=False), COMMIT, True, id="clean commit"),
        pytest.param(Build("x", commit=COMMIT, dirty=True), COMMIT, False, id="dirty commit"),
        pytest.param(
            Build("x", commit=COMMIT, dirty=True), COMMIT[:7], False, id="prefix of a dirty commit"
        ),
    ],
)
def test_a_build_answers_to_its_names_only(build: Build, name: str, answers: bool) -> None:
    assert build.answers_to(name) is answers


@pytest.mark.parametrize(
    ("build", "attributes"),
    [
        (Build("x"), {"build.id": "x"}),
        (Build("x", version="", deployment="blue"), {"build.id": "x"}),
        (
            Build("x", version="1.4.2", commit=COMMIT, dirty=True),
            {"build.id": "x", "build.version": "1.4.2", "build.commit": COMMIT},
        ),
    ],
)
def test_attributes_tell_what_is_known_and_no_more(
    build: Build, attributes: dict[str, str]
) -> None:
    assert build.attributes() == attributes


def test_a_pyproject_toml_without_a_project_table_has_no_version(root: Path) -> None:
    (root / "pyproject.toml").write_text("project = 1\n")
    assert identify(root).version is None


def test_a_pyproject_toml_that_is_a_folder_is_an_error(root: Path) -> None:
    (root / "pyproject.toml").unlink()
    (root / "pyproject.toml").mkdir()
    with pytest.raises(BuildError, match=r"pyproject\.toml cannot be read"):
        identify(root, build_id="x")


def test_a_shipped_file_that_is_a_link_is_an_error_because_links_are_not_shipped(
    root: Path,
) -> None:
    (root / "uv.lock").rename(root / "real.lock")
    (root / "uv.lock").symlink_to(root / "real.lock")
    with pytest.raises(BuildError, match=r"uv\.lock .* symbolic link"):
        content_id(root)


def test_a_file_name_that_is_not_utf8_is_an_error(root: Path) -> None:
    os.close(os.open(os.fsencode(root / "agent") + b"/\xff.py", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(BuildError, match="not UTF-8"):
        content_id(root)


def test_a_repository_in_the_environment_is_not_ours(root: Path, tmp_path: Path) -> None:
    commit = commit_all(root)
    commit_all(write(tmp_path / "other", FILES | {"agent.py": "other\n"}))
    code = (
        "import sys, pathlib, build_aware.identity.build as b; "
        "print(b.identify(pathlib.Path(sys.argv[1])).commit)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=environment(GIT_DIR=str(tmp_path / "other" / ".git")),
    )
    assert done.stdout.strip() == commit
