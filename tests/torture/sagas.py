"""`python -m tests.torture.sagas`: what it costs that a step can be undone, and what is left half done without a coordinator."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Final

from deploy.local.kafka import KafkaCluster, KafkaPorts
from maypole.bus import Agent, Event, Reject
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Delivery
from maypole.schemas.envelope import read_envelope
from maypole.schemas.journal import StepCompensated, StepCompleted, StepFailed, StepStarted
from maypole.schemas.topics import JOURNAL, commands
from maypole.services.cli.coordinating import coordinating
from maypole.services.cli.dead_letters import read_topics
from maypole.services.cli.flow_histories import all_flows
from maypole.services.cli.running import running
from maypole.services.cli.targets import REFERENCE_AGENTS, load_agents
from maypole.services.saga import State
from maypole.settings import Settings
from tests.torture.effects import deeds_at, left
from tests.torture.results import PATH, with_section
from tests.torture.saga_agents import AGENTS, WITNESS, Ordered
from tests.torture.witness import witness

_SETTLED_SECONDS: Final = 180.0
_FLOWS_A_KILL: Final = 15


class Asked(Event, type="costs.asked"):
    number: int


class AskedUndoably(Event, type="costs.asked_undoably"):
    number: int


class AskedInVain(Event, type="costs.asked_in_vain"):
    number: int


class Answered(Event, type="costs.answered"):
    number: int


class Prepared(Event, type="costs.prepared"):
    number: int


plain, undoable, taken_back, refusing = Agent("plain"), Agent("undoable"), Agent("taken_back"), Agent("refusing")


@plain.on(Asked)
async def answer(asked: Asked) -> Answered:
    return Answered(number=asked.number)


@undoable.on(AskedUndoably)
async def answer_undoably(asked: AskedUndoably) -> Answered:
    return Answered(number=asked.number)


@answer_undoably.undo
async def withdraw(asked: AskedUndoably) -> None: ...


@taken_back.on(AskedInVain)
async def prepare(asked: AskedInVain) -> Prepared:
    return Prepared(number=asked.number)


@prepare.undo
async def put_away(asked: AskedInVain) -> None: ...


@refusing.on(Prepared)
async def refuse(prepared: Prepared) -> None:
    raise Reject("to see what that costs", acted=False)


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one step. Milliseconds by the broker's clock, bytes with keys and headers."""

    flows: int
    """Of each kind."""
    plain_ms: float
    undoable_ms: float
    plain_bytes: float
    undoable_bytes: float
    first_command_ms: float
    undone_ms: float
    undone_journal_bytes: float
    undone_command_bytes: float


@dataclass(frozen=True, slots=True)
class Left:
    """What became of the flows of one run. `half_done`: not committed, and something of them is left, or committed and not all is there."""

    flows: int
    kills: Mapping[str, int]
    """By what `maypole` runs there."""
    states: Mapping[str, int]
    half_done: int
    effects_left: int


def numbers(flows: int, seconds_max: float) -> Iterator[int]:
    """Of so many flows, or of as many as begin in that time; of one at least."""
    began = time.monotonic()
    for number in range(flows):
        if number and time.monotonic() - began > seconds_max:
            return
        yield number


async def costs(platform: Platform, flows: int, seconds_max: float = math.inf) -> Costs:
    bus = platform.bus("costs", Untraced())
    async with coordinating(platform), running(platform, [plain, undoable, taken_back, refusing]):
        for number in numbers(flows, seconds_max):
            for event in (Asked(number=number), AskedUndoably(number=number), AskedInVain(number=number)):
                await bus.publish(event)
        await _until(platform, lambda states: not any(state in (State.RUNNING, State.ABORTING) for state in states))
    started = {
        flow: (saga.started_ms, saga.choreography.root) for flow, saga in (await all_flows(platform)).sagas.items() if saga.choreography
    }
    took: dict[tuple[str, str], list[float]] = {}
    size: dict[tuple[str, str], list[int]] = {}
    failed_ms: dict[str, int] = {}
    async for record in read_topics(platform.transport, [JOURNAL]):
        envelope = read_envelope(record.headers)
        began_ms, root = started[envelope.flow_id]
        if envelope.type == StepFailed.event_type:
            failed_ms[envelope.flow_id] = record.timestamp_ms
        since = failed_ms.get(envelope.flow_id, began_ms)
        took.setdefault((root, envelope.type), []).append(record.timestamp_ms - since)
        size.setdefault((root, envelope.type), []).append(_bytes(record))
    told = [record async for record in read_topics(platform.transport, [commands(taken_back.name).name])]
    first = {read_envelope(record.headers).flow_id: record.timestamp_ms for record in reversed(told)}
    asked, undoably, in_vain = (event.event_type for event in (Asked, AskedUndoably, AskedInVain))
    completed, begun, undone = (record.event_type for record in (StepCompleted, StepStarted, StepCompensated))
    return Costs(
        len(took[asked, completed]),
        fmean(took[asked, completed]), fmean(took[undoably, completed]), fmean(size[asked, completed]),
        fmean(size[undoably, completed]) + fmean(size[undoably, begun]),
        median(at_ms - failed_ms[flow] for flow, at_ms in first.items()), median(took[in_vain, undone]), fmean(size[in_vain, undone]),
        fmean(map(_bytes, told)),
    )  # fmt: skip


def _bytes(record: Delivery) -> int:
    return len(record.key or b"") + len(record.value or b"") + sum(len(name) + len(value or b"") for name, value in record.headers)


def lines_of_undoing() -> list[int]:
    """Of each undoable step of the reference agents: the lines of its undo and of the question whether it is gone."""
    functions = [(each.undo, each.verify) for agent in load_agents(REFERENCE_AGENTS) for each in agent.subscriptions if each.undo]
    return [sum(len(inspect.getsource(function).splitlines()) for function in pair if function is not None) for pair in functions]


def deaths_of(seed: int, flows: int) -> Mapping[str, frozenset[int]]:
    """Beside which flows the agents are killed, and beside which the coordinator: one of every fifteen for each."""

    def one_of_each(chance: random.Random) -> frozenset[int]:
        return frozenset(first + chance.randrange(_FLOWS_A_KILL) for first in range(0, flows - _FLOWS_A_KILL + 1, _FLOWS_A_KILL))

    return {who: one_of_each(random.Random(f"{who} {seed}")) for who in ("run", "coordinator")}


async def left_behind(settings: Settings, folder: Path, flows: int, seed: int, *, coordinated: bool, seconds_max: float = math.inf) -> Left:
    """Flows of which half are refused on the way, while processes are killed: what is left of them once nobody works any more.

    Of one seed the agents are killed beside the same flows, whether there is a coordinator or not.
    """
    deaths, published = deaths_of(seed, flows), 0
    kills: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        address = stack.enter_context(witness(folder))
        platform = await stack.enter_async_context(open_platform(settings))
        started = partial(_started, settings=settings, address=address)
        targets = [f"tests/torture/saga_agents.py:{agent.name}" for agent in AGENTS]
        commands_of = [("run", *targets)] + ([("coordinator",)] if coordinated else [])
        processes = [await started(command) for command in commands_of]
        try:
            bus = platform.bus("sagas", Untraced())
            for number in numbers(flows, seconds_max):
                published += 1
                await bus.publish(Ordered(number=number, refused_by=("", "charging", "shipping", "")[number % 4]))
                for at, command in enumerate(commands_of):
                    if number in deaths[command[0]]:
                        processes[at].kill()
                        await processes[at].wait()
                        processes[at] = await started(command)
                        kills[command[0]] = kills.get(command[0], 0) + 1
            busy = (State.RUNNING, State.ABORTING) if coordinated else (State.RUNNING,)
            await _until(platform, lambda states: len(states) == published and not any(state in busy for state in states))
        finally:
            for process in processes:
                process.terminate()
                await process.wait()
        sagas, deeds = (await all_flows(platform)).sagas, deeds_at(address)
    states: dict[str, int] = {}
    half_done = effects_left = 0
    for flow, saga in sagas.items():
        states[saga.state] = states.get(saga.state, 0) + 1
        count = len(left(deeds.get(flow, ())))
        half_done += count != (len(AGENTS) if saga.state is State.COMMITTED else 0)
        effects_left += count if saga.state is not State.COMMITTED else 0
    return Left(len(sagas), kills, states, half_done, effects_left)


async def _started(words: Sequence[str], settings: Settings, address: Path) -> asyncio.subprocess.Process:
    environment = {**os.environ, "MAYPOLE_KAFKA": settings.kafka or "", "MAYPOLE_HOME": str(settings.home), WITNESS: str(address)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "maypole.services.cli", *words, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        for _ in words[1:] or words:
            while b"ready" not in (line := await process.stderr.readline()):
                if not line:
                    raise RuntimeError(f"maypole {' '.join(words)} ended before it was ready")
    _DRAINS.append(asyncio.create_task(process.stderr.read()))
    return process


_DRAINS: Final[list[asyncio.Task[bytes]]] = []
"""Nobody reads what they say from then on, and a full pipe would stop them."""


async def _until(platform: Platform, done: Callable[[Sequence[State]], bool]) -> None:
    async with asyncio.timeout(_SETTLED_SECONDS):
        while True:
            if done([saga.state for saga in (await all_flows(platform)).sagas.values()]):
                return
            await asyncio.sleep(1)  # the journal is asked, and tells nobody


_TEXT: Final = """\
## Sagas

Written by `python -m tests.torture.sagas`, {date}. {cores} cores, one Kafka node on the same machine, busy with other work: bytes
and counts mean something here, milliseconds little.

What an undoable step costs, beside one that only makes events ({costed} flows each, one after the other):

| | events only | undoable | more |
|---|---|---|---|
| ms from the flow's start to the step's `StepCompleted` (mean) | {plain_ms:.1f} | {undoable_ms:.1f} | {more_ms:.1f} |
| bytes in the journal | {plain_bytes:.0f} | {undoable_bytes:.0f} | {more_bytes:.0f} |
| lines of code (reference agents: undo and verify) | 0 | {lines} | {lines} |

When it is undone: {first_command_ms:.0f} ms from `StepFailed` to the first `Compensate`, {undone_ms:.0f} ms to `StepCompensated` (medians),
{undone_journal_bytes:.0f} bytes more in the journal and {undone_command_bytes:.0f} on the agent's commands.

What it buys: {flows} flows of four steps, of which half are refused by the second or the last agent, while processes are killed (`kill -9`)
and started again, the agents beside the same flows in both runs. *Half done*: the flow failed and something of it is left, or it
committed and something is missing.

| | kills of agents | kills of the coordinator | how flows ended | half done | effects left of failed flows |
|---|---|---|---|---|---|
{rows}
"""


def told(cost: Costs, runs: Mapping[str, Left]) -> str:
    rows = "\n".join(
        f"| {name} | {left.kills.get('run', 0)} | {left.kills.get('coordinator', 0)} "
        f"| {', '.join(f'{state} {count}' for state, count in sorted(left.states.items()))} | {left.half_done} | {left.effects_left} |"
        for name, left in runs.items()
    )
    return _TEXT.format(
        date=datetime.now(UTC).date().isoformat(), cores=os.cpu_count(), costed=cost.flows, plain_ms=cost.plain_ms,
        undoable_ms=cost.undoable_ms, more_ms=cost.undoable_ms - cost.plain_ms, plain_bytes=cost.plain_bytes,
        undoable_bytes=cost.undoable_bytes, more_bytes=cost.undoable_bytes - cost.plain_bytes, lines=round(fmean(lines_of_undoing())),
        first_command_ms=cost.first_command_ms, undone_ms=cost.undone_ms, undone_journal_bytes=cost.undone_journal_bytes,
        undone_command_bytes=cost.undone_command_bytes, flows=next(iter(runs.values())).flows, rows=rows,
    )  # fmt: skip


async def _cost(home: Path, bootstrap: str, flows: int, seconds_max: float) -> Costs:
    async with open_platform(_place(home, bootstrap)) as platform:
        return await costs(platform, flows, seconds_max)


def _place(home: Path, bootstrap: str) -> Settings:
    return Settings(home=home, tracing="off").at(bootstrap, "the run")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.sagas", description=__doc__)
    parser.add_argument("--costed", type=int, default=200, help="flows of each kind whose cost is measured (default %(default)s)")
    parser.add_argument("--flows", type=int, default=120, help="flows of each run under kills (default %(default)s)")
    parser.add_argument("--seconds-max", type=float, default=math.inf, help="of each of the three parts: after it no more flows are begun")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print it; RESULTS.md stays as it is")
    chosen = parser.parse_args(arguments)
    runs: dict[str, Left] = {}
    with tempfile.TemporaryDirectory(prefix="maypole-sagas-") as name:
        folder = Path(name)
        with _cluster(folder / "kafka") as kafka:
            cost = asyncio.run(_cost(folder / "costs", kafka, chosen.costed, chosen.seconds_max))
        for run, coordinated in (("agents alone", False), ("with the coordinator", True)):
            with _cluster(folder / run / "kafka") as kafka:
                place = _place(folder / run / "home", kafka)
                tried = left_behind(place, folder / run, chosen.flows, chosen.seed, coordinated=coordinated, seconds_max=chosen.seconds_max)
                runs[run] = asyncio.run(tried)
    text = told(cost, runs)
    print(text)
    if not chosen.dry:
        PATH.write_text(with_section(PATH.read_text() if PATH.exists() else "", text))
    return 1 if runs["with the coordinator"].half_done else 0


@contextmanager
def _cluster(folder: Path) -> Iterator[str]:
    """Of its own for each run: what one left behind must not be counted in another."""
    kafka = KafkaCluster(folder, KafkaPorts.chosen(1), folder / "logs")
    kafka.start()
    try:
        yield kafka.bootstrap
    finally:
        kafka.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
