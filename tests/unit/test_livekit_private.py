"""The private names of livekit-agents: the installed one has them, and a missing one is told."""

from __future__ import annotations

import ast
import inspect

import pytest
from livekit.agents import __version__

from build_aware import livekit_private
from build_aware.livekit_private import USES, Use, problems


def launch() -> None:
    """Start a job that nobody offered."""


def use(owner: str, *names: str, by: str | None = None) -> Use:
    return Use(owner, names, by, launch)


def test_the_installed_livekit_agents_has_all_of_them() -> None:
    assert problems() == []


def test_every_private_name_of_this_file_is_checked() -> None:
    tree = ast.parse(inspect.getsource(livekit_private))
    touched = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert touched
    assert touched <= {name for entry in USES for name in entry.names}


@pytest.mark.parametrize("entry", USES, ids=lambda entry: entry.function.__name__)
def test_each_says_what_it_is_for(entry: Use) -> None:
    assert entry.purpose.endswith(".")


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(use("livekit.agents.worker", "ASSIGNMENT_TIMEOUT"), id="of a module"),
        pytest.param(
            use("livekit.agents.worker:AgentServer", "_answer_availability"), id="a method"
        ),
        pytest.param(use("livekit.agents.worker:AgentServer", "_proc_pool"), id="of an instance"),
        pytest.param(
            use(
                "livekit.agents.worker", "ASSIGNMENT_TIMEOUT", by="AgentServer._answer_availability"
            ),
            id="in a function inside a function",
        ),
        pytest.param(
            use("livekit.agents.worker:AgentServer", "_http_session", by="_connection_task"),
            id="in a decorated function",
        ),
    ],
)
def test_a_name_that_is_there_is_no_problem(there: Use) -> None:
    assert problems([there]) == []


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(use("livekit.agents.worker", "_moved"), id="of a module"),
        pytest.param(use("livekit.agents.worker:AgentServer", "_moved"), id="of a class"),
        pytest.param(use("livekit.agents.worker:MovedServer", "_moved"), id="the class itself"),
        pytest.param(use("livekit.agents.moved", "_moved"), id="the module itself"),
        pytest.param(
            use("livekit.agents.worker", "ASSIGNMENT_TIMEOUT", by="AgentServer.drain"),
            id="the function uses it no more",
        ),
        pytest.param(
            use("livekit.agents.worker", "ASSIGNMENT_TIMEOUT", by="AgentServer.moved"),
            id="the function itself",
        ),
    ],
)
def test_a_name_that_is_gone_is_one_line_that_says_what_to_do(gone: Use) -> None:
    (problem,) = problems([gone])
    assert f"livekit-agents {__version__} " in problem
    assert f"{gone.owner}.{gone.names[0]} " in problem
    assert "launch: Start a job that nobody offered." in problem
    assert "Install livekit-agents 1.8" in problem
    assert "\n" not in problem


def test_only_the_names_that_are_gone_are_told() -> None:
    (problem,) = problems([use("livekit.agents.worker", "ASSIGNMENT_TIMEOUT", "_moved")])
    assert "_moved" in problem
