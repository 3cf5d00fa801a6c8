"""`naive`: refuses other builds' rooms as `reject()` does when nothing else is said.

This is wrong, and here on purpose. LiveKit's default is `terminate=True`, which is written out
below: it ends the job for everybody, so the worker of the right build is never asked.
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
        await request.reject(terminate=True)
        return
    await request.accept()


server.rtc_session(entrypoint, on_request=on_request)

if __name__ == "__main__":
    cli.run_app(server)
