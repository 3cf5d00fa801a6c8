"""What the agent says and can do. This is the file to make your own."""

from __future__ import annotations

import json

from livekit.agents import Agent, RunContext, function_tool
from livekit.agents.voice import SpeechHandle

from build_aware import current_build


class Assistant(Agent):
    """A friendly voice assistant that knows which build it is."""

    def __init__(self) -> None:
        super().__init__(
            instructions=(
                "You are a friendly voice assistant. Keep answers short and free of markup, "
                "because they are spoken. When asked which build, version or deployment you "
                "are, call the tool which_build and say what it returns in a sentence."
            )
        )

    def greet(self) -> SpeechHandle:
        """Speak first; called when the user is there."""
        return self.session.generate_reply(instructions="Greet the user and offer your help.")

    @function_tool
    async def which_build(self, context: RunContext[None]) -> str:
        """Look up which build of this agent is speaking: id, version, commit and deployment."""
        facts = current_build().facts()
        del facts["origin"]
        return json.dumps({name: value for name, value in facts.items() if value})
