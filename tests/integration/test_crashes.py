"""Agents that die lose nothing: what they had in hand is repeated with the same ids."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from maypole.bus import Agent
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Delivery, TopicPartition
from maypole.schemas.identifiers import FlowId, output_event_id, step_id_of
from maypole.schemas.journal import StepCompleted
from maypole.schemas.topics import event_topic
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.agent_process import CALLS, RETRY_SECONDS, Counted, Ticked, Tocked, counting, purely_tocking, retrying, tocking
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, ids, journal_of, read_topic, running, states_of


@pytest.fixture
async def platform(kafka: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=tmp_path, kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await platform.ensure([event_topic(event.event_type) for event in (Counted, Ticked, Tocked)])
        yield platform


async def start(platform: Platform, name: str, *options: str, home: Path | None = None) -> Process:
    settings = platform.settings
    assert settings.kafka is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.agent_process",
        settings.kafka,
        str(home or settings.home),
        name,
        *options,
        stdout=PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def end(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True)
class Death:
    """`left`: StepCompleted records and outputs that stand on the log after it; `then`: those after the agent came back."""

    agent: Callable[[str, list[int]], Agent]
    point: str
    left: tuple[int, int]
    then: tuple[int, int]
    calls: int


DEATHS = {
    "pure before its journal record": Death(purely_tocking, "journal", (0, 0), (1, 1), calls=1),
    "pure before its outputs": Death(purely_tocking, "outputs", (1, 0), (2, 1), calls=1),
    "pure before its commit": Death(purely_tocking, "commit", (1, 1), (2, 2), calls=1),
    "recorded before its row": Death(tocking, "row", (0, 0), (1, 1), calls=1),
    # The row stands before anything leaves, and answers for the rest: nobody is asked again.
    "recorded before it is told": Death(tocking, "journal", (0, 0), (1, 1), calls=0),
    "recorded before its commit": Death(tocking, "commit", (1, 1), (2, 2), calls=0),
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
async def test_an_agent_killed_before_an_effect_repeats_the_step_under_the_same_ids(platform: Platform, death: Death) -> None:
    name = unique_agent("tocking")
    dying = await start(platform, name, "--agent", death.agent.__name__, "--die-at", death.point)
    try:
        published = await platform.bus("tests", Untraced()).publish(Ticked(number=7))
        assert await dying.wait() == -signal.SIGKILL
    finally:
        await end([dying])
    flow = published.flow_id.encode()
    step = step_id_of(published.flow_id, name, "crash.ticked", published.event_id)
    output = output_event_id(step, "crash.tocked", 0)

    async def tocked() -> list[Delivery]:
        return [record for record in await read_topic(platform, "crash.tocked") if record.key == flow]

    async def completed() -> list[tuple[str, StepCompleted]]:
        journal = await journal_of(platform, published.flow_id)
        return [(envelope.event_id, record) for envelope, record in journal if isinstance(record, StepCompleted)]

    # What stands on the log after the kill shows the order: journal, then outputs, then the commit.
    assert (len(await completed()), len(await tocked())) == death.left
    assert await platform.transport.cluster.committed(name, [TopicPartition("crash.ticked", published.partition)]) == {
        TopicPartition("crash.ticked", published.partition): published.offset
    }

    calls: list[int] = []
    async with running(platform, death.agent(name, calls)):
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
        found = await eventually(tocked, lambda found: len(found) == death.then[1])
    assert set(ids(found)) == {output}, "repeated, not multiplied"
    told = {(record.value, *sorted((name, value) for name, value in record.headers if name.startswith("ce_"))) for record in found}
    assert len(told) == 1, "the same value and headers, the time among them"
    records = await completed()
    assert {record.step_id for _, record in records} == {step} and len({event_id for event_id, _ in records}) == 1
    assert (len(records), calls) == (death.then[0], [7] * death.calls)


@pytest.mark.parametrize("point", ["retry", "commit"])
async def test_an_agent_killed_around_a_retry_record_keeps_attempts_delay_and_order(platform: Platform, point: str) -> None:
    name, ticks = unique_agent("retrying"), 3
    dying = await start(platform, name, "--agent", "retrying", "--die-at", point)
    async with running(platform, counting(unique_agent("counting"))):
        try:
            published = await platform.bus("tests", Untraced()).publish(Counted(up_to=ticks))
            assert await dying.wait() == -signal.SIGKILL
        finally:
            await end([dying])
        waiting = await read_topic(platform, f"{name}.retry.6s")
        assert (len(waiting) > 0) == (point == "commit")
        async with running(platform, retrying(name)):
            assert (await ended(platform, published.flow_id)).state is State.COMMITTED

            async def tocks() -> list[str]:
                found = [record for record in await read_topic(platform, "crash.tocked") if record.key == published.flow_id.encode()]
                return list(dict.fromkeys(ids(found)))

            found = await eventually(tocks, lambda found: len(found) == ticks)
    noted = (platform.home / "agents" / name / "attempts").read_text().split("\n")[:-1]
    attempts = [(int(number), int(attempt), float(at)) for number, attempt, at in map(str.split, noted)]
    assert [(number, attempt) for number, attempt, _ in attempts] == [(0, 1), (0, 2), (1, 1), (2, 1)]
    assert attempts[1][2] - attempts[0][2] >= RETRY_SECONDS, "never early, also after a crash"
    triggers = [record for record in await read_topic(platform, "crash.ticked") if record.key == published.flow_id.encode()]
    in_order = [output_event_id(step_id_of(published.flow_id, name, "crash.ticked", each), "crash.tocked", 0) for each in ids(triggers)]
    assert found == in_order


@pytest.mark.parametrize("agent", ["purely_tocking", "tocking"])
async def test_three_instances_lose_nothing_and_keep_the_order_of_flows_while_they_join_leave_and_die(
    platform: Platform, postgres: Postgres, tmp_path: Path, agent: str
) -> None:
    name, ticks, flows_max = unique_agent("tocking"), 20, 60
    chance = random.Random(7)
    bus = platform.bus("tests", Untraced())
    flows: list[FlowId] = []
    everybody: list[Process] = []

    async def join() -> Process:
        # Each on a machine of its own: they have nothing in common but Kafka and the database.
        home = tmp_path / f"machine-{len(everybody)}"
        everybody.append(await start(platform, name, "--agent", agent, "--store", postgres.address, home=home))
        return everybody[-1]

    async def tocked() -> dict[bytes, list[str]]:
        by_flow: dict[bytes, list[str]] = defaultdict(list)
        for record in await read_topic(platform, "crash.tocked"):
            by_flow[record.key or b""] += ids([record])
        return by_flow

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(platform, counting(unique_agent("counting"))))
        stack.push_async_callback(end, everybody)
        members = [await join() for _ in range(3)]
        for number in range(flows_max):
            flows.append((await bus.publish(Counted(up_to=ticks))).flow_id)
            if number % 15 == 14:
                # One dies or leaves under load, another joins.
                victim = members.pop(chance.randrange(len(members)))
                victim.send_signal(signal.SIGKILL if number % 30 == 14 else signal.SIGTERM)
                members.append(await join())
        found = await eventually(tocked, lambda found: all(len(set(found[flow.encode()])) == ticks for flow in flows), seconds=90)
        states = await states_of(platform, flows)
    for flow in flows:
        (counted,) = [step for step in states[flow].expected.values() if step.trigger.type == "crash.counted"]
        triggers = [output_event_id(counted.step_id, "crash.ticked", index) for index in range(ticks)]
        in_order = [output_event_id(step_id_of(flow, name, "crash.ticked", trigger), "crash.tocked", 0) for trigger in triggers]
        # A repetition after a death may follow later; what comes first must be whole and in order.
        assert list(dict.fromkeys(found[flow.encode()])) == in_order
    at_work = [each for each in range(len(everybody)) if any((tmp_path / f"machine-{each}").glob(f"**/{name}/{CALLS}"))]
    assert len(at_work) >= 2, f"the work is shared; of {len(everybody)} instances these did any: {at_work}"
