"""Our agent server takes no name that LiveKit's uses for something."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Final

import livekit.agents
import pytest

from build_aware.server.agent_server import AgentServer

OVERRIDDEN: Final = {"rtc_session", "run", "drain", "aclose"}
"""What ours replaces on purpose."""


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


def names_of(server: type) -> set[str]:
    """Every name that `server` itself gives to something, dunders left out."""
    own = set(vars(server)) | assigned_to_self(server)
    return {name for name in own if not (name.startswith("__") and name.endswith("__"))}


def names_below(server: type) -> set[str]:
    """Every name that `server` or a class of LiveKit below it gives to something."""
    theirs = [cls for cls in server.__mro__ if cls.__module__.startswith("livekit.")]
    return set(dir(server)) | assigned_to_self(*theirs)


def collisions(ours: type, theirs: type) -> set[str]:
    """Names that both a server and the one below it give to something."""
    return names_of(ours) & names_below(theirs)


def test_our_server_takes_no_name_of_livekits() -> None:
    # Setters are LiveKit's own: to assign to them is to call them.
    setters = {"setup_fnc"}
    assert collisions(AgentServer, livekit.agents.AgentServer) - setters == OVERRIDDEN


def test_our_server_has_no_attribute_that_the_search_does_not_see() -> None:
    own = vars(AgentServer()).keys() - vars(livekit.agents.AgentServer()).keys()
    assert own
    assert own <= names_of(AgentServer)


def test_livekits_server_has_no_attribute_that_the_search_does_not_see() -> None:
    server = livekit.agents.AgentServer
    assert vars(server()).keys() <= names_below(server)


class _WithAMethod(livekit.agents.AgentServer):
    def its_own(self) -> None: ...

    async def _connection_task(self) -> None: ...


class _WithAnAttribute(livekit.agents.AgentServer):
    def __init__(self) -> None:
        super().__init__()
        self._draining = True


@pytest.mark.parametrize(
    ("server", "name"), [(_WithAnAttribute, "_draining"), (_WithAMethod, "_connection_task")]
)
def test_the_search_finds_a_collision(server: type, name: str) -> None:
    assert collisions(server, livekit.agents.AgentServer) == {name}
