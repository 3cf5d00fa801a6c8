"""A fake OpenAI on loopback: it streams an answer, calls a tool, and speaks silence."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

from aiohttp import web

SAMPLE_RATE = 24000


class FakeOpenAI:
    """The parts of the API that the speech pipeline uses.

    Attributes:
        spoken: the texts that were turned to speech.
        understands: what it takes any speech for.
        refuses_the_key: whether it answers as to a wrong API key.
        messages: the conversation that it was asked to go on with last.
    """

    def __init__(self) -> None:
        self.spoken: list[str] = []
        self.understands = ""
        self.refuses_the_key = False
        self.messages: list[dict[str, Any]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> FakeOpenAI:
        """Listen on a free port."""
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/audio/speech", self._speech)
        application.router.add_post("/v1/audio/transcriptions", self._transcription)
        application.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def settings(self) -> dict[str, str]:
        """What the environment of a worker that uses it needs."""
        assert self._runner is not None, "started by now"  # noqa: S101
        port = self._runner.addresses[0][1]
        return {
            "AGENT_MODELS": "openai",
            "OPENAI_API_KEY": "sk-fake",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        }

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self.refuses_the_key:
            error = {"message": "Incorrect API key provided.", "code": "invalid_api_key"}
            return web.json_response({"error": error}, status=401)
        self.messages = (await request.json())["messages"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas = _answer(self.messages[-1])
        end = "tool_calls" if "tool_calls" in deltas[0] else "stop"
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        for choice in [*choices, {"index": 0, "delta": {}, "finish_reason": end}]:
            chunk = {
                "id": "chatcmpl-fake",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "fake",
                "choices": [choice],
            }
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _transcription(self, request: web.Request) -> web.Response:
        await request.post()
        return web.json_response({"text": self.understands})

    async def _speech(self, request: web.Request) -> web.Response:
        self.spoken.append((await request.json())["input"])
        audio = io.BytesIO()
        with wave.open(audio, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(bytes(SAMPLE_RATE // 5 * 2))
        return web.Response(body=audio.getvalue(), content_type="audio/wav")


def _answer(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        facts = json.loads(message["content"])
        words = f"I am build {facts['id']}.".split(" ")
        return [{"role": "assistant", "content": f"{word} "} for word in words]
    if message["role"] == "user" and "build" in str(message["content"]):
        function = {"name": "which_build", "arguments": "{}"}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        return [{"role": "assistant", "tool_calls": [call]}]
    return [{"role": "assistant", "content": "Hello from the fake."}]
