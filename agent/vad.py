"""The voice activity detector, loaded once: the fork server shares it with all job processes.

That takes 28 MB less for each of them.
"""

from __future__ import annotations

from typing import Final

from livekit.plugins import silero

VAD: Final = silero.VAD.load()
