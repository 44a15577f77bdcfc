"""What only the broker in memory does: faults on demand, and the same steps in every run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.faults import Faults, IncarnationDead
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import PublishRefused, TopicPartition
from tests.contract.owner import Owner, offsets, publish, values

AT = TopicPartition("t", 0)


def broker_with(now: Callable[[], float], faults: Faults | None = None, partitions: int = 1) -> MemoryBroker:
    broker = MemoryBroker(now, faults)
    broker.create_topic("t", partitions, {})
    return broker


async def test_an_acknowledgement_takes_as_long_as_it_is_told() -> None:
    async with virtual_time() as clock:
        broker = broker_with(clock.now, Faults(acknowledge_after=lambda record: 3.0))
        async with MemoryTransport(broker) as transport, transport.sink() as sink:
            await publish(sink, "t", 5)
            assert clock.elapsed == 3.0


async def test_records_arrive_late_but_in_order() -> None:
    async with virtual_time() as clock:
        broker = broker_with(clock.now, Faults(arrive_after=lambda record: 10.0 - int(record.value or b"")))
        owner = Owner()
        async with MemoryTransport(broker) as transport, transport.sink() as sink, transport.source("g", ["t"], owner) as source:
            await publish(sink, "t", 3)
            await owner.fetch(source, 3)
        assert values(owner.seen) == [0, 1, 2]
        assert clock.elapsed == 10.0


async def test_a_record_that_is_refused_is_not_written_and_the_others_are() -> None:
    async with virtual_time() as clock:
        broker = broker_with(clock.now, Faults(refuse=lambda record: "not this one" if record.value == b"1" else None))
        async with MemoryTransport(broker) as transport, transport.sink() as sink:
            with pytest.raises(PublishRefused, match="not this one"):
                await publish(sink, "t", 3)
            assert await transport.cluster.watermarks([AT]) == {AT: (0, 2)}


async def test_a_repeated_publication_lies_there_twice() -> None:
    async with virtual_time() as clock:
        broker, owner = broker_with(clock.now, Faults(append_twice=lambda record: record.value == b"1")), Owner()
        async with MemoryTransport(broker) as transport, transport.sink() as sink, transport.source("g", ["t"], owner) as source:
            await publish(sink, "t", 3)
            await owner.fetch(source, 4)
        assert [delivery.value for delivery in owner.seen] == [b"0", b"1", b"1", b"2"]


async def test_a_delivery_can_come_again_with_what_follows_it() -> None:
    again = iter([False, False, True])
    async with virtual_time() as clock:
        faults = Faults(deliver_again=lambda delivery: next(again, False))
        broker, owner = broker_with(clock.now, faults), Owner()
        async with MemoryTransport(broker) as transport, transport.sink() as sink, transport.source("g", ["t"], owner) as source:
            await publish(sink, "t", 4)
            await owner.fetch(source, 6)
        assert offsets(owner.seen) == {AT: [0, 1, 2, 3, 2, 3]}


async def test_the_ports_of_a_dead_process_refuse_every_call_and_its_group_goes_on_without_it() -> None:
    async with virtual_time() as clock:
        broker, dead, heir = broker_with(clock.now), Owner(), Owner()
        async with MemoryTransport(broker) as doomed, MemoryTransport(broker) as alive:
            async with doomed.sink() as sink, doomed.reader({AT: 0}) as reader, doomed.source("g", ["t"], dead) as source:
                await publish(sink, "t", 4)
                await dead.fetch(source, 4)
                fetching = asyncio.ensure_future(source.fetch())
                await asyncio.sleep(0)
                doomed.kill()
                for call in (
                    publish(sink, "t", 1),
                    source.commit({AT: 4}),
                    source.fetch(),
                    fetching,
                    reader.read(0),
                    doomed.cluster.topics(),
                ):
                    with pytest.raises(IncarnationDead):
                        await call
                with pytest.raises(IncarnationDead):
                    source.pause([AT])
            # Nobody told the dead one, and nothing of it was committed.
            assert dead.events("revoked") == dead.events("lost") == []
            assert await alive.cluster.committed("g", [AT]) == {}
            async with alive.source("g", ["t"], heir) as source:
                await heir.fetch(source, 4)
        assert values(heir.seen) == [0, 1, 2, 3]


async def test_what_a_dead_process_was_about_to_write_is_never_written() -> None:
    async with virtual_time() as clock:
        broker = broker_with(clock.now)
        async with MemoryTransport(broker) as doomed, MemoryTransport(broker) as alive:
            async with doomed.sink() as sink:
                broker.go_away()
                publishing = asyncio.ensure_future(publish(sink, "t", 1))
                await asyncio.sleep(1)
                doomed.kill()
                broker.come_back()
                with pytest.raises(IncarnationDead):
                    await publishing
            assert await alive.cluster.watermarks([AT]) == {AT: (0, 0)}


async def _busy_program() -> list[object]:
    """Three members, faults, delays; everything that was told and seen, with its time."""
    trace: list[object] = []
    async with virtual_time() as clock:
        delays = iter(range(10_000))
        faults = Faults(
            acknowledge_after=lambda record: (next(delays) * 7 % 11) / 10, arrive_after=lambda record: (next(delays) * 5 % 13) / 10
        )
        broker = broker_with(clock.now, faults, partitions=4)

        async def member(begin: float, end: float) -> None:
            owner = Owner()
            await asyncio.sleep(begin)
            async with MemoryTransport(broker) as transport, transport.source("g", ["t"], owner, batch_max=3) as source:
                try:
                    async with asyncio.timeout(end - begin):
                        while True:
                            batch = await source.fetch()
                            owner.take(batch)
                            trace.append((clock.elapsed, [(d.partition, d.offset, d.timestamp_ms) for d in batch]))
                            await asyncio.sleep(0.05)
                except TimeoutError:
                    pass
            trace.append(owner.told)

        async def produce() -> None:
            async with MemoryTransport(broker) as transport, transport.sink() as sink:
                for start in range(0, 100, 5):
                    await publish(sink, "t", 5, start)
                    trace.append(clock.elapsed)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            for begin, end in ((0, 30), (2.5, 20), (4, 12), (9, 30)):
                group.create_task(member(begin, end))
    return trace


async def test_the_same_program_takes_the_same_steps() -> None:
    first = await _busy_program()
    assert len(first) > 50
    assert await _busy_program() == first
