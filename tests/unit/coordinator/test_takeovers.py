"""Coordinators that die, come back, or do not know that they were replaced; stores that are lost or cannot be written."""

from __future__ import annotations

import pytest

from maypole.bus.ports import Record
from maypole.schemas.topics import JOURNAL
from maypole.services.coordinator import service
from maypole.services.coordinator.naming import COORDINATOR
from maypole.services.coordinator.stores.memory import MemoryStore
from tests.unit.coordinator.world import World


def kept(store: MemoryStore) -> dict[str, tuple[object, ...]]:
    """What a store holds of every flow, without what only says what was told."""
    return {row.flow_id: (row.state, row.traces, row.subject, row.due_ms, row.ended_ms) for row in store.rows()}


async def some_flows(world: World) -> None:
    """A flow in each of the ways that flows go."""
    await (await world.flow().starts()).completes("flight", "hotel", "car")
    await (await world.flow().starts()).completes("flight")
    failed = await (await (await world.flow().starts()).completes("flight", "hotel")).fails("car")
    await failed.undone("hotel")
    aborted = await world.flow().starts()
    await aborted.begins("flight")
    await aborted.abort()
    gone = await world.flow().starts()
    await gone.abort()
    await gone.fenced("flight")


async def test_rebuilding_from_offset_zero_gives_the_same_state(world: World) -> None:
    first = await world.start()
    for _ in range(4):
        await some_flows(world)
        await world.settled(5)
    await first.stop()
    rebuilt = MemoryStore()
    second = await world.start(rebuilt)
    await world.settled(5)
    await second.stop()
    assert kept(rebuilt) == kept(world.store)
    assert len(kept(rebuilt)) == 20


async def test_folding_in_many_pieces_gives_the_same_state_as_in_one(world: World) -> None:
    for _ in range(3):
        await some_flows(world)
        process = await world.start()
        await world.settled(1)
        await process.kill()
    whole = MemoryStore()
    await (await world.start(whole)).stop()
    last = await world.start()
    await world.settled(1)
    await last.stop()
    assert kept(whole) == kept(world.store)


async def test_a_store_that_is_lost_is_rebuilt_without_telling_again_what_was_told(world: World) -> None:
    first = await world.start()
    flow = await (await world.flow().starts()).completes("flight", "hotel", "car")
    undone = await (await world.flow().starts()).completes("flight")
    await undone.fails("hotel")
    await world.settled()
    await undone.undone("flight")
    await world.settled()
    await first.stop()
    ends, sent = len(world.topic("maypole.flow.ended")), len(world.commands())
    await world.start(MemoryStore())
    await world.settled(60)
    assert (len(world.topic("maypole.flow.ended")), len(world.commands())) == (ends, sent) == (2, 1)
    assert [end.state for end in world.ends(flow.id)] == ["committed"]


async def test_a_store_that_is_lost_is_rebuilt_and_buries_nothing_that_is_not_the_same_letter(world: World) -> None:
    first = await world.start()
    whole = (await world.flow().starts()).world.topic(JOURNAL)[0]
    await world.append(Record(JOURNAL, b"nobody", b"{}", []), Record(JOURNAL, whole.key, b"?", whole.headers))
    await world.flow().completes("flight")
    stuck = await (await world.flow().starts()).completes("flight")
    await stuck.fails("hotel")
    await world.settled(900)
    await first.stop()
    letters = {(each.key, each.value, tuple(each.headers)) for each in world.topic("maypole.coordinator.dlq")}
    assert sorted(dict(headers)["dlq-reason"] or b"" for _, _, headers in letters) == [
        b"compensation_failed", b"undecodable", b"undecodable", b"unknown_flow",
    ]  # fmt: skip
    await world.start(MemoryStore())
    await world.settled(60)
    again = world.topic("maypole.coordinator.dlq")
    assert len(again) > len(letters) and {(each.key, each.value, tuple(each.headers)) for each in again} == letters


async def test_nothing_is_told_in_the_middle_of_what_was_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept before everything is read may ask for what has long been answered."""
    monkeypatch.setattr(service, "BATCH_MAX", 1)
    monkeypatch.setattr(service, "UNSAVED_MAX", 1)
    flow = await (await (await world.flow().starts()).completes("flight")).fails("hotel")
    await flow.undone("flight")
    await world.start()
    await world.settled(60)
    assert world.commands() == []
    assert [end.state for end in world.ends(flow.id)] == ["compensated"], "nobody had told of its end yet"


async def test_the_next_one_goes_on_at_the_kept_offset_whatever_the_group_has_committed(world: World) -> None:
    first = await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await world.settled(10)
    await first.stop()
    positions = dict.fromkeys(await world.committed(COORDINATOR), 0)
    await world.platform.transport.cluster.seed(COORDINATOR, positions)
    second = await world.start()
    await world.settled()
    assert second.coordinator.counts.folded == 0
    await flow.fails("hotel")
    await world.settled()
    assert world.asked(flow.id) == [("flight", "compensate")]


async def test_who_dies_between_keeping_and_telling_leaves_nothing_unsaid(world: World) -> None:
    """The command is kept as owed, and whoever takes over sends it."""
    world.broker.faults.refuse = lambda record: "away" if record.topic in ("flight.commands", "maypole.flow.ended") else None
    first = await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await flow.fails("hotel")
    await world.settled()
    await first.kill()
    assert world.commands() == []
    world.broker.faults.refuse = lambda record: None
    await world.start()
    await world.settled()
    assert world.asked(flow.id) == [("flight", "compensate")]


async def test_a_coordinator_that_was_superseded_keeps_nothing_and_does_no_harm(world: World) -> None:
    zombie = await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await world.settled()
    for partition in range(4):
        await world.store.take(partition, world.store.version_of(partition))  # somebody has taken over, and nobody told the first
    await flow.fails("hotel")
    await world.settled()
    assert world.commands() == [], "what was not kept is not told"
    await world.settled(10)
    assert zombie.coordinator.partitions == [0, 1, 2, 3], "it has joined anew"
    assert world.asked(flow.id) == [("flight", "compensate")]


async def test_two_coordinators_share_the_partitions_and_survive_each_other(world: World) -> None:
    first = await world.start()
    second = await world.start()
    await world.until(lambda: len(first.coordinator.partitions) == len(second.coordinator.partitions) == 2)
    flows = [await (await world.flow().starts()).completes("flight") for _ in range(12)]
    await world.settled(5)
    await first.kill()
    for flow in flows:
        await flow.fails("hotel")
    await world.until(lambda: all(world.asked(flow.id) == [("flight", "compensate")] for flow in flows))
    for flow in flows:
        await flow.undone("flight")
    await world.until(lambda: all([end.state for end in world.ends(flow.id)] == ["compensated"] for flow in flows))
    assert second.coordinator.partitions == [0, 1, 2, 3]


async def test_coordinators_with_stores_of_their_own_come_to_the_same(world: World) -> None:
    """A store that has not seen what another one has is behind, and no more."""
    mine, theirs = MemoryStore(), MemoryStore()
    flow = await (await world.flow().starts()).completes("flight")
    first = await world.start(mine)
    await world.settled()
    await first.stop()
    await flow.fails("hotel")
    second = await world.start(theirs)
    await world.settled()
    await second.stop()
    await flow.undone("flight")
    third = await world.start(mine)
    await world.settled()
    await third.stop()
    assert [end.state for end in world.ends(flow.id)] == ["compensated"]
    await (await world.start(theirs)).stop()
    assert kept(mine) == kept(theirs)


async def test_a_store_that_cannot_be_used_is_waited_for_and_nothing_is_dropped(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await world.settled()
    world.store.refuse = lambda call: True
    await flow.fails("hotel")
    await world.settled(60)
    assert world.commands() == []
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("coordinator.store_unavailable") == 1
    world.store.refuse = lambda call: False
    await world.settled(10)
    assert world.asked(flow.id) == [("flight", "compensate")]
    assert [record.getMessage() for record in caplog.records].count("coordinator.store_back") == 1
