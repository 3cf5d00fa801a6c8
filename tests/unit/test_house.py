"""The house: wings import downwards only, files fit a page, and the agent uses public names."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

import build_aware
from tests.support.paths import ROOT

PACKAGE: Final = ROOT / "build_aware"

WINGS: Final = ("cli", "server", "job", "adoption", "dispatch")
"""From top to bottom. Below them, side by side, is `GROUND`."""

GROUND: Final = ("drain", "identity", "settings")

EVERYWHERE: Final = ("livekit_private", "private_names")
"""What every wing may import."""

TOOLS: Final = ("testbed", "rehearsal")
"""What only `cli` may import; the rehearsal stands on the test bed."""

MAX_LINES: Final = 300


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def wing_of(module: str) -> str:
    """The wing of `build_aware.wing.module`; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)} imports relatively"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in modules if module.split(".")[0] == "build_aware"}


def may_import(wing: str, other: str) -> bool:
    if other in {wing, *EVERYWHERE}:
        return True
    if wing in TOOLS:
        return wing == "rehearsal" or other in GROUND
    if other in {*TOOLS, "early"}:
        return wing == "cli"
    if wing in WINGS:
        return other in GROUND or (other in WINGS and WINGS.index(other) > WINGS.index(wing))
    return False


@pytest.mark.parametrize("path", files(), ids=named)
def test_imports_go_downwards(path: Path) -> None:
    wing = wing_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if wing in {"__init__", "__main__", "early"}:
        return  # They are above all wings.
    against = {m for m in imported(path) if not may_import(wing, wing_of(m))}
    assert not against, f"{named(path)} must not import {sorted(against)}"


@pytest.mark.parametrize("path", files(), ids=named)
def test_a_file_is_short_enough_to_be_one_idea(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= MAX_LINES, f"{named(path)} has {lines} lines"


@pytest.mark.parametrize(
    "path", [ROOT / "agent.py", *sorted((ROOT / "agent").rglob("*.py"))], ids=named
)
def test_the_agent_imports_public_names_only(path: Path) -> None:
    public = {f"build_aware.{name}" for name in build_aware.__all__}
    assert imported(path) <= public


def test_the_public_names_are_there() -> None:
    for name in build_aware.__all__:
        assert getattr(build_aware, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'server_of_mine'"):
        getattr(build_aware, "server_of_mine")  # noqa: B009


@pytest.mark.parametrize(
    ("wing", "other", "allowed"),
    [
        ("server", "job", True),
        ("job", "server", False),
        ("dispatch", "identity", True),
        ("identity", "dispatch", False),
        ("drain", "identity", False),
        ("server", "testbed", False),
        ("cli", "rehearsal", True),
        ("testbed", "rehearsal", False),
        ("adoption", "livekit_private", True),
    ],
)
def test_the_rule_of_the_wings(wing: str, other: str, allowed: bool) -> None:
    assert may_import(wing, other) is allowed
