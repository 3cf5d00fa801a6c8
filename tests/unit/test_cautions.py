"""What an operator hears about the build id."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

import build_aware
from build_aware.identity.cautions import (
    EXPENSIVE,
    LARGE_BYTES,
    OUTSIDE,
    SLOW_S,
    expensive,
    imported_from_outside,
    largest_folder,
)
from build_aware.identity.files import Stat
from build_aware.identity.imports import editable, imported, installed
from build_aware.identity.project import Project, read_project
from build_aware.identity.snapshot import Snapshot, take
from tests.support.checkouts import write
from tests.support.paths import ROOT

MB = 1_000_000


def snapshot(sizes: Mapping[str, int], *, took_s: float = 0.0, root: str = "/app") -> Snapshot:
    files = {name: Stat(size, 1) for name, size in sizes.items()}
    return Snapshot("7f3c9a1e52d0", Project(Path(root)), files, took_s)


@pytest.mark.parametrize(
    ("size", "took_s", "heard"),
    [
        (LARGE_BYTES, SLOW_S, False),
        (LARGE_BYTES + 1, 0.0, True),
        (1, SLOW_S + 0.01, True),
        (0, 0.0, False),
    ],
)
def test_large_or_slow_files_are_told(size: int, took_s: float, heard: bool) -> None:
    assert (expensive(snapshot({"a": size}, took_s=took_s)) is not None) is heard


def test_what_is_told_names_the_numbers_the_largest_folder_and_the_setting() -> None:
    sizes = {"agent.py": 100_000, "models/tts/voice.bin": 60 * MB, "src/a.py": 1}
    caution = expensive(snapshot(sizes, took_s=0.12345))
    assert caution is not None
    assert caution.message == EXPENSIVE
    assert "[tool.build-aware] files" in caution.message
    assert caution.fields == {
        "files": 3,
        "size_mb": 60.1,
        "took_s": 0.123,
        "largest_folder": "models/tts",
        "largest_folder_mb": 60.0,
    }


@pytest.mark.parametrize(
    ("sizes", "folder", "size"),
    [
        ({}, ".", 0),
        ({"a.bin": 5, "b.bin": 6, "src/a": 10}, ".", 11),
        ({"a/x/1": 3, "a/y/1": 3, "b/1": 5}, "a", 6),
        ({"a/x/1": 4, "b/1": 3, "c/1": 3}, "a", 4),
        ({"a/x/y/1": 9, "a/x/z/1": 1, "b/1": 1}, "a/x/y", 9),
        ({"a/x/1": 5, "b/1": 5}, "a", 5),
        ({"a/1": 4, "a/x/1": 6, "b/1": 1}, "a/x", 6),
    ],
)
def test_the_largest_folder_is_the_deepest_with_most_of_the_bytes(
    sizes: Mapping[str, int], folder: str, size: int
) -> None:
    assert largest_folder(snapshot(sizes)) == (folder, size)


# Imports from outside

INSTALLED = ("/usr/lib/python3.11", "/app/env", "/src/editable")


@pytest.mark.parametrize(
    ("module", "file", "outside"),
    [
        ("agent", "/app/agent.py", False),
        ("agent", "/app/src/../agent.py", False),
        ("shared", "/app/shared/../../srv/lib/shared/__init__.py", True),
        ("shared.tools", "/srv/lib/shared/tools.py", True),
        ("ignored", "/app/ignored.py", True),
        ("lib", "/srv/lib/lib.py", False),
        ("sys", None, False),
        ("json", "/usr/lib/python3.11/json/__init__.py", False),
        ("other", "/usr/lib/python3.11.py", True),
        ("requests", "/opt/lib/python3.11/site-packages/requests/__init__.py", False),
        ("apt", "/usr/lib/python3/dist-packages/apt/__init__.py", False),
        ("env", "/app/env/lib/module.py", False),
        ("editable", "/src/editable/src/editable/__init__.py", False),
    ],
)
def test_a_module_is_from_outside_if_it_neither_counts_nor_is_installed(
    module: str, file: str | None, outside: bool
) -> None:
    counted = snapshot({"agent.py": 1, "../srv/lib/lib.py": 1})
    found = imported_from_outside({module: file}, counted, INSTALLED)
    if not outside:
        assert found is None
        return
    assert found is not None
    assert found.message == OUTSIDE
    assert "[tool.build-aware] files" in found.message
    assert file is not None
    assert found.fields == {"modules": {module.partition(".")[0]: os.path.normpath(file)}}


def test_of_a_package_from_outside_one_module_is_named() -> None:
    modules = {"b.c": "/srv/lib/b/c.py", "b": "/srv/lib/b/__init__.py", "a": "/srv/lib/a.py"}
    found = imported_from_outside(modules, snapshot({}), ())
    assert found is not None
    assert found.fields == {"modules": {"a": "/srv/lib/a.py", "b": "/srv/lib/b/c.py"}}


def test_a_root_behind_a_link_counts_as_what_it_is(tmp_path: Path) -> None:
    write(tmp_path, {"release-1/agent.py": ""})
    (tmp_path / "current").symlink_to("release-1")
    counted = snapshot({"agent.py": 1}, root=str(tmp_path / "current"))
    for folder in ("current", "release-1"):
        file = str(tmp_path / folder / "agent.py")
        assert imported_from_outside({"agent": file}, counted, ()) is None


def test_of_this_process_only_the_tests_are_from_outside() -> None:
    found = imported_from_outside(imported(), take(read_project(ROOT)), installed())
    assert found is not None
    assert "tests" in found.fields["modules"]
    for name, file in found.fields["modules"].items():
        assert Path(file).is_relative_to(ROOT / "tests") or name in ("bench", "__main__"), file


def test_python_its_packages_and_this_one_are_installed() -> None:
    folders = installed()
    assert os.path.realpath(sysconfig.get_path("stdlib")) in folders
    assert os.path.realpath(sysconfig.get_path("purelib")) in folders
    assert os.path.realpath(Path(build_aware.__path__[0])) in folders
    assert (os.path.realpath(sys.prefix) in folders) is (sys.prefix != sys.base_prefix)


@pytest.mark.parametrize(
    ("direct_url", "folders"),
    [
        (None, set()),
        ("", set()),
        ("not JSON", set()),
        ("[]", set()),
        ('{"url": "file:///src/a"}', set()),
        ('{"url": "file:///src/a", "dir_info": {}}', set()),
        ('{"url": "file:///src/a", "dir_info": {"editable": false}}', set()),
        ('{"url": "file:///src/a%20b", "dir_info": {"editable": true}}', {"/src/a b"}),
        ('{"dir_info": {"editable": true}}', set()),
    ],
)
def test_an_editable_installation_tells_its_folder(
    direct_url: str | None, folders: set[str]
) -> None:
    assert editable(direct_url) == folders
