"""Agents as processes of their own (`agent_process`), with what they say on both their outputs."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from maypole.bus.composition import Platform

_CHECKOUT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 45.0


class AgentProcess:
    """`said` are the lines of its standard output, `logged` those of its log; both grow while it lives."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
        self.said: list[str] = []
        self.logged: list[str] = []
        self._news = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._reading = [
            asyncio.create_task(self._read(process.stdout, self.said)),
            asyncio.create_task(self._read(process.stderr, self.logged)),
        ]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until something that it says makes this true."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._news:
                await self._news.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"{self.name} said {self.said[-5:]} and logged {self.logged[-8:]}") from None

    async def until_logged(self, words: str) -> str:
        """The first line of its log that holds these words."""
        await self.until(lambda: any(words in line for line in self.logged))
        return next(line for line in self.logged if words in line)

    async def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            code = await self.process.wait()
        await asyncio.gather(*self._reading)
        return code

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode(errors="replace").rstrip("\n"))
            async with self._news:
                self._news.notify_all()


@asynccontextmanager
async def agent_process(platform: Platform, name: str, agent: str, *options: str, home: Path | None = None) -> AsyncIterator[AgentProcess]:
    """Announced, on the platform's broker; killed in the end if it still lives."""
    async with starting_process(platform, name, agent, *options, home=home) as started:
        await started.until(lambda: "ready" in started.said)
        yield started


@asynccontextmanager
async def starting_process(
    platform: Platform, name: str, agent: str, *options: str, home: Path | None = None
) -> AsyncIterator[AgentProcess]:
    """As `agent_process`, and may fail to start."""
    settings = platform.settings
    assert settings.kafka is not None
    command: Sequence[str] = ("-m", "tests.support.agent_process", settings.kafka, str(home or settings.home), name, "--agent", agent)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *options, cwd=_CHECKOUT, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=2**20
    )
    started = AgentProcess(name, process)
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await started.end()
