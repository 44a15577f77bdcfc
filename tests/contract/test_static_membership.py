"""Members that say who they are (`group.instance.id`): one that restarts in time gets back what it had, and nobody else hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import confluent_kafka as ck
import pytest

from maypole.bus.ports import InstanceIdTaken, Sink, Source, Transport
from tests.contract.brokers import Broker, Kind, unique
from tests.contract.owner import Owner, all_of, offsets, publish, values
from tests.contract.test_rebalancing import until

SESSION_MS = 6000
CLASSIC = {"session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": "1000"}
PROTOCOLS = {"classic": {"session.timeout.ms": "20000"}, "consumer": {"group.protocol": "consumer"}}
STATIC = [pytest.param(Kind.CONFLUENT_KAFKA, config, id=name) for name, config in PROTOCOLS.items()]


@asynccontextmanager
async def member(broker: Broker, config: Mapping[str, str], instance: str, group: str, topic: str, owner: Owner) -> AsyncIterator[Source]:
    """As a process of its own."""
    async with broker.connect({**config, "group.instance.id": instance}) as transport, transport.source(group, [topic], owner) as source:
        yield source


@asynccontextmanager
async def at_work(source: Source, owner: Owner) -> AsyncIterator[asyncio.Task[None]]:
    async def work() -> None:
        while True:
            owner.take(await source.fetch())

    task = asyncio.create_task(work())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(("broker", "config"), STATIC, indirect=["broker"])
async def test_a_restart_within_the_session_moves_no_partition(broker: Broker, transport: Transport, config: dict[str, str]) -> None:
    topic, group = await broker.topic(transport, 4), unique("group")
    staying, before, after = Owner(), Owner(), Owner()
    everything = set(all_of(topic, 4))
    async with transport.sink() as sink, member(broker, config, "staying", group, topic, staying) as other, at_work(other, staying):
        async with member(broker, config, "restarting", group, topic, before) as source, at_work(source, before):
            async with asyncio.timeout(40):
                await before.until(lambda owner: len(owner.held) == 2)
                await staying.until(lambda owner: len(owner.held) == 2 and owner.held | before.held == everything)
            had, heard = set(before.held), len(staying.told)
        await publish(sink, topic, 40)
        async with member(broker, config, "restarting", group, topic, after) as source, at_work(source, after):
            async with asyncio.timeout(40):
                await after.until(lambda owner: len(owner.held) == 2)
                await until(lambda: len(before.seen) + len(after.seen) + len(staying.seen) >= 40)
            assert after.held == had, "what it had before"
            assert len(staying.told) == heard, "nobody else was asked to give anything up"
    assert {at for owner in (before, after) for at in offsets(owner.seen)} <= had


@pytest.mark.parametrize(("broker", "config"), STATIC, indirect=["broker"])
async def test_of_two_members_with_one_id_one_is_out_and_says_so(broker: Broker, transport: Transport, config: dict[str, str]) -> None:
    topic, group, owners = await broker.topic(transport, 2), unique("group"), (Owner(), Owner())
    async with member(broker, config, "twin", group, topic, owners[0]) as first, at_work(first, owners[0]) as earlier:
        async with asyncio.timeout(40):
            await owners[0].until(lambda owner: len(owner.held) == 2)
        async with member(broker, config, "twin", group, topic, owners[1]) as second, at_work(second, owners[1]) as later:
            ended, _ = await asyncio.wait([earlier, later], timeout=40, return_when=asyncio.FIRST_COMPLETED)
            # The classic protocol believes whoever comes last, the other one whoever was first. Each takes the id back once.
            out = later if config.get("group.protocol") == "consumer" else earlier
            assert ended == {out}
            with pytest.raises(InstanceIdTaken, match=f"group {group}: this member is out.*'twin'"):
                out.result()
            remaining = owners[0] if out is later else owners[1]
            async with asyncio.timeout(40):
                await remaining.until(lambda owner: len(owner.held) == 2)
            assert not (earlier if out is later else later).done()


@asynccontextmanager
async def ghost(broker: Broker, instance: str, group: str, topic: str) -> AsyncIterator[None]:
    """A join that is answered and then does nothing, as one that a broker kept of a client which never heard the answer."""
    properties = {"bootstrap.servers": broker.bootstrap, "group.id": group, "group.instance.id": instance}
    consumer = ck.Consumer({**properties, "group.protocol": "classic", "session.timeout.ms": SESSION_MS, "enable.auto.commit": False})
    joined: list[object] = []
    consumer.subscribe([topic], on_assign=lambda _, partitions: joined.extend(partitions))

    def join() -> None:
        while not joined:
            consumer.poll(0.1)

    try:
        async with asyncio.timeout(40):
            await asyncio.to_thread(join)
        yield
    finally:
        await asyncio.to_thread(consumer.close)


@pytest.mark.parametrize("broker", [Kind.CLASSIC_KAFKA], indirect=True, ids=str)
async def test_a_member_that_is_fenced_by_a_ghost_joins_once_more_and_goes_on_where_the_group_was_left(
    broker: Broker, transport: Transport
) -> None:
    topic, group, owner = await broker.topic(transport, 2), unique("group"), Owner()
    everything = set(all_of(topic, 2))
    sent = 0

    async def send(sink: Sink) -> None:
        nonlocal sent
        await publish(sink, topic, 20, sent)
        sent += 20

    async def everything_is_seen() -> None:
        await until(lambda: set(values(owner.seen)) == set(range(sent)), 40)

    async with transport.sink() as sink, member(broker, CLASSIC, "haunted", group, topic, owner) as source, at_work(source, owner) as work:
        for times in (1, 2):
            await send(sink)
            await everything_is_seen()
            await source.commit(dict(owner.positions))
            await send(sink)
            await everything_is_seen()
            before = len(owner.seen)
            async with ghost(broker, "haunted", group, topic):
                await send(sink)
                await until(lambda: len(owner.events("lost")) == times and owner.held == everything, 40)  # noqa: B023 - awaited here
                await everything_is_seen()
                # What was not committed when the member was fenced is read again.
                await until(lambda: len(owner.seen) >= before + 40, 40)  # noqa: B023 - awaited here
            source._member._fenced_at -= 3600  # type: ignore[attr-defined]  # and all that was long ago
        assert owner.events("lost") == [frozenset(everything)] * 2 and not owner.events("revoked")
        assert not work.done()
        await source.commit(dict(owner.positions))
        assert await transport.cluster.committed(group, list(everything)) == owner.positions
