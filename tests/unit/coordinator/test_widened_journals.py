"""Partitions that are added to the journal: keys move, so records of one flow lie in two of them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from maypole.schemas.envelope import flow_of, read_envelope
from maypole.schemas.journal import DeadlineFired
from maypole.schemas.topics import JOURNAL
from maypole.services.coordinator.width import JournalRepartitioned, lies_elsewhere
from tests.unit.coordinator.world import World

WIDER = 6


async def test_they_end_a_running_coordinator_which_says_what_to_do(world: World) -> None:
    process = await world.start()
    await world.flow().starts()
    world.broker.add_partitions(JOURNAL, WIDER)
    async with asyncio.timeout(60):
        await asyncio.wait({process.task})
    with pytest.raises(JournalRepartitioned, match=r"expected 4 partitions of maypole\.journal, .* found 6: .*delete the topic"):
        process.task.result()


async def test_who_comes_later_tells_which_flows_they_parted_and_ends_the_others_in_time(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = await world.start()
    flows = [await world.flow(deadline_seconds=60).starts() for _ in range(40)]
    await world.settled()
    await first.kill()
    world.broker.add_partitions(JOURNAL, WIDER)
    await world.start()
    await world.settled(300)
    before = {flow_of(record.headers): record.partition for record in reversed(world.topic(JOURNAL))}
    parted = {flow.id for flow in flows if lies_elsewhere(flow.id, before[flow.id], WIDER)}
    assert 0 < len(parted) < len(flows)
    fired = Counter(flow_of(record.headers) for record in world.topic(JOURNAL) if _is_deadline(read_envelope(record.headers).type))
    assert fired.keys() & parted == set(), "nobody would read it back where the flow began"
    told = [record for record in caplog.records if record.getMessage() == "coordinator.flows_elsewhere"]
    assert sum(vars(record)["flows"] for record in told) == len(parted)
    assert {flow for flow in fired if fired[flow]} == {flow.id for flow in flows} - parted


def _is_deadline(of_type: str) -> bool:
    return of_type == DeadlineFired.event_type
