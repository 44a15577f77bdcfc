"""Ctrl-C at any moment: 130, one word, no traceback, and soon. SIGTERM the same, with 143."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

BUSY_SECONDS = 20.0
"""Where there is nobody to wait for, a busy machine alone takes its time."""
BROKER_SECONDS = 4.0
"""Less than a broker is waited for that does not answer."""


async def interrupted(
    folder: Path,
    *words: str,
    at: str,
    python: tuple[str, ...] = (),
    insisting: bool = False,
    number: int = signal.SIGINT,
    seconds: float = BUSY_SECONDS,
) -> tuple[int | None, str]:
    """Run a command, send the signal once its standard error says `at`, and give its exit code and what else it said there."""
    return await signalled(
        folder, *python, "-m", "maypole.services.cli", *words, at=at, insisting=insisting, number=number, seconds=seconds
    )


async def signalled(
    folder: Path, *arguments: str, at: str, insisting: bool, number: int = signal.SIGINT, seconds: float = BUSY_SECONDS
) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while at not in (line := (await process.stderr.readline()).decode()):
                assert line, f"it ended before it said {at!r}"
        reading = asyncio.create_task(process.stderr.read())
        process.send_signal(number)
        async with asyncio.timeout(seconds):
            # Two signals that are pending at once are one: somebody who insists presses the key more than twice.
            while insisting and not (await asyncio.wait({reading}, timeout=0.02))[0]:
                process.send_signal(number)
            return await process.wait(), (await reading).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("module", ["click", "asyncio", "pydantic", "confluent_kafka", "maypole.bus.runner"])
async def test_while_modules_are_imported(tmp_path: Path, module: str) -> None:
    # The interpreter says itself what it has imported.
    code, said = await interrupted(tmp_path, "demo", at=f" {module}\n", python=("-X", "importtime"))
    assert (code, "Traceback" in said) == (130, False), said
    assert said.endswith("interrupted\n")


@pytest.mark.parametrize("at", ["Kafka inside", "topics.created", "agent=research", "agent.ready agent=delivery"])
@pytest.mark.parametrize("insisting", [False, True])
async def test_while_the_demo_starts_and_runs(tmp_path: Path, at: str, insisting: bool) -> None:
    code, said = await interrupted(tmp_path, "-vv", "demo", at=at, insisting=insisting)
    assert (code, "Traceback" in said) == (130, False), said
    assert said.endswith("interrupted\n")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, (130, "interrupted\n")), (signal.SIGTERM, (143, "terminated\n"))])
async def test_the_second_one_is_heard_though_the_main_thread_sits_in_a_foreign_library(
    tmp_path: Path, number: int, expected: tuple[int, str]
) -> None:
    assert await signalled(tmp_path, "-c", _STUCK, at="about to wait", insisting=True, number=number) == expected


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, (130, "interrupted")), (signal.SIGTERM, (143, "terminated"))])
async def test_while_agents_are_started_to_stay(tmp_path: Path, number: int, expected: tuple[int, str]) -> None:
    code, said = await interrupted(tmp_path, "-v", "dev", at="topics.created", number=number)
    assert (code, said.splitlines()[-1]) == expected, said
    assert not (tmp_path / ".maypole" / "endpoints.json").exists()


async def test_while_a_broker_does_not_answer(tmp_path: Path) -> None:
    words = ("--kafka", "127.0.0.1:9", "agents", "list")
    code, said = await interrupted(
        tmp_path, *words, at=" maypole.bus.kafka.confluent\n", python=("-X", "importtime"), seconds=BROKER_SECONDS
    )
    assert (code, "Traceback" in said) == (130, False), said


_STUCK = """
import ctypes, sys

from maypole.services.cli import interrupts

interrupts.install()
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
library.pthread_mutex_lock(mutex)
print("about to wait", file=sys.stderr, flush=True)
with interrupts.stopping_with(lambda: None):
    library.pthread_mutex_lock(mutex)
"""
