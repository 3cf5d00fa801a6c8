"""Where there is a rollout, and which workers may change it."""

from __future__ import annotations

import logging
from typing import Any, Final

import pytest
from livekit.agents import AgentServer
from livekit.agents.worker import ServerType

from build_aware.adoption.adoption import Adoption
from build_aware.dispatch.acceptance import Acceptance
from build_aware.dispatch.following import Following
from build_aware.dispatch.rooms import Rooms
from build_aware.identity.build import Build
from build_aware.server import adopting
from build_aware.settings import Settings

BUILD: Final = Build("ours")
FOLLOWS: Final = "this worker follows the rollout and does not change it"
NOWHERE: Final = "there is no rollout here"


def adopts(build: Build = BUILD, **said: Any) -> Adoption | None:
    environ = {name: said.pop(name) for name in list(said) if name.isupper()}
    rooms = Rooms()
    circumstances: dict[str, Any] = {
        "server_type": ServerType.ROOM,
        "is_cloud": False,
        "dev": False,
        "untargeted": "accept",
        "is_replaced": lambda: False,
    } | said
    return adopting.adoption(
        AgentServer(),
        Settings.model_validate(environ),
        build,
        rooms=rooms,
        acceptance=Acceptance(build, untargeted="accept", is_full=lambda: False, rooms=rooms),
        following=Following(build.id),
        sessions=dict,
        connected=lambda: True,
        may_adopt=lambda: True,
        **circumstances,
    )


def may_write(adoption: Adoption | None) -> bool:
    assert adoption is not None
    assert adoption._keeper is not None
    return adoption._keeper._may_write()


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize("environ", [{}, {"AGENT_ROLLOUT": "newest"}, {"AGENT_ROLLOUT": "manual"}])
def test_a_worker_in_production_keeps_the_rollout(
    environ: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    adoption = adopts(**environ)
    assert may_write(adoption)
    assert adoption is not None
    assert adoption._keeper is not None
    assert adoption._keeper._newest is (environ.get("AGENT_ROLLOUT") != "manual")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"dev": True}, "it runs for development"),
        ({"untargeted": "reject"}, "it refuses jobs that name no build"),
        ({"build": Build("ours", dirty=True)}, "its checkout has changes"),
    ],
)
def test_others_follow_and_say_why(
    said: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not may_write(adopts(**said))
    (record,) = caplog.records
    assert record.getMessage() == FOLLOWS
    assert vars(record)["why"].startswith(why)
    # Who deploys from such a checkout expects something else.
    assert (record.levelname == "WARNING") is ("build" in said)


def test_so_does_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_aware.livekit_private.is_in_simulation", lambda _: True)
    assert not may_write(adopts())


def test_a_checkout_with_changes_whose_build_was_named_may_write() -> None:
    assert may_write(adopts(Build("ours", dirty=True, origin="env")))


def test_a_worker_that_is_replaced_writes_no_more() -> None:
    replaced = False
    adoption = adopts(is_replaced=lambda: replaced)
    assert may_write(adoption)
    replaced = True
    assert not may_write(adoption)


@pytest.mark.parametrize("mode", ["newest", "manual"])
@pytest.mark.parametrize(
    "said",
    [
        {"is_cloud": True},
        {"is_cloud": True, "AGENT_ADOPTION": "on"},
        {"AGENT_ADOPTION": "off"},
        {"server_type": ServerType.PUBLISHER},
    ],
)
def test_where_nothing_would_fail_open_there_is_none_and_whoever_sets_it_is_warned(
    said: dict[str, Any], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    def has_rollout(**more: Any) -> bool:
        adoption = adopts(**said, **more)
        return adoption is not None and adoption._keeper is not None

    assert not has_rollout()
    assert NOWHERE not in caplog.text
    assert not has_rollout(AGENT_ROLLOUT="off")
    assert NOWHERE not in caplog.text
    assert not has_rollout(AGENT_ROLLOUT=mode)
    (warning,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert NOWHERE in warning.getMessage()


def test_it_can_be_turned_off(caplog: pytest.LogCaptureFixture) -> None:
    adoption = adopts(AGENT_ROLLOUT="off")
    assert adoption is not None
    assert adoption._keeper is None
    assert caplog.text == ""
