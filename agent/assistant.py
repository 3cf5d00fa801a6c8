"""What the agent says and can do. This is the file to make your own."""

from __future__ import annotations

import json

from livekit.agents import Agent, RunContext, function_tool

from .build import Build


class Assistant(Agent):
    """A friendly voice assistant that knows which build it is."""

    def __init__(self, build: Build) -> None:
        super().__init__(
            instructions=(
                "You are a friendly voice assistant. Keep answers short and free of markup, "
                "because they are spoken. When asked which build, version or deployment you "
                "are, call the tool which_build and answer with what it returns."
            )
        )
        self._build = build

    def greet(self) -> None:
        """Speak first; called when the user is there."""
        self.session.generate_reply(instructions="Greet the user and offer your help.")

    @function_tool
    async def which_build(self, context: RunContext[None]) -> str:
        """Tell which build of this agent is speaking: id, version, commit and deployment."""
        facts = {name: value for name, value in self._build.facts().items() if value}
        return f"I am build {self._build.id}. {json.dumps(facts)}"
