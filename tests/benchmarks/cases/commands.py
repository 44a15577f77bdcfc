"""What people wait for: `maypole --help`, and `maypole dev` until the first event is handled. Needs no real broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from maypole.bus.bus import Bus
from maypole.bus.composition import open_platform
from maypole.bus.ports import TopicPartition
from maypole.schemas.envelope import TYPE
from maypole.schemas.journal import StepCompleted
from maypole.schemas.research import ResearchRequested
from maypole.schemas.topics import JOURNAL
from maypole.settings import Settings, read_endpoints
from tests.benchmarks.bench import Bench, SubjectFailed, say
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "commands"
HELP, DEV, PYTHON = "maypole --help", "maypole dev", "python -c pass"
_HELP_RUNS: Final = 10
_DEV_SECONDS_MAX: Final = 30.0
_LOOK_SECONDS: Final = 0.005


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    program = Path(sys.executable).with_name("maypole")
    helped, passed = [], []
    for _ in range(_HELP_RUNS):
        passed.append(_milliseconds([sys.executable, "-c", "pass"]))
        helped.append(_milliseconds([str(program), "--help"]))
    rows = [row(NAME, PYTHON, "time", "ms", passed), row(NAME, HELP, "time", "ms", helped, PYTHON, passed)]
    floors = [Floor(f"{HELP}, ms", rows[1].value, at_most=200)]
    started = []
    try:
        for number in range(bench.rounds):
            started.append(_seconds_to_first_event(program))
            say(f"{NAME} {number + 1}/{bench.rounds}: {DEV}: first event handled after {started[-1]:.2f} s")
    except SubjectFailed as error:
        say(f"{NAME}: left out: {error}")
        return rows, [*floors, Floor(f"{DEV} to the first event handled, s", None, at_most=3)]
    rows.append(row(NAME, DEV, "to first event handled", "s", started))
    return rows, [*floors, Floor(f"{DEV} to the first event handled, s", rows[-1].value, at_most=3)]


def _milliseconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - began) * 1000


def _seconds_to_first_event(program: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="maypole-bench-") as folder:
        home = Path(folder) / ".maypole"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAYPOLE_", "OTEL_", "SCHEMA_REGISTRY_"))}
        log = Path(folder) / "dev.log"
        with log.open("wb") as output:
            began = time.perf_counter()
            process = subprocess.Popen([str(program), "dev"], cwd=folder, env=environment, stdout=output, stderr=output)
            try:
                return asyncio.run(_first_event(process, home)) - began
            except TimeoutError:
                ending = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                raise SubjectFailed(f"{DEV} handled no event in {_DEV_SECONDS_MAX:g} s; it said:\n{ending}") from None
            finally:
                process.terminate()
                process.wait(30)


async def _first_event(process: subprocess.Popen[bytes], home: Path) -> float:
    async with asyncio.timeout(_DEV_SECONDS_MAX):
        while (kafka := read_endpoints(home).kafka) is None:
            if process.poll() is not None:
                raise TimeoutError
            await asyncio.sleep(_LOOK_SECONDS)
        settings = Settings(home=home, kafka=kafka, tracing="off")
        async with open_platform(settings) as platform, Bus.connect(settings, publisher="bench") as bus:
            partitions = (await platform.transport.cluster.topics())[JOURNAL]
            start = {TopicPartition(JOURNAL, partition): 0 for partition in range(partitions)}
            # Until an agent is there to answer: the root of a flow that nobody reacts to stays unanswered.
            while not (await bus.publish(ResearchRequested(question="What does the assert statement do?"))).subscribers:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
            completed = StepCompleted.event_type.encode()
            async with platform.transport.reader(start) as reader:
                while True:
                    for record in await reader.read(1.0):
                        if (TYPE, completed) in record.headers:
                            return time.perf_counter()
