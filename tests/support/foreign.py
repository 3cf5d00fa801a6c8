"""Agents as other teams write them, started as real workers, and users who talk to them.

The agents are in `tests/agents`, written for LiveKit. A copy that is ours has its one import
changed; a stock copy is left alone, so that the two differ by that line.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from livekit import rtc
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import CreateRoomRequest

from build_aware.dispatch.attributes import PUBLISHES_FOR
from build_aware.testbed.environ import environment
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.user import PATIENCE_S, User
from build_aware.testbed.waiting import DEADLINE_S, until
from tests.support.paths import ROOT

Side: TypeAlias = Literal["ours", "stock"]
Talk: TypeAlias = Literal["text", "data", "none"]

AGENTS: Final = ROOT / "tests" / "agents"
IMPORT: Final = re.compile(r"^from livekit\.agents import ((?:AgentServer, )?cli)$", re.MULTILINE)
"""The line that a team changes."""

BESIDE: Final = {
    "rules.py": "rules.py",
    "journal.py": "journal.py",
    "late.py": "late.py",
    "plugin.py": "livekit/plugins/foreign/__init__.py",
}
"""What agents import, and where they find it."""

OTHER_BUILD: Final = "000000000000"
"""The id of a build that nobody has."""


@dataclass(frozen=True)
class Kind:
    """One kind of agent.

    Attributes:
        name: the name of its file.
        agent_name: what rooms call it; most get it from `LIVEKIT_AGENT_NAME`.
        talks: how it answers its users.
        shown_as: the participant's name that it accepts jobs with.
        hears: whether its users have to speak before they are heard.
    """

    name: str
    agent_name: str = "foreign"
    talks: Talk = "data"
    shown_as: str = ""
    hears: bool = False


STARTER: Final = Kind("starter", agent_name="my-agent", talks="text")
REMEMBERS: Final = Kind("remembers", talks="text")
TRANSFERS: Final = Kind("transfers")
ECHO: Final = Kind("echo")
NEVER_RETURNS: Final = Kind("never_returns", talks="none")
FIXED_IDENTITY: Final = Kind("fixed_identity", shown_as="Support")
SIGNALS_AT_IMPORT: Final = Kind("signals_at_import")
SIGNALS_ON_THE_LOOP: Final = Kind("signals_on_the_loop")
REFUSES: Final = Kind("refuses", shown_as="Front desk")
ENDINGS: Final = Kind("endings", talks="text")
LISTENER: Final = Kind("listener", talks="none")
TRANSLATORS: Final = Kind("translators", agent_name="translator")
CRASHES: Final = Kind("crashes", talks="none")
CALLBACK_RAISES: Final = Kind("callback_raises")
AVATAR: Final = Kind("avatar", talks="text")
LEGACY: Final = Kind("legacy", talks="text", shown_as="Legacy")
THREADS: Final = Kind("threads")
TRANSCRIBER: Final = Kind("transcriber", talks="text", hears=True)
VARIABLES: Final = Kind("variables", talks="none")
CHILDREN: Final = Kind("children")
BLOCKS: Final = Kind("blocks")
COUNTS_SIGNALS: Final = Kind("counts_signals")

SERVING: Final = (
    STARTER,
    REMEMBERS,
    TRANSFERS,
    ECHO,
    NEVER_RETURNS,
    FIXED_IDENTITY,
    SIGNALS_AT_IMPORT,
    SIGNALS_ON_THE_LOOP,
    REFUSES,
    ENDINGS,
    LISTENER,
    TRANSLATORS,
    CALLBACK_RAISES,
    AVATAR,
    LEGACY,
    THREADS,
    TRANSCRIBER,
    CHILDREN,
)
"""The kinds of which each call goes on until its user leaves."""


class Journal:
    """What an agent has told its test; see `tests/agents/journal.py`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def find(self, event: str = "", **facts: Any) -> list[dict[str, Any]]:
        """The notes of this event, or of all, with these facts."""
        text = self.file.read_text("utf-8") if self.file.exists() else ""
        notes: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        return [
            note for note in notes if event in ("", note["event"]) and facts.items() <= note.items()
        ]

    async def noted(self, event: str, **facts: Any) -> dict[str, Any]:
        """Wait for a note, and return it."""
        found = await until(lambda: self.find(event, **facts), f"{event} {facts} to be noted")
        return found[0]


@dataclass(frozen=True)
class Copy:
    """A copy of an agent, in a folder of its own.

    Attributes:
        kind: what it is a copy of.
        side: whether its import is changed.
        folder: where it is; with a project file, as it is a build of its own.
        journal: what it tells its test.
    """

    kind: Kind
    side: Side
    folder: Path
    journal: Journal

    @property
    def env(self) -> dict[str, str]:
        """What it needs in its environment."""
        env = {"JOURNAL": str(self.journal.file), "LIVEKIT_AGENT_NAME": self.kind.agent_name}
        return env if self.side == "stock" else env | {"PYTHONPATH": str(_site(self.folder.parent))}

    async def start(
        self, worker: Callable[..., Awaitable[Process]], server: LiveKitServer, **options: Any
    ) -> Process:
        """Start it as a worker.

        Args:
            worker: what starts workers: the fixture, or the test bed's.
            server: where it registers.
            options: more for the test bed.
        """
        defaults: dict[str, Any] = {"command": ("agent.py", "start"), "folder": self.folder}
        return await worker(server, **(defaults | self.env | {"name": self.folder.name} | options))

    async def run(self, *arguments: str, said: str = "", **env: str) -> tuple[int, str, str]:
        """Run one of its commands to the end: its exit code, its output and its errors."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "agent.py", *arguments),
            cwd=self.folder,
            env=environment(**(self.env | env)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(said.encode()), DEADLINE_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, output.decode(), errors.decode()

    async def build_id(self) -> str:
        """The id of this build, as its command tells it."""
        code, output, errors = await self.run("build", "--json")
        assert code == 0, errors
        build_id: str = json.loads(output)["id"]
        return build_id


def copy(
    kind: Kind,
    folder: Path,
    *,
    side: Side = "ours",
    change: tuple[str, str] | None = None,
) -> Copy:
    """Copy an agent to a folder.

    Args:
        kind: the agent.
        folder: a folder that does not exist.
        side: whether its import is changed.
        change: a text in it, and what stands there instead.
    """
    folder.mkdir(parents=True)
    source = (AGENTS / f"{kind.name}.py").read_text("utf-8")
    if side == "ours":
        source = ours(source)
    if change is not None:
        assert change[0] in source, f"{change[0]} is not in {kind.name}.py"
        source = source.replace(*change)
    (folder / "agent.py").write_text(source, "utf-8")
    for name, place in BESIDE.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(AGENTS / name, folder / place)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "foreign"\nversion = "1.0.0"\ndependencies = ["livekit-agents"]\n'
    )
    return Copy(kind, side, folder, Journal(folder.parent / f"{folder.name}.journal"))


def ours(source: str) -> str:
    """The source of an agent, with the one line changed."""
    changed, count = IMPORT.subn(r"from build_aware import \1", source)
    assert count == 1, "an agent has one import that its team changes"
    return changed


def _site(folder: Path) -> Path:
    """A folder with this package and nothing else of this repository, as if it were installed."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    package = site / "build_aware"
    if not package.exists():
        package.symlink_to(ROOT / "build_aware")
    return site


class Caller:
    """A user who talks to an agent in the way that its kind understands."""

    def __init__(self, kind: Kind, user: User) -> None:
        self.kind = kind
        self.user = user
        self.answers: list[str] = []
        self._microphone: asyncio.Task[rtc.AudioSource] | None = None
        user.room.on("data_received", self._on_data)

    @classmethod
    async def joins(
        cls,
        join: Callable[..., Awaitable[User]],
        server: LiveKitServer,
        kind: Kind,
        room: str,
        *,
        identity: str = "user",
    ) -> Caller:
        """Join a room. The agent is told of the user at once, and of the user's leave."""
        caller = cls(kind, await join(server, room, identity=identity))
        await caller.user.be_noticed()
        if kind.hears:
            # Nobody may be there yet who subscribes.
            caller._microphone = asyncio.create_task(caller.user.unmute())
        return caller

    @property
    def agents(self) -> list[rtc.RemoteParticipant]:
        """The agents in the room, without their avatars."""
        return [agent for agent in self.user.agents if PUBLISHES_FOR not in agent.attributes]

    async def agent(
        self, *, besides: rtc.RemoteParticipant | None = None, deadline_s: float = DEADLINE_S
    ) -> rtc.RemoteParticipant:
        """Wait for an agent that is not `besides`; identities may be the same."""

        def present() -> rtc.RemoteParticipant | None:
            others = (agent for agent in self.agents if besides is None or agent.sid != besides.sid)
            return next(others, None)

        return await until(present, f"an agent in {self.user.room_name}", deadline_s)

    async def is_answered(self) -> None:
        """Hold that the agent is there: it answers, or it stays if it never does."""
        if self.kind.talks == "text":
            await self.user.insist("still there?", expect="still there?")
        elif self.kind.talks == "data":
            assert "still there?" in await self.ask("still there?")
        else:
            assert self.agents, f"no agent in {self.user.room_name}"

    async def ask(self, text: str) -> str:
        """Send data until there is an answer, and return it."""
        before = len(self.answers)
        for _ in range(round(DEADLINE_S / PATIENCE_S)):
            await self.send(text)
            try:
                await until(lambda: len(self.answers) > before, "an answer", PATIENCE_S)
            except TimeoutError:
                continue
            return self.answers[before]
        raise TimeoutError(f"no answer to {text!r} in {self.user.room_name}")

    async def send(self, text: str) -> None:
        """Send data once."""
        await self.user.room.local_participant.publish_data(text, topic="ask")

    async def nobody_but(self, *agents: rtc.RemoteParticipant, for_s: float) -> None:
        """Hold for a while that these agents are there, and no others."""
        expected = {agent.sid for agent in agents}
        held_until = time.monotonic() + for_s
        while time.monotonic() < held_until:
            assert {agent.sid for agent in self.agents} == expected
            await asyncio.sleep(0.1)

    async def leave(self) -> None:
        """Leave the room."""
        if self._microphone is not None:
            self._microphone.cancel()
        await self.user.leave()

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if packet.topic == "answer":
            self.answers.append(packet.data.decode())


async def ask_for(
    server: LiveKitServer, kind: Kind, room: str, *, target: str = "", each: tuple[str, ...] = ("",)
) -> None:
    """Create a room that asks for agents, as a backend does before anybody joins.

    Args:
        server: where the room is.
        kind: which agent it asks for.
        room: its name.
        target: the build that it asks for; empty for any.
        each: the metadata of each of its dispatches.
    """
    agents = [RoomAgentDispatch(agent_name=kind.agent_name, metadata=text) for text in each]
    metadata = json.dumps({"agent_build": target}) if target else ""
    async with server.api() as client:
        await client.room.create_room(
            CreateRoomRequest(name=room, metadata=metadata, agents=agents)
        )
