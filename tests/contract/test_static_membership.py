"""Members that say who they are (`group.instance.id`): one that restarts in time gets back what it had, and nobody else hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from maypole.bus.ports import InstanceIdTaken, Source, Transport
from tests.contract.brokers import Broker, Kind, unique
from tests.contract.owner import Owner, all_of, offsets, publish
from tests.contract.test_rebalancing import until

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
            # The classic protocol believes whoever comes last, the other one whoever was first.
            out = later if config.get("group.protocol") == "consumer" else earlier
            assert ended == {out}
            with pytest.raises(InstanceIdTaken, match=f"group {group}: this member is out.*'twin'"):
                out.result()
            remaining = owners[0] if out is later else owners[1]
            async with asyncio.timeout(40):
                await remaining.until(lambda owner: len(owner.held) == 2)
