"""How old things are, whatever the clocks of two machines say."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from build_aware.dispatch import ages
from build_aware.dispatch.ages import Ages

TIMES = st.floats(1.0, 1e10)


def test_a_thing_is_as_old_as_the_server_says() -> None:
    age = Ages().at(now_s=5.0, server_now_s=1_000.0)
    assert age("a dispatch", 990.0) == 10


def test_a_thing_is_at_least_as_old_as_this_worker_has_known_it() -> None:
    known = Ages()
    assert known.at(5.0, 1_000.0)("a dispatch", 1_000.0) == 0
    # The server's clock was set back, or tells nothing.
    assert known.at(9.0, 900.0)("a dispatch", 1_000.0) == 4
    assert known.at(10.0, None)("a dispatch", 1_000.0) == 5
    assert known.at(11.0, 1_000.0)("a dispatch", 0.0) == 6


def test_each_thing_has_its_own_age() -> None:
    known = Ages()
    known.at(5.0, None)("one", 0.0)
    age = known.at(7.0, None)
    assert (age("one", 0.0), age("another", 0.0)) == (2, 0)


def test_what_is_not_asked_for_any_more_is_forgotten() -> None:
    known = Ages()
    known.at(5.0, None)("one", 0.0)
    known.at(6.0, None)("another", 0.0)
    assert known.at(7.0, None)("one", 0.0) == 0


@given(now_s=TIMES, server_now_s=TIMES, since_s=TIMES, later_s=st.floats(0, 1e6))
def test_no_age_is_negative_and_all_things_get_older(
    now_s: float, server_now_s: float, since_s: float, later_s: float
) -> None:
    known = Ages()
    first = known.at(now_s, server_now_s)("a thing", since_s)
    then = known.at(now_s + later_s, server_now_s)("a thing", since_s)
    assert 0 <= first <= then


@pytest.fixture
async def url() -> AsyncIterator[str]:
    dates = {"/then": "Thu, 01 Jan 1970 00:01:40 GMT", "/never": "no date", "/blank": ""}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers={"Date": dates[request.path]})

    application = web.Application()
    for path in dates:
        application.router.add_get(path, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_servers_now_is_the_date_of_its_last_answer(url: str) -> None:
    async with aiohttp.ClientSession(trace_configs=[ages.dates()]) as http:
        assert ages.server_now_s() is None
        await http.get(url + "/then")
        assert ages.server_now_s() == 100
        for path in ("/never", "/blank"):
            await http.get(url + path)
            assert ages.server_now_s() is None
