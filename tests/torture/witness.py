"""The outside: a service that is asked to act, writes every call down before it answers, and survives everybody.

    python -m tests.torture.witness SOCKET LOG

One JSON object a line, both ways. A call is `agent`, `trigger` (the event because of which it is made) and `key`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from deploy.local.process import start, wait_ready
from maypole.bus.testing.history_entries import Called


class _Log:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last_ms = 0.0

    def write(self, call: dict[str, str]) -> None:
        # Two calls never have one time: the order in which they came must be told.
        self._last_ms = max(time.time() * 1000, self._last_ms + 0.001)
        self._file.write(json.dumps({"time_ms": self._last_ms, **call}).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


async def _serve(path: Path, log_path: Path) -> None:
    with log_path.open("ab") as file:
        log = _Log(file)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while line := await reader.readline():
                    log.write(json.loads(line))
                    writer.write(b"{}\n")
                    await writer.drain()
            except ConnectionError:
                pass  # whoever called was killed
            finally:
                writer.close()

        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        async with await asyncio.start_unix_server(answer, path):
            await ended.wait()


@contextmanager
def witness(folder: Path) -> Iterator[Path]:
    """The service as a process; yields the address of its socket. Its calls are read with `calls_of`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "witness.sock"
    process = start("the witness", [sys.executable, "-m", "tests.torture.witness", str(path), str(_log_of(path))], folder / "witness.err")
    try:
        wait_ready(path.exists, [process], 20, "the witness to listen")
        yield path
    finally:
        process.stop()


def calls_of(path: Path) -> list[Called]:
    """Every call that was answered, and those that were written down and could not be answered any more."""
    return [Called(call["time_ms"], call["agent"], call["trigger"], call["key"]) for call in lines_of(path)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Everything that was told, in the order in which it came; `time_ms` says when."""
    return [json.loads(line) for line in _log_of(path).read_bytes().splitlines()]


async def call(path: Path, agent: str, trigger: str, key: str) -> None:
    """Returns when the witness has written it down."""
    await tell(path, agent=agent, trigger=trigger, key=key)


async def tell(path: Path, **words: str) -> None:
    """As `call`, for whoever has something else to say; read it back with `lines_of`."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(_line(words))
        await reader.readline()
    finally:
        writer.close()


def call_now(path: Path, agent: str, trigger: str, key: str) -> None:
    """As `call`, for programs without a loop."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(_line({"agent": agent, "trigger": trigger, "key": key}))
        connection.recv(16)


def _line(words: dict[str, str]) -> bytes:
    return json.dumps(words).encode() + b"\n"


def _log_of(path: Path) -> Path:
    return path.with_suffix(".log")


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
