"""`stock`: a plain starter agent. It takes every job, whatever the room asks for."""

from __future__ import annotations

from livekit.agents import cli

from build_aware.rehearsal.contestants.starter import entrypoint, new_server

server = new_server()
server.rtc_session(entrypoint)

if __name__ == "__main__":
    cli.run_app(server)
