"""The participant attributes by which agents, workers and tools know who serves what."""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from livekit.protocol.agent import Job

from build_aware.dispatch import target
from build_aware.identity.build import Build

BUILD_ID: Final = "build.id"
"""The id of the build that serves."""

JOB: Final = "build.job"
"""The id of the job that an agent runs. Teams may fix identities, and so a job is all that says
which session an agent is."""

DISPATCH: Final = "build.dispatch"
"""The id of the dispatch that the job was made of."""

ASKED: Final = "build.asked"
"""What the dispatch asked for, as `asked` makes it: an agent outlives its dispatch where a server
restarts without Redis."""

AGENT_NAME: Final = "lk.agent_name"
"""The name under which LiveKit knows the agent; LiveKit sets it itself."""

PUBLISHES_FOR: Final = "lk.publish_on_behalf"
"""Set by an avatar, which speaks for an agent and is none."""

_ASKED_DIGITS: Final = 8


@functools.lru_cache(maxsize=4)
def asked(deployment: str, metadata: str) -> str:
    """A short digest of what a dispatch asked for, beside the agent's name and the build.

    An agent stands for a dispatch that has come anew for the same, be it to another build: two of
    them must not speak to one user.
    """
    said = f"{deployment}\0{target.beside(metadata)}"
    return hashlib.sha256(said.encode()).hexdigest()[:_ASKED_DIGITS]


def of_job(build: Build, job: Job) -> dict[str, str]:
    """The attributes of the agent that runs `job`. They win over those of the team."""
    return build.attributes() | {
        JOB: job.id,
        DISPATCH: job.dispatch_id,
        ASKED: asked(job.deployment, job.metadata),
    }
