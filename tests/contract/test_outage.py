"""A broker that goes away and comes back: publishing and committing wait, fetching goes on, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from deploy.local.kafka import KafkaCluster
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import TopicPartition, TopicSpec, Transport
from tests.contract.brokers import Broker, Kind, unique
from tests.contract.owner import Owner, publish, values

Step = Callable[[], Awaitable[None]]


def _step(call: Callable[[], None]) -> Step:
    async def step() -> None:
        call()

    return step


@asynccontextmanager
async def mortal_kafka(kind: Kind, cluster: KafkaCluster) -> AsyncIterator[tuple[Transport, Step, Step]]:
    # Short patience, so that aiokafka's producer gives up during the outage and has to be replaced.
    config = (
        {"request.timeout.ms": "3000"} if kind is Kind.AIOKAFKA_KAFKA else {"reconnect.backoff.max.ms": "500", "socket.timeout.ms": "3000"}
    )
    async with Broker(kind, cluster.bootstrap).connect(config) as transport:
        yield transport, lambda: asyncio.to_thread(cluster.kill_node, 1), lambda: asyncio.to_thread(cluster.restart_node, 1)


@asynccontextmanager
async def mortal_memory() -> AsyncIterator[tuple[Transport, Step, Step]]:
    async with virtual_time() as clock:
        broker = MemoryBroker(clock.now)
        async with MemoryTransport(broker) as transport:
            yield transport, _step(broker.go_away), _step(broker.come_back)


async def live_through_an_outage(transport: Transport, kill: Step, restart: Step) -> None:
    topic, group, owner, leaving = unique("outage"), unique("group"), Owner(), Owner()
    loop = asyncio.get_running_loop()
    await transport.cluster.create([TopicSpec(topic, 1, {}), TopicSpec(f"{topic}.bulk", 1, {})])
    at, bulk_at = TopicPartition(topic, 0), TopicPartition(f"{topic}.bulk", 0)
    async with transport.sink() as sink, transport.sink(bulk=True) as bulk, transport.source(group, [topic], owner) as source:
        await publish(sink, topic, 10)
        await owner.fetch(source, 10)
        async with transport.source(unique("group"), [topic], leaving, revoke_seconds=1) as other:
            await leaving.fetch(other, 10)
            await kill()
            began = loop.time()
        # Leaving a group does not wait for a broker that may never come back.
        assert loop.time() - began < 15
        assert leaving.events("revoked") == [frozenset([at])]
        published = [asyncio.ensure_future(publish(sink, topic, 10, start)) for start in (10, 20, 30)]
        in_bulk = asyncio.ensure_future(publish(bulk, f"{topic}.bulk", 100))
        committed = asyncio.ensure_future(source.commit({at: 10}))
        await asyncio.wait({*published, in_bulk, committed}, timeout=2)
        assert not any(each.done() for each in (*published, in_bulk, committed))
        await restart()
        async with asyncio.timeout(40):
            receipts: list[list[TopicPartition]] = await asyncio.gather(*published)
            await in_bulk
            await committed
            while len(set(values(owner.seen))) < 40:
                owner.take(await source.fetch())
        assert receipts == [[at] * 10] * 3
        assert (await transport.cluster.watermarks([bulk_at]))[bulk_at][1] == 100
        # The group may have given the member up meanwhile; then it has its partition again, from the committed offset.
        await source.commit({at: 40})
        assert await transport.cluster.committed(group, [at]) == {at: 40}
    firsts = list(dict.fromkeys(int(delivery.value or b"") for delivery in owner.seen))
    assert firsts == list(range(40))


@pytest.mark.parametrize("kind", [Kind.CONFLUENT_KAFKA, Kind.AIOKAFKA_KAFKA], ids=str)
async def test_everything_waits_for_a_broker_that_was_killed(kind: Kind, mortal: KafkaCluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "maypole.bus.kafka")
    async with mortal_kafka(kind, mortal) as (transport, kill, restart):
        await live_through_an_outage(transport, kill, restart)
    if kind is Kind.CONFLUENT_KAFKA:
        assert caplog.text.index("bus.broker_away") < caplog.text.index("bus.broker_back")


async def test_everything_waits_for_a_memory_broker_that_is_away() -> None:
    async with mortal_memory() as (transport, kill, restart):
        await live_through_an_outage(transport, kill, restart)
