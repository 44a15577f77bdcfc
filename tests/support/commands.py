"""The command line as processes, as its users run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAYPOLE = (sys.executable, "-m", "maypole.services.cli")


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Desk:
    """A folder where somebody types commands, and the environment they type them in."""

    folder: Path
    settings: Mapping[str, str]

    async def run(self, *words: str, seconds: float = 60) -> Finished:
        process = await self.start(*words)
        try:
            out, err = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            _, err = await process.communicate()
            raise AssertionError(f"maypole {' '.join(words)} took longer than {seconds:g} s; it said: {err.decode()}") from None
        return Finished(process.returncode or 0, out.decode(), err.decode())

    @asynccontextmanager
    async def running(self, *words: str, until: str = "ready") -> AsyncIterator[Process]:
        """A command that stays, from the moment it says `until` on standard error; it is told to stop in the end."""
        process = await self.start(*words)
        assert process.stderr is not None
        said: list[str] = []
        try:
            async with asyncio.timeout(60):
                while not said or until not in said[-1]:
                    line = await process.stderr.readline()
                    if not line:
                        code = await process.wait()
                        raise AssertionError(f"maypole {' '.join(words)} ended with {code} before saying {until!r}: {''.join(said)}")
                    said.append(line.decode())
            drained = asyncio.create_task(process.stderr.read())
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                await asyncio.wait_for(process.wait(), 40)
                await drained
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def start(self, *words: str) -> Process:
        environment = {**os.environ, **self.settings, "PYTHONUNBUFFERED": "1"}
        return await asyncio.create_subprocess_exec(*MAYPOLE, *words, cwd=self.folder, env=environment, stdout=PIPE, stderr=PIPE)
