"""The agents of the tests are such as other teams write, and one line makes them ours."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import foreign
from tests.support.foreign import AGENTS, BESIDE, Kind, copy

KINDS = [kind for kind in vars(foreign).values() if isinstance(kind, Kind)]


def test_every_agent_has_a_kind() -> None:
    files = {file.name for file in AGENTS.glob("*.py")} - BESIDE.keys()
    assert files == {f"{kind.name}.py" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_copy_differs_from_the_stock_one_by_one_import(kind: Kind, tmp_path: Path) -> None:
    ours, stock = (copy(kind, tmp_path / side, side=side) for side in ("ours", "stock"))
    for file in stock.folder.rglob("*.py"):
        other = ours.folder / file.relative_to(stock.folder)
        lines = zip(file.read_text().splitlines(), other.read_text().splitlines(), strict=True)
        changed = [pair for pair in lines if pair[0] != pair[1]]
        if file.name == "agent.py":
            ((before, after),) = changed
            assert (before.split()[1], after.split()[1]) == ("livekit.agents", "build_aware")
        else:
            assert not changed


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_agent_knows_livekit_only(kind: Kind) -> None:
    source = (AGENTS / f"{kind.name}.py").read_text()
    imported = [
        node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)
    ]
    assert not [
        name for name in imported if name is None or name.startswith(("build_aware", "agent"))
    ]
