"""Which files count for the build id, how they are hashed, and whether they have changed."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from build_aware.identity import files
from build_aware.identity.build import BuildError
from build_aware.identity.files import MAX_BYTES, Stat, counted
from build_aware.identity.project import Project, read_project
from build_aware.identity.snapshot import take
from tests.support.checkouts import write

AGENT: Final = {"agent.py": "print('hello')\n", "src/tools.py": "", "src/prompts/a.txt": "Hi.\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small agent without a `pyproject.toml`."""
    return write(tmp_path / "root", AGENT)


def names(root: Path) -> list[str]:
    return list(counted(read_project(root)))


def not_utf8(folder: Path) -> Path:
    """A file whose name is not UTF-8."""
    path = os.fsencode(folder) + b"/\xff.py"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    return Path(os.fsdecode(path))


# Everything that ships


def test_everything_below_the_root_counts_in_the_order_of_the_paths(root: Path) -> None:
    assert names(root) == ["agent.py", "src/prompts/a.txt", "src/tools.py"]


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".git/config",
        "src/.DS_Store",
        "src/__pycache__/tools.cpython-311.pyc",
        "src/__pycache__/readme.txt",
        "src/tools.pyc",
        "an_agent.egg-info/PKG-INFO",
        "node_modules/left-pad/index.js",
        "src/venv/lib/site.py",
        "livekit.toml",
        "src/livekit.toml",
        "Dockerfile",
        "docker/Dockerfile.dev",
        "docker/dev.Dockerfile",
    ],
)
def test_what_never_ships_or_not_everywhere_does_not_count(root: Path, name: str) -> None:
    write(root, {name: "something"})
    assert names(root) == sorted(AGENT)


def test_a_virtual_environment_does_not_count_whatever_its_name(root: Path) -> None:
    write(root, {"env/pyvenv.cfg": "", "env/lib/a.py": "", "src/env/a.py": ""})
    assert names(root) == sorted({*AGENT, "src/env/a.py"})


def test_links_and_pipes_do_not_count(root: Path) -> None:
    (root / "link.py").symlink_to("agent.py")
    (root / "folder").symlink_to("src")
    (root / "broken").symlink_to("missing")
    os.mkfifo(root / "pipe")
    assert names(root) == sorted(AGENT)


def test_both_ignore_files_count_as_one_list_of_dockers_patterns(root: Path) -> None:
    write(root, {"a.log": "", "src/a.log": "", "src/b.log": "", "data/a": "", "data/b": ""})
    write(root, {".gitignore": "*.log\n/src\n", ".dockerignore": "# no data\n/data\n!data/b\n"})
    assert names(root) == sorted({*AGENT, "src/a.log", "src/b.log", "data/b"})


def test_the_dockerignore_has_the_last_word(root: Path) -> None:
    write(root, {".gitignore": "src\n!agent.py\n", ".dockerignore": "agent.py\n!src/tools.py\n"})
    assert names(root) == ["src/tools.py"]


def test_only_the_ignore_files_of_the_root_are_read(root: Path) -> None:
    write(root, {"src/.gitignore": "*\n", "src/.dockerignore": "**\n"})
    assert names(root) == sorted(AGENT)


def test_an_ignore_file_may_be_a_folder_or_not_utf8(root: Path) -> None:
    (root / ".gitignore").mkdir()
    (root / ".dockerignore").write_bytes(b"\xff.py\nsrc\n")
    not_utf8(root)
    assert names(root) == ["agent.py"]


def test_a_folder_that_cannot_count_is_not_walked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, {".dockerignore": "data\nlogs/*\n!logs/a/b\n"})
    write(root, dict.fromkeys((".git/x/y", "data/x/y", "logs/a/b", "logs/c/d", "venv/x/y"), ""))
    walked: list[str] = []
    scandir = os.scandir

    def watch(path: str) -> object:
        walked.append(os.path.relpath(path, root))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watch)
    names(root)
    assert sorted(walked) == [".", "logs", "logs/a", "src", "src/prompts"]


def test_a_name_that_is_not_utf8_is_an_error_only_if_it_counts(root: Path) -> None:
    path = not_utf8(root / "src")
    with pytest.raises(BuildError, match="not UTF-8"):
        names(root)
    write(root, {".dockerignore": "src/?.py\n"})
    assert path.exists()
    assert names(root) == sorted(AGENT)


def test_more_than_livekit_cloud_would_take_is_an_error_before_anything_is_read(root: Path) -> None:
    with (root / "film.mp4").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BuildError, match="more than 1 GB") as error:
        take(read_project(root))
    assert "AGENT_BUILD_ID" in str(error.value)
    write(root, {"pyproject.toml": "tool.build-aware.files = ['.']"})
    assert "film.mp4" in names(root)


def test_an_agent_in_the_root_of_the_system_is_an_error() -> None:
    with pytest.raises(BuildError, match="folder of its own"):
        counted(Project(Path("/")))


# A list


def listing(root: Path, *listed: str) -> list[str]:
    return list(counted(Project(root, files=listed)))


def test_of_a_list_the_files_count_and_what_is_below_the_folders(root: Path) -> None:
    assert listing(root, "src/tools.py", "agent.py") == ["agent.py", "src/tools.py"]
    assert listing(root, "src", "src/tools.py") == ["src/prompts/a.txt", "src/tools.py"]
    assert listing(root, ".") == sorted(AGENT)
    assert listing(root / "src", "../agent.py", "tools.py") == ["../agent.py", "tools.py"]


def test_a_list_counts_whatever_the_ignore_files_say(root: Path) -> None:
    write(root, {".gitignore": "src\n", ".dockerignore": "**\n"})
    assert listing(root, "src") == ["src/prompts/a.txt", "src/tools.py"]


def test_a_listed_file_counts_whatever_its_name(root: Path) -> None:
    write(root, {"Dockerfile": "", ".config/a": "", ".config/.b": "", "livekit.toml": ""})
    assert listing(root, "Dockerfile", ".config", "livekit.toml") == [
        ".config/a",
        "Dockerfile",
        "livekit.toml",
    ]


@pytest.mark.parametrize("listed", ["link.py", "folder", "folder/tools.py", "folder/prompts"])
def test_a_listed_link_or_what_is_behind_one_is_an_error(root: Path, listed: str) -> None:
    (root / "link.py").symlink_to("agent.py")
    (root / "folder").symlink_to("src")
    with pytest.raises(BuildError, match="symbolic link"):
        listing(root, listed)


@pytest.mark.parametrize("listed", ["missing.py", "src/missing", "agent.py/x", "../missing", "*"])
def test_a_listed_path_that_is_missing_is_an_error(root: Path, listed: str) -> None:
    with pytest.raises(BuildError, match="is missing in"):
        listing(root, "agent.py", listed)


# The hash


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567\r\n",  # The line ending is in two pieces.
        b"1234567 1234567\r",
        b"\r\n" * 20,
        b"\r" * 30 + b"\n",
        b"text\r\nand a NUL byte at the end\r\n\0",
        b"\0\r\n" * 10,
        "Zeilen\r\näöü\n".encode() * 10,
    ],
)
def test_a_large_file_has_the_hash_that_it_would_have_in_one_piece(
    root: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (root / "large").write_bytes(content)
    found = counted(Project(root))
    in_one_piece = files.content_id(root, found)
    monkeypatch.setattr(files, "_PIECE_BYTES", 8)
    assert files.content_id(root, found) == in_one_piece


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(root: Path) -> None:
    with pytest.raises(BuildError, match=r"root/gone\.py cannot be read: No such file"):
        files.content_id(root, {"gone.py": Stat(1, 1)})


def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str | int) -> object:
        if str(path).rstrip("/") == str(root):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)  # Whatever else is removed meanwhile.

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BuildError, match=r"root/ cannot be read: Permission denied"):
        names(root)


def test_a_file_that_goes_away_meanwhile_is_an_error_for_the_id_and_gone_for_a_comparison(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(Project(root))
    scandir = os.scandir

    def remove(path: str | int) -> object:
        if isinstance(path, int) or Path(path) != root:
            return scandir(path)  # Somebody else's, such as a folder that is removed meanwhile.
        with scandir(path) as entries:
            found = list(entries)
        (root / "agent.py").unlink(missing_ok=True)
        return contextlib.nullcontext(found)

    monkeypatch.setattr(os, "scandir", remove)
    with pytest.raises(BuildError, match=r"agent\.py cannot be read: No such file"):
        names(root)
    write(root, {"agent.py": AGENT["agent.py"]})
    assert snapshot.changed() == ("agent.py",)


# What has changed since


def edit(root: Path) -> None:
    (root / "agent.py").write_text("print('goodbye')\n")


def edit_and_keep_the_time(root: Path) -> None:
    path = root / "agent.py"
    before = path.stat()
    path.write_text("print('good day')\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_and_keep_the_size(root: Path) -> None:
    path = root / "agent.py"
    path.write_text("print('HELLO')\n")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def remove_a_folder(root: Path) -> None:
    shutil.rmtree(root / "src" / "prompts")


def replace_a_file_by_a_link(root: Path) -> None:
    (root / "agent.py").rename(root / ".agent.py")
    (root / "agent.py").symlink_to(".agent.py")


def ignore_a_file(root: Path) -> None:
    write(root, {".dockerignore": "agent.py\n"})


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda root: None, ()),
        (edit, ("agent.py",)),
        (edit_and_keep_the_time, ("agent.py",)),
        (edit_and_keep_the_size, ("agent.py",)),
        (remove_a_folder, ("src/prompts/a.txt",)),
        (replace_a_file_by_a_link, ("agent.py",)),
        (ignore_a_file, ("agent.py",)),
        (lambda root: write(root, {"new.py": "", "more/new.py": ""}), ("more/new.py", "new.py")),
        (lambda root: write(root, {".env": "", "src/__pycache__/a.pyc": "", "src/.a": ""}), ()),
        (shutil.rmtree, tuple(sorted(AGENT))),
        (not_utf8, ("\udcff.py",)),
    ],
)
def test_a_snapshot_tells_what_has_changed_since(
    root: Path, change: Callable[[Path], object], changed: tuple[str, ...]
) -> None:
    snapshot = take(Project(root))
    change(root)
    assert snapshot.changed() == changed


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (edit, ("agent.py",)),
        (lambda root: (root / "agent.py").unlink(), ("agent.py",)),
        (replace_a_file_by_a_link, ("agent.py",)),
        (lambda root: shutil.rmtree(root / "src"), ("src/prompts/a.txt", "src/tools.py")),
        (lambda root: write(root, {"new.py": ""}), ()),
    ],
)
def test_a_snapshot_of_listed_files_tells_what_has_changed_since(
    root: Path, change: Callable[[Path], object], changed: tuple[str, ...]
) -> None:
    snapshot = take(Project(root, files=("agent.py", "src")))
    change(root)
    assert snapshot.changed() == changed


def test_a_snapshot_goes_to_other_processes(root: Path) -> None:
    snapshot = take(Project(root))
    copy = pickle.loads(pickle.dumps(snapshot))  # noqa: S301 our own
    assert copy == snapshot
    edit(root)
    assert copy.changed() == ("agent.py",)


def test_a_snapshot_tells_sizes_and_how_long_it_took(root: Path) -> None:
    snapshot = take(Project(root))
    assert snapshot.size == sum(len(content) for content in AGENT.values())
    assert 0 <= snapshot.took_s < 1
