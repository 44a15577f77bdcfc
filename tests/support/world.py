"""Running agents in a test's own process, and reading back what they left on the topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform
from maypole.bus.hook import Tracing, Untraced
from maypole.bus.ports import Delivery, TopicPartition
from maypole.bus.runner import AgentRunner
from maypole.bus.starting_offsets import StartFrom
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader, schema_id_of
from maypole.schemas.envelope import Envelope, flow_of, read_envelope
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import RECORDS
from maypole.schemas.topics import JOURNAL
from maypole.services.saga import FlowState, State, fold

T = TypeVar("T")
_READERS = {schema_of(record).derived_id: Reader(schema_of(record), record) for record in RECORDS}


@asynccontextmanager
async def running(
    platform: Platform, *agents: Agent, start: StartFrom = "latest", temporary: bool = True, tracing: Tracing | None = None
) -> AsyncIterator[list[AgentRunner]]:
    """The agents, announced; stopped in order when the block is left. A failure of one fails the test."""
    runners = [platform.runner(agent, tracing or Untraced(), start=start, temporary=temporary) for agent in agents]
    async with asyncio.TaskGroup() as group:
        for runner in runners:
            group.create_task(runner.run())
        await asyncio.gather(*(runner.ready.wait() for runner in runners))
        try:
            yield runners
        finally:
            for runner in runners:
                runner.stop()


async def read_topic(platform: Platform, topic: str) -> list[Delivery]:
    """Everything on a topic up to now, by partition and offset."""
    count = (await platform.transport.cluster.topics()).get(topic, 0)
    ends = await platform.transport.cluster.watermarks([TopicPartition(topic, partition) for partition in range(count)])
    positions = {at: oldest for at, (oldest, end) in ends.items() if oldest < end}
    found: list[Delivery] = []
    if positions:
        async with platform.transport.reader(dict(positions)) as reader:
            while any(positions[at] < ends[at][1] for at in positions):
                for record in await reader.read(0.5):
                    positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
                    found.append(record)
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def journal_of(platform: Platform, flow: FlowId) -> list[tuple[Envelope, Event]]:
    return [
        (read_envelope(record.headers), _READERS[schema_id_of(record.value or b"")].decode(record.value or b""))
        for record in await read_topic(platform, JOURNAL)
        if flow_of(record.headers) == flow
    ]


async def states_of(platform: Platform, flows: Collection[FlowId]) -> dict[FlowId, FlowState]:
    """Read the journal once for all of them."""
    await platform.catalog.refresh()
    states = {flow: FlowState(flow) for flow in flows}
    for record in await read_topic(platform, JOURNAL):
        flow = flow_of(record.headers)
        if flow in states and record.value is not None:
            body = _READERS[schema_id_of(record.value)].decode(record.value)
            states[flow] = fold(states[flow], body, platform.catalog.view.choreographies, record.timestamp_ms)
    return states


async def state_of(platform: Platform, flow: FlowId) -> FlowState:
    return (await states_of(platform, [flow]))[flow]


async def eventually(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = 60.0) -> T:
    """What `ask` answers once it holds. The pause is between questions to a broker, which offers no event to wait on."""
    answer = await ask()
    try:
        async with asyncio.timeout(seconds):
            while not holds(answer):
                await asyncio.sleep(0.05)
                answer = await ask()
    except TimeoutError:
        raise AssertionError(f"did not hold within {seconds:g} s; the last answer was {answer!r}") from None
    return answer


async def ended(platform: Platform, flow: FlowId) -> FlowState:
    """The flow's state once it is decided: past a pivot, too, there are steps to wait for."""
    under_way = (State.RUNNING, State.FORWARD_ONLY)
    return await eventually(lambda: state_of(platform, flow), lambda state: state.state not in under_way)


async def letters(platform: Platform, agent: str, count: int) -> list[tuple[Delivery, dict[str, str]]]:
    """The dead letters of an agent once there are so many, each with what was added to its headers."""
    found = await eventually(lambda: read_topic(platform, f"{agent}.dlq"), lambda records: len(records) >= count)
    return [(record, {name: (value or b"").decode() for name, value in record.headers if name.startswith("dlq-")}) for record in found]


def headers_of(record: Delivery) -> dict[str, bytes | None]:
    return dict(record.headers)


def ids(records: Sequence[Delivery]) -> list[str]:
    return [(headers_of(record)["ce_id"] or b"").decode() for record in records]
