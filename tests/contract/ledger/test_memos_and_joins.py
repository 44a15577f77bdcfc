"""What every store promises about `once` and about joins."""

from __future__ import annotations

import asyncio

from maypole.bus.ledger.port import JoinState, Part, Place
from maypole.bus.ports import TopicPartition
from maypole.schemas.identifiers import EventId, FlowId
from tests.contract.ledger.stores import AT, PLACE, World, step


def part(type_: str, event: str, body: bytes = b"") -> Part:
    return Part("a join", PLACE, type_, EventId(event), body)


async def test_the_first_memo_wins_and_is_there_after_a_new_start(world: World) -> None:
    async with world.open("one") as ledger:
        assert await ledger.memo(step("s"), "charge") is None
        assert await ledger.memoise(step("s"), "charge", b"first") == b"first"
        assert await ledger.memoise(step("s"), "charge", b"second") == b"first"
        assert await ledger.memoise(step("s"), "refund", b"other") == b"other"
    async with world.open("two") as ledger:
        assert await ledger.memo(step("s"), "charge") == b"first"
        assert await ledger.memo(step("t"), "charge") is None


async def test_parts_are_kept_and_the_first_of_each_type_wins(world: World) -> None:
    async with world.open("one") as ledger:
        [first] = await ledger.join([part("score.ready", "e1", b"1")])
        assert set(first.parts) == {"score.ready"} and first.since_ms == world.clock.now_ms
        world.clock.now_ms += 5
        both, repeated, another = await ledger.join(
            [part("income.verified", "e2", b"2"), part("score.ready", "e1", b"1"), part("score.ready", "e9", b"9")]
        )
        assert set(both.parts) == {"score.ready", "income.verified"}
        assert repeated == both == another
        assert another.parts["score.ready"].event_id == "e1"
    async with world.open("two") as ledger:
        found = (await ledger.joins(["a join", "no join"]))["a join"]
        assert {type_: each.body for type_, each in found.parts.items()} == {"score.ready": b"1", "income.verified": b"2"}
        assert await ledger.open_joins([AT]) == [found]
        assert await ledger.open_joins([TopicPartition(AT.topic, 1)]) == []


async def test_a_join_closes_exactly_once_and_takes_no_part_afterwards(world: World) -> None:
    async with world.open("one") as ledger:
        assert await ledger.close_join("a join", JoinState.FIRED) is False, "nobody knows it yet"
        await ledger.join([part("score.ready", "e1")])
        closed = await asyncio.gather(
            ledger.close_join("a join", JoinState.FIRED),
            ledger.close_join("a join", JoinState.EXPIRED),
            ledger.close_join("a join", JoinState.FIRED),
        )
        assert sorted(closed) == [False, False, True]
        [late] = await ledger.join([part("income.verified", "e2")])
    async with world.open("two") as ledger:
        [again] = await ledger.join([part("score.ready", "e1")])
        assert late.state is again.state is not JoinState.OPEN
        assert set(again.parts) == {"score.ready"}
        assert await ledger.open_joins([AT]) == []


async def test_owners_that_race_to_close_a_join_do_it_once(shared_world: World) -> None:
    async with shared_world.open("one") as one, shared_world.open("two") as two:
        await asyncio.gather(one.join([part("score.ready", "e1")]), two.join([part("income.verified", "e2")]))
        assert set((await one.joins(["a join"]))["a join"].parts) == {"score.ready", "income.verified"}
        closed = await asyncio.gather(one.close_join("a join", JoinState.FIRED), two.close_join("a join", JoinState.FIRED))
    assert sorted(closed) == [False, True]


async def test_old_joins_are_forgotten_with_their_parts(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.join([part("score.ready", "e1")])
        world.clock.now_ms += 1
        await ledger.join([Part("younger", Place(FlowId("f"), AT), "score.ready", EventId("e2"), b"")])
        assert await ledger.forget(world.clock.now_ms, 10) == 1
        assert set(await ledger.joins(["a join", "younger"])) == {"younger"}
        [anew] = await ledger.join([part("income.verified", "e3")])
        assert set(anew.parts) == {"income.verified"}
