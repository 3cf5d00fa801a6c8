"""What a call to the LiveKit server's API may raise."""

from __future__ import annotations

from typing import Final

import aiohttp
from google.protobuf.message import DecodeError
from livekit.api import TwirpError, TwirpErrorCode

API_ERRORS: Final = (TwirpError, aiohttp.ClientError, TimeoutError, OSError, DecodeError)
"""A proxy's error page with status 200 cannot be decoded."""


def is_not_found(error: BaseException) -> bool:
    """Whether what was asked for is not there, such as a room that has just closed."""
    return isinstance(error, TwirpError) and error.code == TwirpErrorCode.NOT_FOUND


def is_gone(error: BaseException) -> bool:
    """Whether a participant is not there: it has left, or its node is gone."""
    gone = (TwirpErrorCode.NOT_FOUND, TwirpErrorCode.UNAVAILABLE)
    return isinstance(error, TwirpError) and error.code in gone
