"""The ground that all other tests stand on: it ends what it starts, and keeps out what it must."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from build_aware.testbed import Processes, turns, until
from build_aware.testbed.environ import environment
from build_aware.testbed.family import MARK, marked
from build_aware.testbed.proxy import Proxy

ORPHANS = """
import subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep, start_new_session=True)
print("started", flush=True)
"""

NESTED = """
import asyncio, os, sys
from pathlib import Path
from build_aware.testbed.processes import Processes

async def main():
    await Processes(Path(sys.argv[1])).start(
        sys.executable, "-c", "import time; time.sleep(600)", name="inner", env=dict(os.environ)
    )
    print("started", flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    await processes.close()


async def test_an_orphan_ends_with_the_process_that_started_it(processes: Processes) -> None:
    parent = await processes.start(sys.executable, "-c", ORPHANS, name="p", env=environment())
    assert await parent.exit() == 0
    assert len(processes.alive()) == 1
    await parent.stop()
    assert processes.alive() == []


async def test_what_a_test_bed_below_has_started_is_found_too(
    processes: Processes, tmp_path: Path
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    inner = await processes.start(
        *(sys.executable, "-c", NESTED, str(folder)), name="inner", env=environment(PYTHONPATH=".")
    )
    assert await inner.exit() == 0, inner.output
    (left,) = marked(inner.mark)
    assert left.environ()[MARK] != inner.mark
    await processes.close()
    assert processes.alive() == []


async def test_a_program_that_hides_its_environment_ends_too(processes: Processes) -> None:
    hiding = await processes.start("env", "-i", "sleep", "600", name="p", env=environment())
    await until(lambda: processes.alive() == [], "its mark to be gone")
    await processes.close()
    assert not hiding.running


async def test_one_process_is_stopped_and_the_others_are_not(processes: Processes) -> None:
    # All at the same time, as the nodes of a cluster are.
    starting = [processes.start("sleep", "600", name="s", env=environment()) for _ in range(11)]
    started = await asyncio.gather(*starting)
    await started[1].stop()
    assert [process.running for process in started] == [True, False, *[True] * 9]


async def test_output_is_read_line_by_line_and_to_the_end(processes: Processes) -> None:
    script = (
        "import sys, time\n"
        'sys.stdout.write(\'{"message": "half\'); sys.stdout.flush()\n'
        "sys.stdin.read()\n"
        "print(' and half\"}'); print('no JSON'); print('[1]')\n"
    )
    process = await processes.start(sys.executable, "-c", script, name="p", env=environment())
    (record,) = await process.logged("half and half")
    assert record == {"message": "half and half"}
    await process.exit()
    assert process.records == [record]
    assert process.text[1:] == ["no JSON", "[1]"]


async def test_waiting_for_a_word_of_a_process_that_has_ended_fails_at_once(
    processes: Processes,
) -> None:
    process = await processes.start("true", name="silent", env=environment())
    with pytest.raises(AssertionError, match=r"silent .* ended without 'a word'"):
        await process.logged("a word", deadline_s=600)


async def test_temporary_files_go_with_the_test_bed(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    script = "import tempfile; print(tempfile.mkdtemp())"
    process = await processes.start(sys.executable, "-c", script, name="p", env=environment())
    await process.exit()
    left = Path(process.text[0])
    assert left.exists()
    await processes.close()
    assert not left.exists()


def test_nobodys_own_settings_reach_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVEKIT_URL", "AGENT_BUILD_ID", "OPENAI_API_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "mine")
    assert "mine" not in environment().values()
    assert environment(LIVEKIT_URL="given")["LIVEKIT_URL"] == "given"


async def test_a_cut_connection_ends_on_both_sides() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        assert not await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = await Proxy(server.sockets[0].getsockname()[1]).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.split(":")[-1]))
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    proxy.cut_oldest()
    with contextlib.suppress(ConnectionError):
        assert not await reader.read()
    await asyncio.wait_for(ended.wait(), 30)
    await proxy.stop()
    server.close()


async def test_a_proxy_answers_new_connections_and_leaves_others_alone() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = await Proxy(server.sockets[0].getsockname()[1]).start()
    port = int(proxy.url.split(":")[-1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    with proxy.answering(503):
        other, asks = await asyncio.open_connection("127.0.0.1", port)
        asks.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await other.read()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        asks.close()
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
    third, speaks = await asyncio.open_connection("127.0.0.1", port)
    speaks.write(b"hello\n")
    assert await third.readline() == b"hello\n"
    proxy.cut()
    for cut in (reader, third):
        with contextlib.suppress(ConnectionError):
            assert not await cut.read()
    await proxy.stop()
    server.close()


HOLDS_A_TURN = """
import asyncio
from build_aware.testbed.turns import turn

async def hold():
    async with turn():
        print("holding", flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


async def test_a_turn_is_held_across_processes_and_given_back_by_the_dead(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(turns.VARIABLE, str(tmp_path / "turns"))
    holders = [
        await processes.start(
            sys.executable, "-c", HOLDS_A_TURN, name="holder", env=environment(PYTHONPATH=".")
        )
        for _ in range(turns.count() + 1)
    ]

    def holding() -> int:
        return sum("holding" in holder.output for holder in holders)

    await until(lambda: holding() == turns.count(), "all turns to be taken")
    next(holder for holder in holders if "holding" in holder.output).send(signal.SIGKILL)
    await until(lambda: holding() == turns.count() + 1, "the turn of the dead one to be taken")
