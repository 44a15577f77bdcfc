"""What happens when members join, leave, hand over and lose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from maypole.bus.kafka.aio_source import AioSource
from maypole.bus.memory.member import MemoryMember
from maypole.bus.ports import Delivery, Source, TopicPartition, Transport
from tests.contract.brokers import Broker, Kind, those, unique
from tests.contract.owner import Owner, all_of, offsets, publish, values

SEVERAL = [*those(lambda f: f.several_members), Kind.CLASSIC_KAFKA]


@asynccontextmanager
async def member(transport: Transport, group: str, topics: list[str], owner: Owner) -> AsyncIterator[Source]:
    """A member that works: it fetches all the time, and hands over how far it got."""
    async with transport.source(group, topics, owner, batch_max=10) as source:
        working = asyncio.ensure_future(_work(source, owner))
        try:
            yield source
        finally:
            working.cancel()
            await asyncio.wait({working})
    if not working.cancelled():
        working.result()


async def _work(source: Source, owner: Owner) -> None:
    while True:
        owner.take(await source.fetch())
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what several owners show together."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - no owner alone could tell
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_two_members_share_the_partitions_and_one_takes_over_from_the_other(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 4), unique("group")
    everything = set(all_of(topic, 4))
    first, second = Owner(), Owner()
    async with broker.connect() as other, member(transport, group, [topic], first):
        await until(lambda: first.held == everything)
        async with member(other, group, [topic], second):
            await until(lambda: len(first.held) == len(second.held) == 2 and first.held | second.held == everything)
        await until(lambda: first.held == everything)


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_a_member_for_whom_nothing_is_left_is_told_so(broker: Broker, transport: Transport) -> None:
    topic, group, first, second = await broker.topic(transport, 1), unique("group"), Owner(), Owner()
    async with broker.connect() as other, member(transport, group, [topic], first):
        await until(lambda: len(first.held) == 1)
        async with member(other, group, [topic], second):
            async with asyncio.timeout(20):
                await second.until(lambda owner: bool(owner.events("assigned")))


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_members_get_equal_partitions_of_two_topics(broker: Broker, transport: Transport) -> None:
    topics = [await broker.topic(transport, 4), await broker.topic(transport, 4)]
    group, first, second = unique("group"), Owner(), Owner()
    async with broker.connect() as other, member(transport, group, topics, first), member(other, group, topics, second):
        await until(lambda: len(first.held) == len(second.held) == 4)
        for owner in (first, second):
            numbers = [{at.partition for at in owner.held if at.topic == topic} for topic in topics]
            assert numbers[0] == numbers[1]


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_equal_partitions_stay_together_beside_other_topics_and_when_members_come_and_go(
    broker: Broker, transport: Transport
) -> None:
    alike = [await broker.topic(transport, 4), await broker.topic(transport, 4)]
    topics, group = [*alike, await broker.topic(transport, 3)], unique("group")
    owners = [Owner() for _ in range(3)]

    def shared(members: list[Owner]) -> bool:
        """Every partition of both topics is held by one member, and those of equal numbers by the same."""
        numbers = [[{at.partition for at in owner.held if at.topic == topic} for topic in alike] for owner in members]
        return sorted(n for first, _ in numbers for n in first) == list(range(4)) and all(first == second for first, second in numbers)

    async with AsyncExitStack() as stack:
        second, third = [await stack.enter_async_context(broker.connect()) for _ in range(2)]
        await stack.enter_async_context(member(transport, group, topics, owners[0]))
        await stack.enter_async_context(member(second, group, topics, owners[1]))
        async with member(third, group, topics, owners[2]):
            await until(lambda: all(owner.held for owner in owners) and shared(owners))
        await until(lambda: not owners[2].held and shared(owners[:2]))


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_nothing_is_lost_doubled_or_disordered_while_members_come_and_go(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 6), unique("group")
    owners = [Owner() for _ in range(4)]
    sent = 0

    def seen() -> list[Delivery]:
        return [delivery for owner in owners for delivery in owner.seen]

    async with broker.connect() as second, broker.connect() as third, transport.sink() as sink:

        async def send(count: int) -> None:
            nonlocal sent
            await publish(sink, topic, count, sent)
            sent += count

        async with member(transport, group, [topic], owners[0]):
            await send(200)
            await until(lambda: len(seen()) >= 100)
            async with member(second, group, [topic], owners[1]):
                await send(200)
                await until(lambda: bool(owners[1].held))
                async with member(third, group, [topic], owners[2]):
                    await send(200)
                    await until(lambda: bool(owners[2].held))
                    await send(200)
                await send(200)
            await send(200)
            await until(lambda: len(seen()) >= sent)
        # The last to leave has committed everything: nobody gets anything again.
        async with member(second, group, [topic], owners[3]):
            await send(10)
            await until(lambda: len(seen()) >= sent)
    assert values(seen()) == list(range(sent))
    for owner in owners:
        for found in offsets(owner.seen).values():
            assert found == sorted(found)


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_a_revoked_position_is_committed_before_the_next_owner_is_told(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 2), unique("group")
    first, second = Owner(), Owner()
    committed: dict[TopicPartition, int] = {}

    async with broker.connect() as other, transport.sink() as sink:

        async def look() -> None:
            committed.update(await other.cluster.committed(group, all_of(topic, 2)))

        second.on_assigned = look
        await publish(sink, topic, 40)
        async with transport.source(group, [topic], first) as source:
            await first.fetch(source, 40)
            progress = dict(first.positions)
            async with member(other, group, [topic], second):
                await until(lambda: len(second.held) == 1)
    [moved] = second.events("assigned")[-1] or second.events("assigned")[0]
    assert committed[moved] == progress[moved]
    assert second.seen == []


@pytest.mark.parametrize("broker", SEVERAL, indirect=True, ids=str)
async def test_an_owner_may_await_a_commit_of_its_own_while_it_hands_over(broker: Broker, transport: Transport) -> None:
    topic, group, owner = await broker.topic(transport, 1), unique("group"), Owner()
    [at] = all_of(topic, 1)
    async with transport.sink() as sink:
        await publish(sink, topic, 5)
    async with transport.source(group, [topic], owner) as source:
        await owner.fetch(source, 5)
        owner.positions.clear()

        async def commit_first() -> None:
            await source.commit({at: 3})

        owner.on_revoked = commit_first
    assert await transport.cluster.committed(group, [at]) == {at: 3}


async def test_an_owner_that_does_not_let_go_is_left_behind_in_bounded_time(broker: Broker, transport: Transport) -> None:
    topic, group, owner = await broker.topic(transport, 1), unique("group"), Owner()
    async with transport.sink() as sink:
        await publish(sink, topic, 5)
    loop = asyncio.get_running_loop()
    async with transport.source(group, [topic], owner, revoke_seconds=0.3) as source:
        await owner.fetch(source, 5)
        owner.on_revoked = asyncio.Event().wait  # type: ignore[assignment]
        began = loop.time()
    assert 0.3 <= loop.time() - began < 3
    assert await transport.cluster.committed(group, all_of(topic, 1)) == {}


@pytest.mark.parametrize(
    "broker", [Kind.MEMORY, Kind.CONFLUENT_EMBEDDED, Kind.CONFLUENT_KAFKA, Kind.AIOKAFKA_KAFKA], indirect=True, ids=str
)
async def test_lost_partitions_are_told_and_nothing_is_committed(broker: Broker) -> None:
    owner, group = Owner(), unique("group")
    # librdkafka gives a member up that does not poll; in a group of the consumer protocol that may be soon.
    config = (
        {"max.poll.interval.ms": "1000", "group.protocol": "consumer"}
        if broker.kind.client == "confluent"
        else {"session.timeout.ms": "6000"}
    )
    async with broker.connect(config) as transport, transport.sink() as sink:
        topic = await broker.topic(transport, 1)
        [at] = all_of(topic, 1)
        await publish(sink, topic, 5)
        async with transport.source(group, [topic], owner) as source:
            await owner.fetch(source, 5)
            await lose(broker, source, owner, topic, transport)
            assert owner.events("lost") == [frozenset([at])]
            assert await transport.cluster.committed(group, [at]) == {}
            # The member comes back by itself and begins where the group was left.
            await owner.fetch(source, 10 - len(owner.seen))
            assert offsets(owner.seen) == {at: [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]}


async def lose(broker: Broker, source: Source, owner: Owner, topic: str, transport: Transport) -> None:
    if isinstance(source, MemoryMember):
        source.expel()
    elif isinstance(source, AioSource):
        # A process that stands still for longer than its session: no heartbeat leaves it.
        time.sleep(7.5)  # noqa: ASYNC251
    else:
        # The thread that polls stands still, which the client library notices about once a second.
        source._member._bridge.tell(lambda: time.sleep(3))  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while not owner.events("lost"):
            fetching = asyncio.ensure_future(source.fetch())
            await asyncio.wait({fetching}, timeout=0.2)
            if fetching.done():
                owner.take(fetching.result())
            else:
                fetching.cancel()
                await asyncio.wait({fetching})
