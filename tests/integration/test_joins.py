"""Joins on real brokers: parts outlive processes, and are brought together whoever owns their partitions when the last one comes."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from maypole.bus import Agent, Event, all_of
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import TopicPartition
from maypole.schemas.identifiers import FlowId, joined_trigger, output_event_id, step_id_of
from maypole.schemas.journal import DeadlineFired, StepCompleted
from maypole.schemas.topics import event_topic
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.agent_process import Counted, Matched, Ticked, Tocked, counting, tocking
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, headers_of, ids, journal_of, read_topic, running, states_of

SUBSCRIPTION = "crash.ticked+crash.tocked"


@pytest.fixture
async def real(kafka: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=tmp_path, kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await platform.ensure([event_topic(event.event_type) for event in (Counted, Ticked, Tocked, Matched)])
        yield platform


async def start(platform: Platform, name: str, *options: str, home: Path | None = None) -> Process:
    command = ["-m", "tests.support.agent_process", platform.settings.kafka or "", str(home or platform.settings.home), name, *options]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def end(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_flow_of_two_branches_is_decided_once(platform: Platform) -> None:
    scoring, verification, decision = (Agent(unique_agent(name)) for name in ("scoring", "verification", "decision"))

    class Applied(Event, type="joins.applied"):
        number: int

    class Score(Event, type="joins.score"):
        number: int

    class Income(Event, type="joins.income"):
        number: int

    class Decided(Event, type="joins.decided"):
        score: int
        income: int

    @scoring.on(Applied)
    async def score(applied: Applied) -> Score:
        return Score(number=applied.number)

    @verification.on(Applied)
    async def verify(applied: Applied) -> Income:
        await asyncio.sleep(applied.number % 3 * 0.01)
        return Income(number=applied.number)

    @decision.on(all_of(Score, Income), within="5m")
    async def decide(score: Score, income: Income) -> Decided:
        return Decided(score=score.number, income=income.number)

    async with running(platform, scoring, verification, decision):
        bus = platform.bus("tests", Untraced())
        flows = [(await bus.publish(Applied(number=number))).flow_id for number in range(30)]

        async def states() -> list[State]:
            return [state.state for state in (await states_of(platform, flows)).values()]

        await eventually(states, lambda found: set(found) == {State.COMMITTED})
        journals = [await journal_of(platform, flow) for flow in flows[:3]]
    decided = [record for record in await read_topic(platform, "joins.decided") if record.key in {flow.encode() for flow in flows}]
    assert len(decided) == len(set(ids(decided))) == len(flows)
    parts = {ids([record])[0]: record for topic in ("joins.score", "joins.income") for record in await read_topic(platform, topic)}
    for record in decided:
        # What completed it is one of its parts; both have the same version here.
        headers = headers_of(record)
        cause = parts[(headers["ce_causationid"] or b"").decode()]
        assert cause.key == record.key and headers["ce_stateversion"] == b"3"
    for journal in journals:
        assert not any(isinstance(record, DeadlineFired) for _, record in journal)


DEATHS = {
    "with one part, which is committed": None,
    "with one part, before its commit": "commit",
    "with both, before the journal is told": "journal",
}


@pytest.mark.parametrize("point", DEATHS.values(), ids=DEATHS)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_kill_between_the_parts_loses_none_and_fires_once(
    real: Platform, request: pytest.FixtureRequest, store: str, point: str | None
) -> None:
    address = "sqlite" if store == "sqlite" else request.getfixturevalue("postgres").address
    slow, name = unique_agent("holding"), unique_agent("matching")
    options = ("--agent", "matching", "--store", address)
    processes = [await start(real, slow, "--agent", "holding")]
    try:
        processes.append(await start(real, name, *options, *(("--die-at", point) if point else ())))
        holding, first = processes
        published = await real.bus("tests", Untraced()).publish(Ticked(number=7))
        assert holding.stdin is not None
        if point != "commit":
            await eventually(lambda: committed(real, name, published.partition), lambda found: found == published.offset + 1)
        if point is None:
            first.kill()
        if point == "journal":
            holding.stdin.write(b"\n")
        assert await first.wait() == -signal.SIGKILL
        processes.append(await start(real, name, *options))
        if point != "journal":
            holding.stdin.write(b"\n")
        assert (await ended(real, published.flow_id)).state is State.COMMITTED

        async def matched() -> set[str]:
            found = [record for record in await read_topic(real, "crash.matched") if record.key == published.flow_id.encode()]
            return set(ids(found))

        found = await eventually(matched, bool)
    finally:
        await end(processes)
    ends = [record for _, record in await journal_of(real, published.flow_id) if isinstance(record, StepCompleted)]
    [tock] = [output.event_id for record in ends for output in record.outputs if output.type == "crash.tocked"]
    step = step_id_of(published.flow_id, name, SUBSCRIPTION, joined_trigger([published.event_id, tock]))  # type: ignore[list-item]
    joined = [record for record in ends if record.agent == name]
    assert {record.step_id for record in joined} == {step}
    assert {record.parents for record in joined} == {(tock, published.event_id)}, "the tock came last"
    assert found == {output_event_id(step, "crash.matched", 0)}


async def committed(platform: Platform, group: str, partition: int) -> int | None:
    at = TopicPartition("crash.ticked", partition)
    return (await platform.transport.cluster.committed(group, [at])).get(at)


@pytest.mark.timeout(360)
async def test_three_instances_bring_all_parts_together_while_they_join_leave_and_die(
    real: Platform, postgres: Postgres, tmp_path: Path
) -> None:
    name, ticks, flows_max = unique_agent("matching"), 3, 40
    chance = random.Random(11)
    bus = real.bus("tests", Untraced())
    flows: list[FlowId] = []
    everybody: list[Process] = []

    async def join() -> Process:
        home = tmp_path / f"machine-{len(everybody)}"
        everybody.append(await start(real, name, "--agent", "matching", "--store", postgres.address, home=home))
        return everybody[-1]

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(real, counting(unique_agent("counting")), tocking(unique_agent("tocking"))))
        stack.push_async_callback(end, everybody)
        members = [await join() for _ in range(3)]
        for number in range(flows_max):
            flows.append((await bus.publish(Counted(up_to=ticks))).flow_id)
            if number % 10 == 9:
                victim = members.pop(chance.randrange(len(members)))
                victim.send_signal(signal.SIGKILL if number % 20 == 9 else signal.SIGTERM)
                members.append(await join())

        async def states() -> list[State]:
            return [state.state for state in (await states_of(real, flows)).values()]

        # Committed: every step that the engine expects of the rounds of the join has ended under the name that it gives.
        await eventually(states, lambda found: set(found) == {State.COMMITTED}, seconds=120)
    by_flow: dict[bytes, set[str]] = defaultdict(set)
    for record in await read_topic(real, "crash.matched"):
        by_flow[record.key or b""].update(ids([record]))
    assert [len(by_flow[flow.encode()]) for flow in flows] == [ticks] * flows_max
