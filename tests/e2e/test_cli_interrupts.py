"""Ctrl-C at any moment: 130, one word, no traceback, and soon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

SECONDS_MAX = 4.0


async def interrupted(folder: Path, *words: str, at: str, python: tuple[str, ...] = (), times: int = 1) -> tuple[int | None, str]:
    """Run a command, send SIGINT once its standard error says `at`, and give its exit code and what else it said there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *python, "-m", "maypole.services.cli", *words,
        cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while at not in (line := (await process.stderr.readline()).decode()):
                assert line, f"it ended before it said {at!r}"
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS_MAX):
            said = (await process.stderr.read()).decode()
            return await process.wait(), said
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
@pytest.mark.parametrize("times", [1, 2])
async def test_while_the_demo_starts_and_runs(tmp_path: Path, at: str, times: int) -> None:
    code, said = await interrupted(tmp_path, "-vv", "demo", at=at, times=times)
    assert (code, "Traceback" in said) == (130, False), said
    assert said.endswith("interrupted\n")


async def test_while_agents_are_started_to_stay(tmp_path: Path) -> None:
    code, said = await interrupted(tmp_path, "-v", "dev", at="topics.created")
    assert (code, said.splitlines()[-1]) == (130, "interrupted"), said
    assert not (tmp_path / ".maypole" / "endpoints.json").exists()


async def test_while_a_broker_does_not_answer(tmp_path: Path) -> None:
    words = ("--kafka", "127.0.0.1:9", "agents", "list")
    code, said = await interrupted(tmp_path, *words, at=" maypole.bus.kafka.confluent\n", python=("-X", "importtime"))
    assert (code, "Traceback" in said) == (130, False), said
