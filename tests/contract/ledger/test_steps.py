"""What every store promises about steps."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus.ledger.port import Ask, Place
from maypole.bus.ledger.step import State, Step, Turn
from maypole.bus.ledger.transitions import (
    UNWRITTEN,
    Abandon,
    AttemptFailed,
    Compensate,
    Compensated,
    Defer,
    Fail,
    Fence,
    Finish,
    Retry,
    TellLater,
    Told,
    Verdict,
)
from maypole.bus.ports import TopicPartition
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import Effect
from tests.contract.ledger.stores import AT, LEASE_MS, PLACE, SKEW_MS, World, ask, step


async def test_a_step_that_begins_and_finishes_keeps_its_outcome_and_its_undo(world: World) -> None:
    async with world.open("one") as ledger:
        begun = await ask(ledger, "s", world.begin())
        assert begun.verdict is Verdict.RUN and begun.row is not None and begun.row.step.owner == ledger.instance
        done = await ask(ledger, "s", Finish(1), b"outputs", b"undo")
        assert done.verdict is Verdict.RECORDED
        again = await ask(ledger, "s", world.begin())
    assert again.verdict is Verdict.REPUBLISH and again.row is not None
    assert (again.row.outcome, again.row.undo, again.row.place) == (b"outputs", b"undo", PLACE)
    assert again.row.step.effect is Effect.APPLIED


async def test_what_was_recorded_is_there_after_a_new_start(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE, bytes([number])) for number in range(200)])
    async with world.open("two") as ledger:
        found = await ledger.rows([step(number) for number in range(300)])
    assert {row.outcome for row in found.values()} == {bytes([number]) for number in range(200)}
    assert found[step(7)].outcome == b"\x07" and found[step(7)].step.state is State.DONE


async def test_a_step_that_nobody_began_has_no_row(world: World) -> None:
    async with world.open("one") as ledger:
        assert await ledger.rows([step("s")]) == {}
        assert await ledger.rows([]) == {}


async def test_a_batch_may_hold_the_same_step_twice(world: World) -> None:
    async with world.open("one") as ledger:
        answers = await ledger.ask(
            [
                Ask(step("s"), Finish(UNWRITTEN), PLACE, b"first"),
                Ask(step("s"), Finish(UNWRITTEN), PLACE, b"second"),
                Ask(step("t"), world.begin(), PLACE),
                Ask(step("t"), Finish(1), PLACE, b"both at once"),
            ]
        )
        found = await ledger.rows([step("s"), step("t")])
    assert [answer.verdict for answer in answers] == [Verdict.RECORDED, Verdict.REPUBLISH, Verdict.RUN, Verdict.RECORDED]
    assert answers[1].row is not None and answers[1].row.outcome == b"first"
    assert found[step("s")].outcome == b"first" and found[step("t")].outcome == b"both at once"


async def test_calls_that_wait_at_the_same_time_all_get_their_own_answers(world: World) -> None:
    async with world.open("one") as ledger:
        answers = await asyncio.gather(*(ask(ledger, number, Finish(UNWRITTEN), bytes([number])) for number in range(100)))
        again = await asyncio.gather(*(ask(ledger, number, world.begin()) for number in range(100)))
    assert {answer.verdict for answer in answers} == {Verdict.RECORDED}
    assert [answer.row and answer.row.outcome for answer in again] == [bytes([number]) for number in range(100)]


async def test_of_two_attempts_at_one_step_at_the_same_time_one_is_recorded_and_the_other_gets_its_outcome(world: World) -> None:
    async with world.open("one") as ledger:
        one, two = await asyncio.gather(ask(ledger, "s", Finish(UNWRITTEN), b"one"), ask(ledger, "s", Finish(UNWRITTEN), b"two"))
    assert {one.verdict, two.verdict} == {Verdict.RECORDED, Verdict.REPUBLISH}
    assert one.row is not None and two.row is not None and one.row.outcome == two.row.outcome


@pytest.mark.parametrize("round_", range(5))
async def test_of_two_owners_that_race_for_a_step_one_runs_it(shared_world: World, round_: int) -> None:
    async with shared_world.open("one") as one, shared_world.open("two") as two:
        steps = [f"{round_} {number}" for number in range(50)]
        begun = await asyncio.gather(
            one.ask([Ask(step(each), shared_world.begin(), PLACE) for each in steps]),
            two.ask([Ask(step(each), shared_world.begin(), PLACE) for each in reversed(steps)]),
        )
        finished = await asyncio.gather(
            one.ask([Ask(step(each), Finish(UNWRITTEN), PLACE, b"one") for each in range(50)]),
            two.ask([Ask(step(each), Finish(UNWRITTEN), PLACE, b"two") for each in reversed(range(50))]),
        )
    for mine, others in zip(begun[0], reversed(begun[1]), strict=True):
        assert {mine.verdict, others.verdict} == {Verdict.RUN, Verdict.WAIT}
    for mine, others in zip(finished[0], reversed(finished[1]), strict=True):
        assert {mine.verdict, others.verdict} == {Verdict.RECORDED, Verdict.REPUBLISH}
        assert mine.row is not None and others.row is not None and mine.row.outcome == others.row.outcome


async def test_the_steps_of_a_dead_owner_are_taken_over_at_once_and_its_zombie_is_refused(world: World) -> None:
    async with world.open("one") as ledger:
        await ask(ledger, "s", world.begin())
    async with world.open("two") as ledger:
        taken = await ask(ledger, "s", world.begin())
        assert taken.verdict is Verdict.RUN and taken.row is not None
        assert (taken.row.step.attempt, taken.row.step.owner) == (2, ledger.instance)
        assert (await ask(ledger, "s", Finish(1), b"of the zombie")).verdict is Verdict.LOST_RACE
        assert (await ask(ledger, "s", Finish(2), b"of the second")).verdict is Verdict.RECORDED


async def test_the_lease_of_a_living_owner_is_respected_to_its_end_plus_the_skew(shared_world: World) -> None:
    async with shared_world.open("one") as one, shared_world.open("two") as two:
        began_ms = shared_world.clock.now_ms
        await ask(one, "s", shared_world.begin())
        waiting = await ask(two, "s", shared_world.begin())
        assert (waiting.verdict, waiting.wait_until_ms) == (Verdict.WAIT, began_ms + LEASE_MS + SKEW_MS)
        shared_world.clock.now_ms = began_ms + LEASE_MS + SKEW_MS - 1
        assert (await ask(two, "s", shared_world.begin())).verdict is Verdict.WAIT
        shared_world.clock.now_ms += 1
        assert (await ask(two, "s", shared_world.begin())).verdict is Verdict.RUN
        assert (await ask(one, "s", Finish(1))).verdict is Verdict.LOST_RACE


async def test_failed_attempts_are_counted_across_owners(world: World) -> None:
    async with world.open("one") as ledger:
        await ask(ledger, "s", AttemptFailed(UNWRITTEN, Effect.NONE), b"when to try again")
    async with world.open("two") as ledger:
        again = await ask(ledger, "s", world.begin())
        assert again.row is not None and again.row.step.attempt == 2 and again.row.outcome == b"when to try again"
        failed = await ask(ledger, "s", Fail(2, Effect.UNKNOWN), b"why")
        assert failed.verdict is Verdict.RECORDED
        repeated = await ask(ledger, "s", world.begin())
    assert repeated.verdict is Verdict.REJOURNAL_FAILURE and repeated.row is not None
    assert repeated.row.outcome == b"why" and repeated.row.step.effect is Effect.UNKNOWN


async def test_a_tombstone_keeps_a_step_from_ever_beginning(world: World) -> None:
    async with world.open("one") as ledger:
        assert (await ask(ledger, "s", Fence())).verdict is Verdict.ANSWER_FENCED
    async with world.open("two") as ledger:
        assert (await ask(ledger, "s", world.begin())).verdict is Verdict.ANSWER_FENCED
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.ANSWER_FENCED


async def test_a_done_step_is_undone_and_answers_so_from_then_on(world: World) -> None:
    async with world.open("one") as ledger:
        await ask(ledger, "s", world.begin())
        await ask(ledger, "s", Finish(1), b"outcome", b"undo")
        now = world.clock.now_ms
        undo = await ask(ledger, "s", Compensate(now, SKEW_MS))
        assert undo.verdict is Verdict.UNDO and undo.row is not None and undo.row.undo == b"undo"
        assert (await ask(ledger, "s", Compensated())).verdict is Verdict.ANSWER_COMPENSATED
        assert (await ask(ledger, "s", Compensate(now, SKEW_MS))).verdict is Verdict.ANSWER_COMPENSATED
        assert (await ask(ledger, "s", world.begin())).verdict is Verdict.ANSWER_COMPENSATED


async def test_an_abandoned_step_says_so_again(world: World) -> None:
    async with world.open("one") as ledger:
        await ask(ledger, "s", world.begin(retries=False))
        assert (await ask(ledger, "s", Abandon(1))).verdict is Verdict.REJOURNAL_ABANDONED
        assert (await ask(ledger, "s", world.begin(retries=False))).verdict is Verdict.REJOURNAL_ABANDONED


async def test_a_step_that_waits_keeps_where_and_begins_its_first_attempt_when_its_turn_comes(world: World) -> None:
    async with world.open("one") as ledger:
        for place in (b"here", b"there"):
            assert (await ask(ledger, "s", Defer(), place)).verdict is Verdict.RECORDED
    async with world.open("two") as ledger:
        (waiting,) = await ledger.unsettled([AT])
        kept = (await ledger.rows([waiting.step_id]))[waiting.step_id]
        assert (kept.outcome, kept.step) == (b"there", Step(State.STARTED, turn=Turn.AWAITED))
        begun = await ask(ledger, "s", world.begin())
        assert begun.row is not None and (begun.verdict, begun.row.step.attempt) == (Verdict.RUN, 1)
        assert (await ask(ledger, "s", Finish(1), b"outputs")).verdict is Verdict.RECORDED
        assert (await ask(ledger, "s", Defer(), b"late")).verdict is Verdict.REPUBLISH


async def test_a_failed_step_that_gets_another_chance_is_under_way_again(world: World) -> None:
    async with world.open("one") as ledger:
        await ask(ledger, "s", Fail(UNWRITTEN, Effect.NONE), b"failed", b"input")
        granted = await ask(ledger, "s", Retry(2), b"place")
        assert granted.verdict is Verdict.RECORDED
    async with world.open("two") as ledger:
        (waiting,) = await ledger.unsettled([AT])
        kept = (await ledger.rows([waiting.step_id]))[waiting.step_id]
        assert (kept.step, kept.outcome, kept.undo) == (Step(State.STARTED, 1, generation=2, turn=Turn.AWAITED), b"place", b"input")
        begun = await ask(ledger, "s", world.begin())
        assert begun.row is not None and (begun.verdict, begun.row.step.attempt) == (Verdict.RUN, 2)
        await ask(ledger, "s", Fail(2, Effect.NONE), b"failed again")
        again = await ask(ledger, "s", Retry(2), b"place")
        assert again.row is not None and (again.verdict, again.row.outcome) == (Verdict.REJOURNAL_FAILURE, b"failed again")


async def test_a_new_owner_learns_what_is_unsettled_in_its_partitions_only(world: World) -> None:
    elsewhere = Place(FlowId("another flow"), TopicPartition(AT.topic, 1))
    async with world.open("one") as ledger:
        await ledger.ask(
            [
                Ask(step("waits"), AttemptFailed(UNWRITTEN, Effect.NONE), PLACE, b"large"),
                Ask(step("fenced"), Fence(), PLACE),
                Ask(step("runs"), world.begin(), PLACE),
                Ask(step("done"), Finish(UNWRITTEN), PLACE),
                Ask(step("failed"), Fail(UNWRITTEN, Effect.NONE), PLACE),
                Ask(step("elsewhere"), Fence(), elsewhere),
            ]
        )
    async with world.open("two") as ledger:
        found = await ledger.unsettled([AT])
        others = await ledger.unsettled([elsewhere.at])
    assert {row.step_id for row in found} == {step("waits"), step("fenced"), step("runs")}
    assert {row.outcome for row in found} == {b""}
    assert [row.place for row in others] == [elsewhere]


async def test_a_new_owner_learns_what_has_ended_and_was_not_told_in_its_turn(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(name), Defer(), PLACE, b"place") for name in ("told", "untold", "fenced")])
        await ledger.ask([Ask(step(name), world.begin(), PLACE) for name in ("told", "untold")])
        await ledger.ask([Ask(step(name), Finish(1), PLACE, b"outputs") for name in ("told", "untold")])
        await ledger.ask([Ask(step("later"), Finish(UNWRITTEN), PLACE), Ask(step("later"), TellLater(), PLACE, b"outputs and place")])
        assert (await ask(ledger, "told", Told())).verdict is Verdict.RECORDED
        await ask(ledger, "fenced", Fence())
    async with world.open("two") as ledger:
        found = await ledger.unsettled([AT])
        kept = await ledger.rows([step("told"), step("later")])
        assert (await ask(ledger, "told", TellLater(), b"late")).verdict is Verdict.REPUBLISH
    assert sorted(row.step_id for row in found) == sorted([step("untold"), step("later"), step("fenced")])
    assert (kept[step("told")].step.turn, kept[step("told")].outcome) == (Turn.OVER, b"outputs")
    assert (kept[step("later")].step, kept[step("later")].outcome) == (Step(State.DONE, 1, turn=Turn.AWAITED), b"outputs and place")


async def test_what_is_old_is_forgotten_in_bites_and_what_is_young_stays(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(30)])
        await ask(ledger, "waits", AttemptFailed(UNWRITTEN, Effect.NONE))
        await ledger.memoise(step("old"), "name", b"value")
        world.clock.now_ms += 1000
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(30, 40)])
        await ask(ledger, 0, Compensated())
        bites: list[int] = []
        while not bites or bites[-1] == 20:
            bites.append(await ledger.forget(world.clock.now_ms, 20))
        left = await ledger.rows([*map(step, range(40)), step("waits")])
        memo = await ledger.memo(step("old"), "name")
        assert (await ask(ledger, 1, Finish(UNWRITTEN))).verdict is Verdict.RECORDED, "it is as if it had never been"
    assert len(bites) >= 2 and set(left) == {step(0), *map(step, range(30, 40))} and memo is None


async def test_foreign_flow_ids_and_large_outcomes_come_back_as_they_were(world: World) -> None:
    place = Place(FlowId("Ünïcode/∞ 'quoted'\t" * 20), TopicPartition("a.topic-of_ours", 2_000_000_000))
    outcome = bytes(range(256)) * 8000
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step("s"), Finish(UNWRITTEN), place, outcome, b"\0" * 100)])
    async with world.open("two") as ledger:
        found = (await ledger.rows([step("s")]))[step("s")]
    assert (found.place, found.outcome, found.undo) == (place, outcome, b"\0" * 100)


async def test_more_rows_than_one_statement_holds(world: World) -> None:
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(1300)])
        assert len(await ledger.rows(list(map(step, range(1500))))) == 1300
