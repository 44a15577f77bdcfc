"""What every store promises about `once` and about joins."""

from __future__ import annotations

import asyncio
import random

from maypole.bus.ledger.port import JoinState, Part, Place
from maypole.bus.ports import TopicPartition
from maypole.schemas.identifiers import EventId, FlowId
from tests.contract.ledger.stores import AT, PLACE, World, step


def part(type_: str, event: str, body: bytes = b"", of: int = 3) -> Part:
    return Part("a join", PLACE, type_, EventId(event), body, of)


async def test_the_first_memo_wins_and_is_there_after_a_new_start(world: World) -> None:
    async with world.open("one") as ledger:
        assert await ledger.memo(step("s"), "charge") is None
        assert await ledger.memoise(step("s"), "charge", b"first") == b"first"
        assert await ledger.memoise(step("s"), "charge", b"second") == b"first"
        assert await ledger.memoise(step("s"), "refund", b"other") == b"other"
    async with world.open("two") as ledger:
        assert await ledger.memo(step("s"), "charge") == b"first"
        assert await ledger.memo(step("t"), "charge") is None


async def test_old_memos_are_forgotten_and_young_ones_stay(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.memoise(step("s"), "charge", b"old")
        world.clock.now_ms += 1
        await ledger.memoise(step("s"), "refund", b"young")
        assert await ledger.forget(world.clock.now_ms, 10) == 1
        assert await ledger.memo(step("s"), "charge") is None
        assert await ledger.memo(step("s"), "refund") == b"young"


async def test_the_longest_names_and_ids_are_kept(world: World) -> None:
    longest = "".join(map(chr, random.Random(5).choices(range(0x4E00, 0x9FFF), k=341)))  # 1,023 bytes that no index can compress
    place = Place(FlowId(longest), AT)
    async with world.open("one") as ledger:
        assert await ledger.memoise(step("s"), longest, b"first") == b"first"
        [kept] = await ledger.join([Part("a join", place, "score.ready", EventId(longest), b"", 2)])
        assert kept.place == place and kept.parts["score.ready"].event_id == longest


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


async def test_a_join_fires_with_its_last_part_and_remembers_which_that_was(world: World) -> None:
    async with world.open("one") as ledger:
        [first] = await ledger.join([part("score.ready", "e1", of=2)])
        assert first.state is JoinState.OPEN and first.completed_by is None
        [last] = await ledger.join([part("income.verified", "e2", of=2)])
        assert last.state is JoinState.FIRED and last.completed_by == "e2"
    async with world.open("two") as ledger:
        first_again, last_again, another = await ledger.join(
            [part("score.ready", "e1", of=2), part("income.verified", "e2", of=2), part("income.verified", "e3", of=2)]
        )
        assert first_again == last_again == another == last
        assert await ledger.open_joins([AT]) == []
        assert await ledger.expire_join("a join", PLACE) == last, "what has fired stays so"


async def test_all_parts_of_a_join_may_come_in_one_call(world: World) -> None:
    async with world.open("one") as ledger:
        first, last = await ledger.join([part("score.ready", "e1", of=2), part("income.verified", "e2", of=2)])
    assert first.completed_by is None and last.completed_by == "e2"


async def test_a_join_that_expired_takes_no_part_any_more(world: World) -> None:
    async with world.open("one") as ledger:
        [held] = await ledger.join([part("score.ready", "e1", of=2)])
        expired = await ledger.expire_join("a join", PLACE)
        assert expired == held._replace(state=JoinState.EXPIRED)
        assert await ledger.expire_join("a join", PLACE) == expired
        [late] = await ledger.join([part("income.verified", "e2", of=2)])
    async with world.open("two") as ledger:
        [again] = await ledger.join([part("score.ready", "e1", of=2)])
        assert late == again == expired
        assert await ledger.open_joins([AT]) == []


async def test_a_join_may_expire_before_any_part_of_it_has_come(world: World) -> None:
    async with world.open("one") as ledger:
        expired = await ledger.expire_join("a join", PLACE)
        assert expired.state is JoinState.EXPIRED and expired.parts == {} and expired.place == PLACE
        [late] = await ledger.join([part("score.ready", "e1")])
        assert late == expired


async def test_owners_that_race_with_the_last_parts_fire_a_join_once(shared_world: World) -> None:
    async with shared_world.open("one") as one, shared_world.open("two") as two:
        for number in range(20):
            parts = [Part(f"join {number}", PLACE, type_, EventId(type_), b"", 2) for type_ in ("score.ready", "income.verified")]
            found = await asyncio.gather(one.join(parts[:1]), two.join(parts[1:]))
            fired = [join.completed_by for [join] in found if join.completed_by is not None]
            [join] = (await one.joins([f"join {number}"])).values()
            assert join.state is JoinState.FIRED and fired == [join.completed_by]


async def test_owners_that_race_to_end_a_join_agree_how_it_ended(shared_world: World) -> None:
    async with shared_world.open("one") as one, shared_world.open("two") as two:
        for number in range(20):
            first, last = (Part(f"join {number}", PLACE, type_, EventId(type_), b"", 2) for type_ in ("score.ready", "income.verified"))
            await one.join([first])
            [fired], expired = await asyncio.gather(one.join([last]), two.expire_join(f"join {number}", PLACE))
            assert fired == expired and expired.state is not JoinState.OPEN


async def test_old_joins_are_forgotten_with_their_parts(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.join([part("score.ready", "e1")])
        world.clock.now_ms += 1
        await ledger.join([Part("younger", Place(FlowId("f"), AT), "score.ready", EventId("e2"), b"", 2)])
        assert await ledger.forget(world.clock.now_ms, 10) == 1
        assert set(await ledger.joins(["a join", "younger"])) == {"younger"}
        [anew] = await ledger.join([part("income.verified", "e3")])
        assert set(anew.parts) == {"income.verified"}
