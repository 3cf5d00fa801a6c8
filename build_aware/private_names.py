"""The checks of private names: whether the installed livekit-agents still has what we use."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final, TypeVar

TESTED: Final = "1.8.0 to 1.8.9"
"""The releases of livekit-agents in which these names have been seen to work."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Use:
    """One use of private names of one owner.

    Attributes:
        owner: the module or class that has them, as `module` or `module:Class`.
        names: the names. A class has one if it is its attribute, or if its methods mention it,
            since attributes of instances cannot be seen otherwise.
        by: a function of the owner that must mention the names as well: we change what it does.
        function: our function that uses them.
    """

    owner: str
    names: tuple[str, ...]
    by: str | None
    function: Callable[..., Any]

    @property
    def purpose(self) -> str:
        """What they are for: the first line of what our function says about itself."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def missing(self) -> Sequence[str]:
        """The names that are not there any more."""
        try:
            owner = _resolve(self.owner)
            mentioned = _mentioned_in(_attribute(owner, self.by) if self.by else owner)
        except (ImportError, AttributeError):
            return self.names
        has_all = inspect.ismodule(owner)
        return [
            name
            for name in self.names
            if (self.by is not None and name not in mentioned)
            or not (hasattr(owner, name) or (not has_all and name in mentioned))
        ]


USES: Final[list[Use]] = []
"""All of them, in the order of `livekit_private`."""


def uses(owner: str, *names: str, by: str | None = None) -> Callable[[F], F]:
    """Say which private names a function stands on; see `Use`."""

    def register(function: F) -> F:
        USES.append(Use(owner, names, by, function))
        return function

    return register


def problems(entries: Sequence[Use]) -> list[str]:
    """A line for each private name that the installed livekit-agents has no more."""
    version = module("livekit.agents").__version__
    return [
        f"livekit-agents {version} has no {entry.owner}.{name} as this build-aware needs it "
        f"({entry.function.__name__}: {entry.purpose}) Install livekit-agents {TESTED}, "
        "or a newer build-aware."
        for entry in entries
        for name in entry.missing()
    ]


def module(name: str) -> Any:
    """A module of livekit-agents, imported when needed: `problems` tells if it has moved."""
    return importlib.import_module(name)


def _resolve(path: str) -> Any:
    where, _, name = path.partition(":")
    return _attribute(module(where), name)


def _attribute(owner: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        owner = getattr(owner, name)
    return owner


def _mentioned_in(owner: Any) -> set[str]:
    """The names in the code of a function, or of the functions of a class."""
    members = vars(owner).values() if inspect.isclass(owner) else [owner]
    names: set[str] = set()
    for member in members:
        function = inspect.unwrap(getattr(member, "fget", None) or member)
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is not None:
            names |= _names(code)
    return names


def _names(code: CodeType) -> set[str]:
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(code.co_varnames, *inner)
