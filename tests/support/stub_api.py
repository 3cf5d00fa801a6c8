"""What stands in for the client of the server's API: rooms in memory, and every call counted."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Final, cast

from livekit.api import LiveKitAPI, TwirpError, TwirpErrorCode
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch, AgentDispatchState
from livekit.protocol.models import ParticipantInfo, Room
from livekit.protocol.room import (
    CreateRoomRequest,
    ListParticipantsRequest,
    ListParticipantsResponse,
    ListRoomsRequest,
    ListRoomsResponse,
    RoomParticipantIdentity,
    UpdateParticipantRequest,
    UpdateRoomMetadataRequest,
)

from build_aware.adoption.judgement import Candidate
from build_aware.dispatch import ages
from build_aware.dispatch.attributes import AGENT_NAME, DISPATCH, JOB

NAME: Final = "interpreter"
ROOM: Final = "call"
LONG_AGO_S: Final = 1


def candidate() -> Candidate:
    """A worker of the build `ours`, which takes untargeted jobs too."""
    return Candidate(NAME, "", lambda name: name == "ours", "accept")


def asks(
    dispatch_id: str,
    language: str = "",
    *,
    build: str = "",
    name: str = NAME,
    created_s: float = LONG_AGO_S,
) -> AgentDispatch:
    """A dispatch, from long ago if nothing else is said, in Unix time."""
    metadata = {"language": language, "agent_build": build}
    return AgentDispatch(
        id=dispatch_id,
        agent_name=name,
        metadata=json.dumps({key: value for key, value in metadata.items() if value}),
        state=AgentDispatchState(created_at=int(created_s * 1e9)),
    )


def a_user(identity: str = "user") -> ParticipantInfo:
    """A user who has been there for long."""
    return ParticipantInfo(sid=f"PA_{identity}", identity=identity, joined_at=LONG_AGO_S)


def an_agent(
    dispatch_id: str, *, job_id: str | None = None, identity: str | None = None, name: str = NAME
) -> ParticipantInfo:
    """The agent of a build-aware worker."""
    job_id = job_id or f"AJ_{dispatch_id}"
    return ParticipantInfo(
        sid=f"PA_{job_id}",
        identity=identity or f"agent-{job_id}",
        kind=ParticipantInfo.Kind.AGENT,
        attributes={AGENT_NAME: name, DISPATCH: dispatch_id, JOB: job_id},
    )


def job_of(dispatch: AgentDispatch, job_id: str | None = None, room: str = ROOM) -> Job:
    """A job that was made of a dispatch."""
    return Job(
        id=job_id or f"AJ_{dispatch.id}",
        dispatch_id=dispatch.id,
        agent_name=dispatch.agent_name,
        metadata=dispatch.metadata,
        room=Room(name=room, sid=f"RM_{room}"),
    )


class StubServer:
    """The API of a server.

    Attributes:
        rooms: what a list of all rooms has.
        participants: who is in each room.
        dispatches: what each room asked for.
        calls: how often each method was called.
        created: what rooms were made with.
        removed: the identities that were removed.
        ghosts: the identities of those who are listed although their node is gone.
        asked_for: how often each identity was asked for.
        error: what every call raises, if anything.
    """

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self.participants: dict[str, list[ParticipantInfo]] = {}
        self.dispatches: dict[str, list[AgentDispatch]] = {}
        self.calls: Counter[str] = Counter()
        self.removed: list[str] = []
        self.ghosts: set[str] = set()
        self.asked_for: Counter[str] = Counter()
        self.created: list[CreateRoomRequest] = []
        self.error: Exception | None = None

    def has(
        self,
        *dispatches: AgentDispatch,
        there: list[ParticipantInfo] | None = None,
        room: str = ROOM,
        publishers: int = 0,
    ) -> Room:
        """From now on it has this room, with a user in it if nobody else is named."""
        self.dispatches[room] = list(dispatches)
        self.participants[room] = [a_user()] if there is None else there
        users = sum(each.kind != ParticipantInfo.Kind.AGENT for each in self.participants[room])
        made = Room(name=room, sid=f"RM_{room}", num_participants=users, num_publishers=publishers)
        self.rooms = [*(each for each in self.rooms if each.name != room), made]
        return made

    @property
    def api(self) -> LiveKitAPI:
        """Its client."""
        room = SimpleNamespace(
            list_rooms=self._list_rooms,
            create_room=self._create_room,
            update_room_metadata=self._update_room_metadata,
            list_participants=self._list_participants,
            remove_participant=self._remove_participant,
            update_participant=self._update_participant,
        )
        dispatch = SimpleNamespace(list_dispatch=self._list_dispatch)
        return cast(LiveKitAPI, SimpleNamespace(room=room, agent_dispatch=dispatch))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[LiveKitAPI]:
        """Its client, as adoption opens it."""
        yield self.api

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        ages._DATE.set(time.time())  # as the answer of a real server does
        if self.error is not None:
            raise self.error

    async def _list_rooms(self, request: ListRoomsRequest) -> ListRoomsResponse:
        self._called("ListRooms")
        asked = [each for each in self.rooms if not request.names or each.name in request.names]
        return ListRoomsResponse(rooms=asked)

    async def _create_room(self, request: CreateRoomRequest) -> Room:
        self._called("CreateRoom")
        self.created.append(request)
        return self.has(there=[], room=request.name)

    async def _update_room_metadata(self, request: UpdateRoomMetadataRequest) -> Room:
        self._called("UpdateRoomMetadata")
        for room in self.rooms:
            if room.name == request.room:
                room.metadata = request.metadata
                return room
        raise TwirpError(TwirpErrorCode.NOT_FOUND, "room does not exist", status=404)

    async def _list_participants(
        self, request: ListParticipantsRequest
    ) -> ListParticipantsResponse:
        self._called("ListParticipants")
        return ListParticipantsResponse(participants=self.participants[request.room])

    async def _remove_participant(self, request: RoomParticipantIdentity) -> Any:
        self._called("RemoveParticipant")
        self._answer_for(request.room, request.identity)
        self.removed.append(request.identity)
        left = [
            each for each in self.participants[request.room] if each.identity != request.identity
        ]
        self.participants[request.room] = left

    async def _update_participant(self, request: UpdateParticipantRequest) -> None:
        self._called("UpdateParticipant")
        assert request == UpdateParticipantRequest(room=request.room, identity=request.identity)
        self.asked_for[request.identity] += 1
        self._answer_for(request.room, request.identity)

    def _answer_for(self, room: str, identity: str) -> None:
        if all(each.identity != identity for each in self.participants[room]):
            raise TwirpError(TwirpErrorCode.NOT_FOUND, "participant does not exist", status=404)
        if identity in self.ghosts:
            raise TwirpError(TwirpErrorCode.UNAVAILABLE, "no response from servers", status=503)

    async def _list_dispatch(self, room_name: str) -> list[AgentDispatch]:
        self._called("ListDispatch")
        return list(self.dispatches[room_name])
