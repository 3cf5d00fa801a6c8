"""The commands of `lk` that the documents use, as release 2.18.2 has them.

Taken from its source, `cmd/lk/agent.go`, `cloud.go`, `token.go`, `room.go` and `utils.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RELEASE: Final = "2.18.2"

SECRETS: Final = {"--secrets", "--secrets-file", "--secret-mount", "--ignore-empty-secrets"}
ATTRIBUTES: Final = {"--attributes", "--attribute", "--no-default-attributes"}
IMAGE: Final = {"--image", "--image-tar"}
DEPLOYMENT: Final = {"--deployment", "-d"}

FLAGS: Final[Mapping[str, set[str]]] = {
    "cloud auth": {"--timeout", "--poll-interval"},
    "agent init": {
        "--deploy",
        "--template",
        "--template-url",
        "--sandbox",
        "--region",
        "--install",
    },
    "agent create": SECRETS | ATTRIBUTES | IMAGE | DEPLOYMENT | {"--region"},
    "agent deploy": SECRETS | ATTRIBUTES | IMAGE | DEPLOYMENT | {"--region"},
    "agent promote": DEPLOYMENT | {"--id"},
    "agent status": {"--id", "--json", "-j"},
    "agent rollback": {"--id", "--version"},
    "agent logs": DEPLOYMENT | {"--id", "--log-type"},
    "agent delete": DEPLOYMENT | {"--id"},
    "agent versions": {"--id", "--json", "-j", "--attributes", "--attribute"},
    "agent secrets": {"--id", "--json", "-j"},
    "agent update-secrets": SECRETS | {"--id", "--overwrite"},
}
"""The flags of each command."""

REQUIRED: Final[Mapping[str, set[str]]] = {"agent rollback": {"--version"}}
"""Flags without which a command does not run."""
