"""`naive`: refuses other builds' rooms with a bare `reject()`, as the documentation shows it.

This is wrong, and here on purpose: `reject()` ends the job for everybody, so that LiveKit does
not ask the worker of the right build any more.
"""

from __future__ import annotations

import json

from livekit.agents import JobRequest, cli

from build_aware.rehearsal.contestants.starter import BUILD, entrypoint, new_server

server = new_server()


async def on_request(request: JobRequest) -> None:
    """Take the job if its room asks for this build, or for none."""
    wanted = json.loads(request.room.metadata or "{}").get("agent_build")
    if wanted not in (None, BUILD):
        await request.reject()
        return
    await request.accept()


server.rtc_session(entrypoint, on_request=on_request)

if __name__ == "__main__":
    cli.run_app(server)
