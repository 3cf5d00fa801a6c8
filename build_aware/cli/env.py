"""The environment of a command: files of settings, and LiveKit's flags that say the same."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dotenv import load_dotenv

from build_aware.drain.exit_codes import fail

FLAGS: Final = {
    "--url": "LIVEKIT_URL",
    "--api-key": "LIVEKIT_API_KEY",
    "--api-secret": "LIVEKIT_API_SECRET",
    "--drain-timeout": "AGENT_DRAIN_TIMEOUT",
}
"""LiveKit's flags that say the same as a setting."""


def load_env(file: Path) -> None:
    """Put what a file such as `.env.local` says into the environment, which overrides it.

    Like `dotenv.load_dotenv`, but a file that cannot be read ends the program with one line that
    says why. A missing file is not an error.
    """
    if file.exists() and not file.is_file():
        # A directory would be passed over in silence, and a pipe waited for.
        fail(f"{file} is not a regular file; remove it, or use a file with lines like NAME=value")
    try:
        load_dotenv(file)
    except UnicodeDecodeError:
        fail(f"{file} is not UTF-8 text; save it as such")
    except ValueError:
        fail(f"{file} holds a NUL character; save it as UTF-8 text without one")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")


def apply_flags(arguments: Sequence[str]) -> None:
    """Put LiveKit's flags into the environment, which they override.

    So they are validated with all other settings, and reach the job processes.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, name in FLAGS.items():
        parser.add_argument(flag, dest=name)
    flags, _ = parser.parse_known_args(list(arguments))
    os.environ.update({name: value for name, value in vars(flags).items() if value})
