"""How old is what a LiveKit server tells of? No clocks of two machines are compared.

An age is the difference of two times of the server, its now being the `Date` of its own answer; or
the time for which this worker has known the thing, by its own monotonic clock. The older counts:
who takes a thing for too young lets a user wait, who takes it for too old costs one join.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp

_DATE: ContextVar[float | None] = ContextVar("date", default=None)


def server_now_s() -> float | None:
    """What the server said the time was in the last answer to this task, in Unix time.

    None if it did not say, or if the client was made without `dates`.
    """
    return _DATE.get()


def dates() -> aiohttp.TraceConfig:
    """What an HTTP client needs so that `server_now_s` knows what its server says."""
    trace = aiohttp.TraceConfig()

    async def on_answer(
        _: aiohttp.ClientSession, __: SimpleNamespace, answer: aiohttp.TraceRequestEndParams
    ) -> None:
        _DATE.set(None)
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            date = parsedate_to_datetime(answer.response.headers["Date"])
            _DATE.set(date.timestamp())

    trace.on_request_end.append(on_answer)
    return trace


class Ages:
    """Ages of the things of one room: its dispatches, their jobs, and its users."""

    def __init__(self) -> None:
        self._first_seen_s: dict[str, float] = {}

    def at(self, now_s: float, server_now_s: float | None) -> Callable[[str, float], float]:
        """What tells ages now. Things that it is not asked for are forgotten.

        Args:
            now_s: this worker's monotonic time.
            server_now_s: the server's time, or None if that is not known.

        Returns:
            A function that takes the id of a thing, and the server's time at which it began or 0
            if the server does not say, and returns its age in seconds.
        """
        before, self._first_seen_s = self._first_seen_s, {}

        def age(thing: str, since_s: float) -> float:
            first_seen_s = self._first_seen_s.setdefault(thing, before.get(thing, now_s))
            known_s = now_s - first_seen_s
            if server_now_s is None or not since_s:
                return known_s
            return max(known_s, server_now_s - since_s)

        return age
