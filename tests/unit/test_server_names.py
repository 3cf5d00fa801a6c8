from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Final

import pytest
from livekit.agents import AgentServer

import build_aware

OVERRIDDEN: Final = {"rtc_session", "setup_fnc", "run", "drain", "aclose"}
"""What our server replaces on purpose."""


def assigned_to_self(*classes: type) -> set[str]:
    """Names of the instance attributes that the code of these classes assigns."""
    return {
        node.attr
        for cls in classes
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def names_of(worker: type) -> set[str]:
    """Every name that `worker` itself gives to something, dunders left out."""
    own = set(vars(worker)) | assigned_to_self(worker)
    return {name for name in own if not (name.startswith("__") and name.endswith("__"))}


def names_below(server: type) -> set[str]:
    """Every name that `server` or a class of LiveKit below it gives to something."""
    theirs = [cls for cls in server.__mro__ if cls.__module__.startswith("livekit.")]
    return set(dir(server)) | assigned_to_self(*theirs)


def collisions(worker: type, server: type) -> set[str]:
    """Names that both a worker and the server below it give to something."""
    return names_of(worker) & names_below(server)


def test_our_server_takes_no_name_of_livekits() -> None:
    assert collisions(build_aware.AgentServer, AgentServer) == OVERRIDDEN


def test_our_server_has_no_attribute_that_the_search_does_not_see() -> None:
    own = vars(build_aware.AgentServer()).keys() - vars(AgentServer()).keys()
    assert own
    assert own <= names_of(build_aware.AgentServer)


def test_the_server_has_no_attribute_that_the_search_does_not_see() -> None:
    assert vars(AgentServer()).keys() <= names_below(AgentServer)


class _WithAMethod(AgentServer):
    def its_own(self) -> None: ...

    async def _connection_task(self) -> None: ...


class _WithAnAttribute(AgentServer):
    def __init__(self) -> None:
        super().__init__()
        self._draining = True


@pytest.mark.parametrize(
    ("worker", "name"), [(_WithAnAttribute, "_draining"), (_WithAMethod, "_connection_task")]
)
def test_the_search_finds_a_collision(worker: type, name: str) -> None:
    assert collisions(worker, AgentServer) == {name}
