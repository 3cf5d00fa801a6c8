"""What the documents say is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest
import typer

from build_aware import AgentServer, livekit_private
from agent import session
from bench.soak import __main__ as soak
from bench.soak import fleet, guest, judge, leftovers, plan, troubles
from build_aware.adoption import (
    adopt,
    adoption,
    alarm,
    keeper,
    last_look,
    left_jobs,
    rollout_room,
    sweep,
    watchlist,
)
from build_aware.adoption import judgement as waiting
from build_aware.adoption.backoff import MAX_PAUSE_S
from build_aware.cli import rollout
from build_aware.dispatch import following, rollout_document, rooms
from build_aware.drain.budget import EXIT_S, SHUTDOWN_S
from build_aware.drain.exit_codes import ExitCode
from build_aware.identity import cautions, files
from build_aware.job import ending, entrypoint, users
from build_aware.rehearsal import cli, scenario, verdict
from build_aware.server import connection, status
from build_aware.settings import Settings
from tests.support.paths import ROOT

BUILD_ID: Final = (ROOT / "docs" / "build-id.md").read_text("utf-8")
ADOPTION: Final = (ROOT / "docs" / "adoption.md").read_text("utf-8")
DRAINING: Final = (ROOT / "docs" / "draining.md").read_text("utf-8")
REHEARSAL: Final = (ROOT / "docs" / "rehearsal.md").read_text("utf-8")
ROLLOUT: Final = (ROOT / "docs" / "rollout.md").read_text("utf-8")
SOAK: Final = (ROOT / "docs" / "soak.md").read_text("utf-8")


def test_every_exit_code_is_in_the_table() -> None:
    table = re.findall(r"^\| (\d+) \|", DRAINING, re.MULTILINE)
    assert [int(code) for code in table] == [int(code) for code in ExitCode]


def test_the_numbers_of_the_drain_are_those_of_the_code() -> None:
    defaults = Settings.model_validate({})
    assert f"`AGENT_DRAIN_TIMEOUT={defaults.drain_timeout_s:g}`, the default" in DRAINING
    assert "after `AGENT_JOIN_TIMEOUT`; if that is not set" in DRAINING
    assert defaults.join_timeout_s is None
    assert f"| `drain_shutdown_s` | {SHUTDOWN_S:g} s" in DRAINING
    assert f"| `drain_exit_s` | {EXIT_S:g} s" in DRAINING
    assert f"back within {users.RETURN_S:g} s" in DRAINING
    assert f"ended {ending.CLOSE_S:g} s after its reason" in DRAINING
    _, session_end_s = livekit_private.limits_s(AgentServer())
    assert f"{ending.CLOSE_S + session_end_s:g} s in all by default" in DRAINING
    assert f"no user has been there for {users.ALONE_S:g} s, and the worker drains" in DRAINING
    assert f"still runs | {entrypoint.GRACE_S:g} s, then it is cancelled" in DRAINING
    assert f"has not connected | {entrypoint.CONNECT_S:g} s after that" in DRAINING
    assert f"when no user has been there for {users.ALONE_S:g} s" in DRAINING
    assert f"AGENT_STATUS_PORT={session.STATUS_PORT}" in DRAINING
    assert f"at most {adoption.OWED_S:g} seconds after the stop signal" in DRAINING
    assert f"waits up to {last_look.LAST_OFFERS_S:g} seconds" in DRAINING
    assert f"a user is there {users.AFTER_OUTAGE_S:g} s after the agent is back" in DRAINING
    assert f"worker that is refused keeps trying for {connection.PATIENCE_S:g} seconds" in DRAINING


def test_the_build_id_is_said_as_it_is_computed() -> None:
    assert f"the first {files.ID_LENGTH} hex digits" in BUILD_ID
    assert f"More than {cautions.LARGE_BYTES / 1e6:g} MB" in BUILD_ID
    assert f"more than {cautions.SLOW_S:g} s of CPU" in BUILD_ID
    assert f"More than {files.MAX_BYTES / 1e9:g} GB" in BUILD_ID
    for name in (*files.NEVER - {"venv"}, *files.NEVER_ENDINGS):
        assert f"`{name}`" in BUILD_ID or f"`*{name}`" in BUILD_ID
    for message in (cautions.EXPENSIVE, cautions.OUTSIDE):
        assert any(f"| {start} |" in BUILD_ID for start in starts(message))


def starts(message: str) -> list[str]:
    """The message, shortened to its first words: 1, 2, 3, and so on."""
    words = message.split()
    return [" ".join(words[:end]) for end in range(1, len(words) + 1)]


def test_the_numbers_of_adoption_are_those_of_the_code() -> None:
    assert (waiting.OFFER_S, sweep.SWEEP_S, sweep.MAX_SHARE) == (3, 2, 0.02)
    assert "older than three seconds" in ADOPTION
    assert "once every two seconds (give or take a quarter)" in ADOPTION
    assert "more than 2 % of the time" in ADOPTION
    assert (alarm.WARNING_S, MAX_PAUSE_S, watchlist.RECHECK_S) == (60, 60, 60)
    assert "all of them\nonce a minute" in ADOPTION
    assert f"waits for {adopt.BUSY_WAIT_S:g} seconds" in ADOPTION
    assert f"Until {rooms.HOLD_S:g} seconds after" in ADOPTION
    assert f"come back within {rooms.RETURN_S:g} seconds" in ADOPTION
    assert "pauses double up to a minute" in ADOPTION
    assert "looked at once a minute" in ADOPTION
    for metric in (alarm.WAITING, adopt.ADOPTED, alarm.BUSY, alarm.FAILING):
        assert all(family.name in ADOPTION for family in metric.describe())


def test_the_numbers_of_the_rollout_are_those_of_the_code() -> None:
    text = " ".join(ROLLOUT.split())
    assert keeper.STABLE_S == 10
    assert "After ten seconds the new worker makes its build **current**" in text
    assert following.FOLLOWED_S == 4
    assert "Within four seconds the workers of all other builds start to refuse" in text
    assert left_jobs.LEFT_S == 3.5
    assert "looks at the room 3.5 seconds later" in text
    assert left_jobs.LISTED_S - left_jobs.LEFT_S == 2
    assert "within two more seconds that another worker has the job" in text
    assert (following.PAUSE_S, following.LONGEST_PAUSE_S) == (60, 15 * 60)
    assert "for one minute." in text
    assert "takes all jobs meant for that build for one minute" in text
    assert "the next break is twice as long, up to 15 minutes" in text
    assert following.GONE_AFTER == 2
    assert "After two failed tests in a row" in text
    assert keeper.UNOPPOSED_S == 30
    assert "answers within half a minute" in text
    assert rollout.PUT_BACK_S == 4
    assert "it first waits four seconds, in case" in text
    assert pytest.approx(0.040) == sweep.SWEEP_S * sweep.MAX_SHARE
    assert "takes more than 40 ms" in text
    assert rollout_room.FOR_EVER_S == 4294967295
    assert "set to 4294967295" in text
    assert f"for the agent name `{rollout_room.NOBODY}`" in text
    for metric in (status.CURRENT, status.WANTED, status.PAUSED):
        assert all(family.name in ROLLOUT for family in metric.describe())


def test_the_document_in_the_page_on_the_rollout_is_one() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", ROLLOUT, re.DOTALL)
    read = rollout_document.read(shown)
    assert json.loads(rollout_document.write(read)) == json.loads(shown)
    standing = (read.current, read.previous, read.ramp)
    assert all(each is not None and read.knows(each.build) for each in standing)


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def anchors(document: Path) -> set[str]:
    """The anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_into_documents_lead_to_a_heading() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(
            r"\]\((?!http)([^)#]*)#([^)]+)\)", document.read_text("utf-8")
        ):
            path = document.parent / target if target else document
            assert anchor in anchors(path), f"{document.name}: {target}#{anchor}"


def test_every_option_and_way_to_stop_of_a_rehearsal_is_in_its_table() -> None:
    commands = typer.main.get_command(cli.app)
    options = {name for parameter in commands.params for name in parameter.opts} - {"--help"}
    table = set(re.findall(r"^\| `(--[a-z-]+)", REHEARSAL, re.MULTILINE))
    assert options == table
    assert {f"| `{way}` |" for way in scenario.STOPS} <= set(
        re.findall(r"^\| `[a-z]+` \|", REHEARSAL, re.MULTILINE)
    )


def test_the_numbers_of_a_rehearsal_are_those_of_the_code() -> None:
    defaults = scenario.Options()
    for text in (
        f"| `--deploys N` | {defaults.deploys} |",
        f"| `--workers N` | {defaults.workers} |",
        f"| `--sessions N` | {defaults.sessions} |",
        f"| `--length MIN MAX` | {defaults.length_s[0]:g} {defaults.length_s[1]:g} |",
        f"| `--overlap S` | {defaults.overlap_s:g} |",
        f"| `--untargeted SHARE` | {defaults.untargeted:g} |",
        f"| `--patience S` | {defaults.patience_s:g} |",
        f"| `--grace S` | {defaults.grace_s:g} |",
        f"| `--seed N` | {defaults.seed} |",
        f"still runs {defaults.grace_s:g} s after its last user",
        f"arrives every {scenario.EVERY_S:g} s",
        f"{scenario.DEPLOY_S:g} s each",
        f"came within {verdict.DEFAULT_LIMITS.patience_s:g} s",
        f"longer than {verdict.DEFAULT_LIMITS.together_s:g} s",
    ):
        assert text in REHEARSAL, text
    codes = re.findall(r"^\| (\d+) \|", REHEARSAL, re.MULTILINE)
    assert [int(code) for code in codes] == [cli.CLEAN, cli.TROUBLE, cli.USAGE, cli.INTERRUPTED]


def test_every_option_fault_and_way_of_a_soak_is_in_its_tables() -> None:
    # argparse has no public way to ask for its options.
    options = {name for action in soak.parser()._actions for name in action.option_strings}
    table = set(re.findall(r"^\| `(--[a-z-]+)", SOAK, re.MULTILINE))
    assert options - {"-h", "--help"} == table
    words = set(re.findall(r"^\| `([a-z0-9-]+)` \|", SOAK, re.MULTILINE))
    assert words - table == {*plan.KINDS, *plan.WAYS}
    wrongs = set(re.findall(r"^\| ([a-z]+) \|", SOAK, re.MULTILINE))
    assert {*troubles.WRONGS, "answer", "kept"} <= wrongs


def test_the_numbers_of_a_soak_are_those_of_the_code() -> None:
    seconds = {kind: " to ".join(f"{s:g}" for s in both) for kind, both in plan.SECONDS.items()}
    for text in (
        f"| `--minutes N` | {soak.DEFAULTS.minutes:g} |",
        f"| `--each` | | instead: {plan.EACH_S / 60:.1f} minutes",
        f"| `--seed N` | {soak.DEFAULTS.seed} |",
        f"A user comes every {plan.USER_EVERY_S:g} s",
        f"current build, in {plan.ASKS['current']} of {sum(plan.ASKS.values())} cases",
        f"any build after {plan.WAIT_S} s, in {plan.ASKS['fallback']}",
        f"nothing, in {plan.ASKS['nothing']}; and for the steady worker, in {plan.ASKS['steady']}",
        f"A fault comes every {plan.FAULT_EVERY_S:g} s",
        f"come {plan.LATE_S[0]:g} to {plan.LATE_S[1]:g} s after the room was made",
        f"SIGCONT after {seconds['stop-worker']} s",
        f"SIGCONT after {seconds['stop-job']} s",
        f"started again after {seconds['kill-server']} s",
        f"two busy loops for {seconds['hog']} s",
        f"for {plan.SECONDS['answer-401'][0]:g} s, new ones get 401",
        f"from its start to {judge.AFTER_S:g} s after its end",
        f"no answer for {troubles.LOST_S:g} s; for the last {troubles.UP_S:g} of them",
        f"began in the {troubles.ENDED_S:g} s before",
        f"had {troubles.LEARNS_S:g} s to see",
        f"more than\n{leftovers.GRACE_S:g} s without users",
    ):
        assert text in SOAK, text
    assert (fleet.AT_A_TIME, guest.GIVE_UP_S) == (2, 60)
    codes = re.findall(r"^\| (\d+) \|", SOAK, re.MULTILINE)
    assert [int(code) for code in codes] == [
        soak.CLEAN,
        soak.TROUBLE,
        soak.USAGE,
        soak.INTERRUPTED,
    ]
