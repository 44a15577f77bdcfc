"""What every source does for one member: batches, pauses, cancellation, commits, expired offsets."""

from __future__ import annotations

import asyncio
import random

import pytest

from maypole.bus.ports import BrokerUnreachable, Delivery, Expired, TopicPartition, Transport
from tests.contract.brokers import Broker, unique
from tests.contract.owner import Owner, all_of, offsets, publish, values


async def test_a_new_group_starts_at_the_oldest_record_and_reads_each_partition_in_order(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 3), Owner()
    async with transport.sink() as sink, transport.source(unique("group"), [topic], owner) as source:
        await publish(sink, topic, 200)
        await owner.fetch(source, 200)
    assert values(owner.seen) == list(range(200))
    assert all(found == list(range(len(found))) for found in offsets(owner.seen).values())


async def test_partitions_are_announced_before_their_records_and_taken_back_on_leaving(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 3), Owner()
    everything = frozenset(all_of(topic, 3))
    async with transport.sink() as sink:
        await publish(sink, topic, 10)
    async with transport.source(unique("group"), [topic], owner) as source:
        # `Owner.take` fails on a record of a partition that was not announced.
        await owner.fetch(source, 10)
        assert frozenset().union(*owner.events("assigned")) == everything
    assert frozenset().union(*owner.events("revoked")) == everything
    assert owner.events("lost") == []


async def test_a_batch_is_never_longer_than_asked(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 2), Owner()
    sizes = []
    async with transport.sink() as sink:
        await publish(sink, topic, 100)
    async with transport.source(unique("group"), [topic], owner, batch_max=7) as source:
        while len(owner.seen) < 100:
            batch = await source.fetch()
            owner.take(batch)
            sizes.append(len(batch))
            if len(sizes) == 3:
                source.pause(all_of(topic, 2))
                source.resume(all_of(topic, 2))
    assert 1 <= min(sizes) <= max(sizes) <= 7
    assert values(owner.seen) == list(range(100))


async def test_one_record_is_delivered_without_waiting_for_more(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 1), Owner()
    loop = asyncio.get_running_loop()
    async with transport.sink() as sink, transport.source(unique("group"), [topic], owner) as source:
        await publish(sink, topic, 1)
        await owner.fetch(source, 1)
        waits = []
        for n in range(1, 11):
            began = loop.time()
            await publish(sink, topic, 1, n)
            await owner.fetch(source, 1)
            waits.append(loop.time() - began)
    assert sorted(waits)[5] < 0.1, waits


async def test_a_paused_partition_is_silent_and_nothing_of_it_is_skipped(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 2), Owner()
    paused, running = all_of(topic, 2)
    async with transport.sink() as sink, transport.source(unique("group"), [topic], owner, batch_max=10) as source:
        where = await publish(sink, topic, 60)
        await owner.fetch(source, 1)
        source.pause([paused])
        seen_before = len(offsets(owner.seen).get(paused, []))
        where += await publish(sink, topic, 60, 60)
        while len(offsets(owner.seen).get(running, [])) < where.count(running):
            owner.take(await source.fetch())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await source.fetch()
        assert len(offsets(owner.seen).get(paused, [])) == seen_before
        source.resume([paused])
        await owner.fetch(source, 120 - len(owner.seen))
    assert values(owner.seen) == list(range(120))
    assert all(found == list(range(len(found))) for found in offsets(owner.seen).values())


async def test_resuming_wakes_a_fetch_that_waits(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 1), Owner()
    [at] = all_of(topic, 1)
    async with transport.sink() as sink, transport.source(unique("group"), [topic], owner, batch_max=5) as source:
        await publish(sink, topic, 20)
        await owner.fetch(source, 1)
        source.pause([at])
        fetching = asyncio.ensure_future(source.fetch())
        await asyncio.wait({fetching}, timeout=0.1)
        assert not fetching.done()
        source.resume([at])
        owner.take(await fetching)
        await owner.fetch(source, 20 - len(owner.seen))
    assert offsets(owner.seen) == {at: list(range(20))}


async def test_a_cancelled_fetch_swallows_nothing(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 3), Owner()
    chance = random.Random(7)
    async with transport.sink() as sink, transport.source(unique("group"), [topic], owner, batch_max=20) as source:
        for round_ in range(40):
            publishing = asyncio.ensure_future(publish(sink, topic, 10, round_ * 10))
            try:
                async with asyncio.timeout(chance.uniform(0, 0.02)):
                    while True:
                        owner.take(await source.fetch())
            except TimeoutError:
                pass
            await publishing
        await owner.fetch(source, 400 - len(owner.seen))
    assert values(owner.seen) == list(range(400))
    assert all(found == list(range(len(found))) for found in offsets(owner.seen).values())


async def test_a_group_resumes_at_the_committed_position(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 1), unique("group")
    [at] = all_of(topic, 1)
    async with transport.sink() as sink:
        await publish(sink, topic, 10)
    first = Owner()
    async with transport.source(group, [topic], first) as source:
        await first.fetch(source, 10)
        await source.commit({at: 4})
        assert await transport.cluster.committed(group, [at]) == {at: 4}
        # Nothing more is committed on leaving.
        first.positions.clear()
    second = Owner()
    async with transport.source(group, [topic], second) as source:
        await second.fetch(source, 6)
    assert offsets(second.seen) == {at: [4, 5, 6, 7, 8, 9]}


async def test_what_was_not_committed_is_delivered_again(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 2), unique("group")
    async with transport.sink() as sink:
        await publish(sink, topic, 20)
    first, second = Owner(), Owner()
    async with transport.source(group, [topic], first) as source:
        await first.fetch(source, 20)
        first.positions.clear()
    async with transport.source(group, [topic], second) as source:
        await second.fetch(source, 20)
    assert values(second.seen) == values(first.seen) == list(range(20))


async def test_seeded_offsets_are_where_a_group_starts(broker: Broker, transport: Transport) -> None:
    topic, group, owner = await broker.topic(transport, 1), unique("group"), Owner()
    [at] = all_of(topic, 1)
    async with transport.sink() as sink:
        await publish(sink, topic, 10)
        await transport.cluster.seed(group, {at: 10})
        async with transport.source(group, [topic], owner) as source:
            await owner.until(lambda owner: bool(owner.held))
            await publish(sink, topic, 3, 10)
            await owner.fetch(source, 3)
    assert offsets(owner.seen) == {at: [10, 11, 12]}


async def test_an_owner_may_begin_elsewhere_than_at_the_committed_offset(broker: Broker, transport: Transport) -> None:
    topic, group = await broker.topic(transport, 2), unique("group")
    ahead, behind = all_of(topic, 2)
    async with transport.sink() as sink:
        places = await publish(sink, topic, 40)
    owner = Owner()
    async with transport.source(group, [topic], owner) as source:
        await owner.fetch(source, 40)
        await source.commit({ahead: 2, behind: 9})
        owner.positions.clear()
    owner = Owner()
    owner.starts = {ahead: 6, behind: 4}
    expected = {ahead: list(range(6, places.count(ahead))), behind: list(range(4, places.count(behind)))}
    async with transport.source(group, [topic], owner) as source:
        await owner.fetch(source, sum(map(len, expected.values())))
    assert offsets(owner.seen) == expected


async def test_a_commit_is_quick_after_work_and_quick_enough_after_a_pause(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 1), Owner()
    [at] = all_of(topic, 1)
    loop = asyncio.get_running_loop()
    async with transport.sink() as sink, transport.source(unique("group"), [topic], owner) as source:
        waits = []
        for n in range(10):
            await publish(sink, topic, 1, n)
            await owner.fetch(source, 1)
            began = loop.time()
            await source.commit({at: n + 1})
            waits.append(loop.time() - began)
        await asyncio.sleep(0.6)  # the client is idle, and polls in long slices
        began = loop.time()
        await source.commit({at: 1})
        assert loop.time() - began < 0.3
    assert sorted(waits)[5] < 0.05, waits


async def test_committing_partitions_of_others_or_nothing_does_nothing(broker: Broker, transport: Transport) -> None:
    topic, other, group, owner = await broker.topic(transport, 1), await broker.topic(transport, 1), unique("group"), Owner()
    [at], [foreign] = all_of(topic, 1), all_of(other, 1)
    async with transport.sink() as sink, transport.source(group, [topic], owner) as source:
        await publish(sink, topic, 2)
        await owner.fetch(source, 2)
        await source.commit({})
        await source.commit({foreign: 1, at: 1})
        assert await transport.cluster.committed(group, [at, foreign]) == {at: 1}


async def test_several_commits_at_once_all_return_and_the_last_word_counts(broker: Broker, transport: Transport) -> None:
    topic, group, owner = await broker.topic(transport, 2), unique("group"), Owner()
    first, second = all_of(topic, 2)
    async with transport.sink() as sink, transport.source(group, [topic], owner) as source:
        await publish(sink, topic, 50)
        await owner.fetch(source, 50)
        await asyncio.gather(*(source.commit({first: n}) for n in range(1, 6)), source.commit({second: 3}))
        await source.commit({first: 6})
        assert await transport.cluster.committed(group, [first, second]) == {first: 6, second: 3}


async def test_an_offset_that_has_expired_is_told_and_reading_goes_on_at_the_oldest(
    broker: Broker, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    topic, group, owner = await broker.topic(transport, 2), unique("group"), Owner()
    sent = 0
    async with transport.sink() as sink:
        where = await publish(sink, topic, 60)
        sent = where.count(TopicPartition(topic, 0))
    expired, intact = all_of(topic, 2)
    await transport.cluster.seed(group, {expired: 2, intact: 1})
    broker.trim(expired, 5)
    async with transport.source(group, [topic], owner) as source:
        await owner.fetch(source, sent - 5 + (60 - sent) - 1)
    assert offsets(owner.seen) == {expired: list(range(5, sent)), intact: list(range(1, 60 - sent))}
    assert broker.expired == [Expired(group, expired, 2, 5)]
    assert transport.expired_records == {group: 3}
    assert "bus.records_expired" in caplog.messages


async def test_a_slow_owner_stays_in_the_group(broker: Broker) -> None:
    """Longer than the client library would wait for the next poll."""
    config = {"max.poll.interval.ms": "1000", "group.protocol": "consumer"} if broker.kind.client == "confluent" else None
    owner = Owner()
    async with broker.connect(config) as transport, transport.sink() as sink:
        topic = await broker.topic(transport, 2)
        async with transport.source(unique("group"), [topic], owner, batch_max=5) as source:
            await publish(sink, topic, 50)
            await owner.fetch(source, 1)
            await asyncio.sleep(2.5)  # the owner works on its batch
            await owner.fetch(source, 50 - len(owner.seen))
            assert values(owner.seen) == list(range(50))
            assert owner.events("lost") == owner.events("revoked") == []


async def test_a_closed_source_says_so(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 1), Owner()
    async with transport.source(unique("group"), [topic], owner) as source:
        await owner.until(lambda owner: bool(owner.events("assigned")))
        fetching = asyncio.ensure_future(source.fetch())
    with pytest.raises(BrokerUnreachable, match="closed"):
        await fetching
    with pytest.raises(BrokerUnreachable, match="closed"):
        await source.fetch()


async def test_a_failure_of_the_owner_is_raised_from_fetch(broker: Broker, transport: Transport) -> None:
    topic, owner = await broker.topic(transport, 1), Owner()

    async def fail() -> None:
        raise RuntimeError("the owner cannot take this")

    owner.on_assigned = fail
    async with transport.source(unique("group"), [topic], owner) as source:
        with pytest.raises(RuntimeError, match="cannot take this"):
            await source.fetch()


async def test_two_topics_in_one_subscription_are_both_read(broker: Broker, transport: Transport) -> None:
    first, second, owner = await broker.topic(transport, 2), await broker.topic(transport, 2), Owner()
    async with transport.sink() as sink, transport.source(unique("group"), [first, second], owner) as source:
        await publish(sink, first, 10)
        await publish(sink, second, 10, 10)
        found: list[Delivery] = await owner.fetch(source, 20)
    assert {delivery.topic for delivery in found} == {first, second}
    assert values(found) == list(range(20))
