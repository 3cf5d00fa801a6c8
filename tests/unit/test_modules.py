"""Which modules are the team's, and have to run again in each job process."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import aiohttp
import livekit
import pytest

import build_aware
from build_aware.server import modules
from build_aware.server.modules import finished, forget_unfinished, is_installed


def module(file: Path | None, *folders: Path, name: str = "team") -> types.ModuleType:
    made = types.ModuleType(name)
    if file is not None:
        made.__file__ = str(file)
    if folders:
        made.__path__ = [str(folder) for folder in folders]
    return made


@pytest.mark.parametrize(
    "name", ["sys", "os", "json.decoder", "aiohttp", "aiohttp.client", "google"]
)
def test_what_is_pythons_or_of_a_distribution_is_installed(name: str) -> None:
    assert aiohttp is not None
    assert is_installed(name, sys.modules.get(name) or __import__(name))


def test_what_is_elsewhere_is_the_teams(tmp_path: Path) -> None:
    package = tmp_path / "team"
    assert not is_installed("agent", module(tmp_path / "agent.py"))
    assert not is_installed("team", module(package / "__init__.py", package))
    assert not is_installed("team.tools", module(package / "tools.py"))
    # A folder without an `__init__.py`.
    assert not is_installed("team", module(None, package))
    assert not is_installed("__main__", module(tmp_path / "agent.py"))


def test_a_folder_that_distributions_are_installed_into_is_known_by_them(tmp_path: Path) -> None:
    """As after `pip install --target`: what is written in C bears no second import."""
    modules._has_distributions.cache_clear()
    (tmp_path / "numbers-2.0.dist-info").mkdir()
    package = tmp_path / "numbers"
    assert is_installed("single", module(tmp_path / "single.py"))
    assert is_installed("numbers", module(package / "__init__.py", package))
    assert is_installed("numbers.core", module(package / "core" / "__init__.py", package / "core"))
    assert is_installed("numbers.core.fast", module(package / "core" / "fast.so"))
    assert is_installed("namespace", module(None, tmp_path / "namespace"))
    modules._has_distributions.cache_clear()


def test_a_package_in_several_folders_is_installed_if_one_of_them_is(tmp_path: Path) -> None:
    """Else what was loaded of it could not be found again."""
    both = module(None, tmp_path / "google", Path(modules._FOLDERS[0]) / "google")
    assert is_installed("google", both)


def test_a_module_is_not_asked_for_what_it_loads_when_asked(tmp_path: Path) -> None:
    class Lazy(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was loaded")

    assert is_installed("lazy", Lazy("lazy"))
    assert is_installed("strange", object())


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """Modules that are loaded while a test runs, instead of all others."""
    kept = {
        name: each
        for name, each in sys.modules.items()
        if name.partition(".")[0] in {"sys", "os", "builtins", "build_aware", "livekit"}
    }
    monkeypatch.setattr(sys, "modules", kept)
    return kept


def test_the_teams_modules_that_have_run_are_told_from_those_that_run(
    tmp_path: Path, loaded: dict[str, types.ModuleType]
) -> None:
    program = compile("found = finished()", str(tmp_path / "server.py"), "exec")
    for name in ("team", "team.tools", "team.server", "other"):
        loaded[name] = module(tmp_path / f"{name}.py")
    loaded["second_name"] = loaded["team.server"]
    told: dict[str, Any] = {"__name__": "team.server", "finished": finished}
    exec(program, told)  # noqa: S102 as a module is run
    assert told["found"] == {"team.tools", "other"}


def test_the_teams_modules_are_forgotten_and_ours_are_not(
    tmp_path: Path, loaded: dict[str, types.ModuleType]
) -> None:
    assert "livekit.agents" in loaded
    before = set(loaded)
    for name in ("team", "team.tools", "other"):
        loaded[name] = module(tmp_path / f"{name}.py")
    forget_unfinished()
    assert set(loaded) == before
    assert loaded["build_aware"] is build_aware
    assert loaded["livekit"] is livekit
    assert loaded["os"] is os


def test_what_is_being_imported_is_forgotten_wherever_it_is(
    loaded: dict[str, types.ModuleType],
) -> None:
    """With all that is below it, which could not be found in it any more."""
    site = Path(modules._FOLDERS[0])
    for name in ("company", "company.agents", "companyless"):
        loaded[name] = module(site / f"{name}.py", name=name)
    source = compile("forget()", "company.py", "exec")
    exec(source, {"__name__": "company", "forget": forget_unfinished})  # noqa: S102
    assert {"company", "company.agents"}.isdisjoint(loaded)
    assert "companyless" in loaded
