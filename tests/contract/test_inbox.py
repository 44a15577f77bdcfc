"""The loop's side of a consumer: what was fetched and not yet taken."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus.kafka.inbox import Inbox
from maypole.bus.ports import Delivery, TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def batch(*positions: tuple[TopicPartition, int]) -> list[Delivery]:
    return [Delivery(at.topic, at.partition, offset, 0, None, None, ()) for at, offset in positions]


def positions(deliveries: list[Delivery]) -> list[tuple[TopicPartition, int]]:
    return [(TopicPartition(d.topic, d.partition), d.offset) for d in deliveries]


def inbox_with(*batches: list[Delivery], batch_max: int = 10) -> tuple[Inbox, list[int]]:
    taken: list[int] = []
    inbox = Inbox(batch_max, lambda: taken.append(1))
    for each in batches:
        inbox.offer(each)
    return inbox, taken


async def test_batches_are_taken_as_they_came() -> None:
    inbox, taken = inbox_with(batch((A, 0), (B, 0)), batch((A, 1)))
    assert positions(await inbox.take()) == [(A, 0), (B, 0)]
    assert positions(await inbox.take()) == [(A, 1)]
    assert len(taken) == 2


async def test_records_of_dropped_partitions_are_never_taken() -> None:
    inbox, taken = inbox_with(batch((A, 0), (B, 0)), batch((A, 1)), batch((B, 1)))
    inbox.drop([A])
    assert positions(await inbox.take()) == [(B, 0)]
    assert positions(await inbox.take()) == [(B, 1)]
    # The empty one made room too.
    assert len(taken) == 3


async def test_records_of_paused_partitions_are_kept_and_come_first_when_resumed() -> None:
    inbox, _ = inbox_with(batch((A, 0), (B, 0)), batch((A, 1), (A, 2), (B, 1)), batch_max=2)
    inbox.pause([A])
    assert positions(await inbox.take()) == [(B, 0)]
    assert positions(await inbox.take()) == [(B, 1)]
    inbox.offer(batch((B, 2)))
    inbox.resume([A])
    assert positions(await inbox.take()) == [(A, 0), (A, 1)]
    assert positions(await inbox.take()) == [(A, 2)]
    assert positions(await inbox.take()) == [(B, 2)]


async def test_a_partition_paused_again_before_its_records_were_taken_stays_in_order() -> None:
    inbox, _ = inbox_with(batch((A, 0), (A, 1)), batch((A, 2)), batch_max=1)
    inbox.pause([A])
    assert inbox.ready() == []
    inbox.resume([A])
    assert positions(await inbox.take()) == [(A, 0)]
    inbox.pause([A])
    assert inbox.ready() == []
    inbox.resume([A])
    assert [positions(await inbox.take()) for _ in range(2)] == [[(A, 1)], [(A, 2)]]


async def test_dropping_forgets_what_was_kept_and_that_it_was_paused() -> None:
    inbox, _ = inbox_with(batch((A, 0), (B, 0)))
    inbox.pause([A])
    assert positions(await inbox.take()) == [(B, 0)]
    inbox.drop([A])
    inbox.offer(batch((A, 5)))
    assert positions(await inbox.take()) == [(A, 5)]


async def test_a_cancelled_take_leaves_everything_where_it_is() -> None:
    inbox, _ = inbox_with()
    taking = asyncio.ensure_future(inbox.take())
    await asyncio.sleep(0)
    inbox.offer(batch((A, 0)))
    # Woken and cancelled in the same turn of the loop.
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert positions(await inbox.take()) == [(A, 0)]


async def test_a_failure_is_raised_after_what_came_before_it() -> None:
    inbox, _ = inbox_with(batch((A, 0)))
    inbox.fail(RuntimeError("first"))
    inbox.fail(RuntimeError("second"))
    assert positions(await inbox.take()) == [(A, 0)]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="first"):
            await inbox.take()
