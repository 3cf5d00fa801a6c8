"""Whose build this is."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_aware.identity import whose


@pytest.fixture(autouse=True)
def no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whose, "_program", None)
    monkeypatch.setattr(whose, "_early", None)


def project(folder: Path) -> Path:
    """A project, and the file of its agent."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{folder.name}"\nversion = "1"\n')
    file = folder / "agent.py"
    file.write_text("")
    return file


def test_the_program_says_it_and_not_where_its_entrypoint_is_written(tmp_path: Path) -> None:
    """An entrypoint may be in a library that several agents share."""
    program, library = project(tmp_path / "app"), project(tmp_path / "library")
    alone = whose.identify(library).build
    assert alone.id != whose.identify(program).build.id
    whose.begins_with(program)
    assert whose.identify(library).build == whose.identify(program).build
    assert whose.identify(None).build.id == whose.identify(program).build.id != alone.id


def test_what_was_hashed_early_is_not_hashed_again(tmp_path: Path) -> None:
    program, library = project(tmp_path / "app"), project(tmp_path / "library")
    whose.look_early(program)
    before = whose.identify(library)
    program.write_text("changed = True")
    assert whose.identify(library) == before
