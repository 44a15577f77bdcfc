"""Who waits behind whom, told by rows alone: what a process knows after it took partitions over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from maypole.bus.ledger.outcome import decode_records, encode_records
from maypole.bus.ledger.port import Place, Row
from maypole.bus.ledger.step import State, Step, Turn
from maypole.bus.moves import Move, Moved, Origin, is_place, moved_of, opened
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.waiting import LOOK_AGAIN_MS, Waiting
from maypole.bus.work import Ownership, Work
from maypole.schemas.envelope import read_envelope
from maypole.schemas.identifiers import FlowId, StepId

AT = TopicPartition("a.b", 1)
FLOW = FlowId("flow")
NOW = 1_000_000
DUE = NOW + 30_000


class Rows:
    """The ledger's rows of one flow."""

    def __init__(self) -> None:
        self.rows: dict[StepId, Row] = {}
        self.waiting = Waiting("agent", (30.0, 600.0), self.of, lambda: NOW)

    async def of(self, step_ids: Collection[StepId]) -> Mapping[StepId, Row]:
        return {each: self.rows[each] for each in step_ids if each in self.rows}

    def wait(self, offset: int, *, due_ms: int = DUE, attempt: int = 0, behind: tuple[StepId, ...] = ()) -> Row:
        moved = Moved("agent.retry.30s", Move(Origin(*AT, offset), 5, attempt + 1, due_ms, behind))
        step = StepId(f"s{offset}")
        row = self.rows[step] = Row(step, Place(FLOW, AT), Step(State.STARTED, attempt), 0, moved.recorded(), b"")
        return row

    def end(self, offset: int) -> None:
        step = StepId(f"s{offset}")
        self.rows[step] = self.rows[step]._replace(step=Step(State.DONE, 1), outcome=b"")

    def end_untold(self, offset: int) -> Row:
        """Where it waited stays with what it led to."""
        step = StepId(f"s{offset}")
        outcome = encode_records([Record("a.c", b"flow", b"output", ()), *decode_records(self.rows[step].outcome)])
        row = self.rows[step] = self.rows[step]._replace(step=Step(State.DONE, 1, turn=Turn.AWAITED), outcome=outcome)
        return row

    def tell(self, offset: int) -> None:
        step = StepId(f"s{offset}")
        self.rows[step] = self.rows[step]._replace(step=replace(self.rows[step].step, turn=Turn.OVER))


def work(offset: int, move: Move | None = None) -> Work:
    made = Work(Delivery(*AT, offset, 5, b"flow", b"", ()), Ownership(AT), b"flow", offset, move)
    made.step = StepId(f"s{offset}")
    made.envelope = read_envelope([("ce_id", b"e%d" % offset), ("ce_type", b"a.b"), ("ce_correlationid", FLOW.encode())])
    return made


async def test_after_a_takeover_the_next_event_waits_behind_all_that_wait_and_those_after_it_behind_it() -> None:
    ledger = Rows()
    ledger.waiting.learn([ledger.wait(3, attempt=1), ledger.wait(4, due_ms=DUE + 1, behind=(StepId("s3"),))])
    five, six = work(5), work(6)
    moved = await ledger.waiting.until_turn(five)
    assert moved is not None
    assert (moved.topic, moved.move.due_ms, set(moved.move.behind)) == ("agent.retry.30s", DUE + 1, {"s3", "s4"})
    ledger.wait(5, behind=moved.move.behind)
    ledger.waiting.waits(five, moved)
    then = await ledger.waiting.until_turn(six)
    assert then is not None and then.move.behind == ("s5",)


async def test_what_lay_before_a_step_that_waits_does_not_wait_behind_it() -> None:
    ledger = Rows()
    ledger.waiting.learn([ledger.wait(3, attempt=1)])
    assert await ledger.waiting.until_turn(work(2)) is None
    assert await ledger.waiting.until_turn(work(4)) is not None


async def test_a_step_waits_on_until_those_before_it_are_at_their_end() -> None:
    ledger = Rows()
    ledger.wait(3, attempt=1, due_ms=NOW - 1)
    behind = Move(Origin(*AT, 4), 5, 1, NOW, (StepId("s3"),))
    moved = await ledger.waiting.until_turn(work(4, behind))
    assert moved is not None and moved.move.due_ms == NOW + LOOK_AGAIN_MS, "not at once, it may be in work elsewhere"
    ledger.end(3)
    assert await ledger.waiting.until_turn(work(4, behind)) is None


async def test_a_step_that_has_ended_elsewhere_is_waited_for_until_it_was_told() -> None:
    ledger = Rows()
    ledger.wait(3, due_ms=NOW - 1)
    ledger.waiting.learn([ledger.end_untold(3)])
    moved = await ledger.waiting.until_turn(work(4))
    assert moved is not None and (moved.topic, moved.move.due_ms, moved.move.behind) == ("agent.retry.30s", NOW + LOOK_AGAIN_MS, ("s3",))
    ledger.tell(3)
    assert await ledger.waiting.until_turn(work(4)) is None


async def test_an_original_that_a_crash_brought_back_is_told_behind_those_that_its_row_names() -> None:
    """Memory may hold only the end of the chain, which is not before it."""
    ledger = Rows()
    ledger.waiting.learn([ledger.wait(5, behind=(StepId("s4"),))])
    ledger.wait(3)
    ledger.wait(4, behind=(StepId("s3"),))
    four = work(4)
    four.row = ledger.end_untold(4)
    moved = await ledger.waiting.until_told(four)
    assert moved is not None and moved.move.behind == ("s3",)
    ledger.end(3)
    assert await ledger.waiting.until_told(four) is None
    ledger.wait(3)
    ledger.tell(4)
    four.row = ledger.rows[four.step]
    assert await ledger.waiting.until_told(four) is None, "it was told before, so it may be told again"


async def test_an_attempt_that_fails_waits_behind_what_has_ended_here_and_may_not_leave() -> None:
    ledger = Rows()
    ledger.waiting.learn([ledger.wait(3, due_ms=NOW - 1)])
    three, four = work(3, Move(Origin(*AT, 3), 5, 1, NOW - 1)), work(4)
    ledger.waiting.ends(three)
    assert await ledger.waiting.until_turn(four) is None, "it follows at once, as in a lane"
    assert ledger.waiting.until_retry(four, 30).move.behind == ("s3",)
    ledger.waiting.left(three.step)
    assert ledger.waiting.until_retry(four, 30).move.behind == ()


async def test_what_had_ended_here_is_waited_for_when_its_partition_was_taken_away_and_came_back() -> None:
    ledger = Rows()
    ledger.waiting.learn([ledger.wait(3, due_ms=NOW - 1)])
    ledger.waiting.ends(work(3, Move(Origin(*AT, 3), 5, 1, NOW - 1)))
    ledger.waiting.learn([ledger.end_untold(3)])
    assert await ledger.waiting.until_turn(work(4)) is not None


async def test_what_is_not_due_is_sent_on_to_the_longest_delay_that_is_not_longer() -> None:
    ledger = Rows()
    for left_ms, topic in ((10, "30s"), (599_999, "30s"), (600_000, "10m"), (9_000_000, "10m")):
        move = Move(Origin(*AT, 3), 5, 2, NOW + left_ms)
        assert await ledger.waiting.until_turn(work(3, move)) == Moved(f"agent.retry.{topic}", move)


def test_what_a_row_keeps_is_what_the_record_says() -> None:
    moved = Moved("agent.retry.30s", Move(Origin("a.b", 1, 7), 5, 3, DUE, (StepId("s1"), StepId("s2")), 2))
    original = Delivery("a.b", 1, 7, 5, b"k", b"v", (("ce_id", b"e"), ("own", None)))
    record = moved.record(original)
    assert opened("agent", Delivery(record.topic, 0, 99, 50, record.key, record.value, record.headers)) == (original, moved.move)
    row = Row(StepId("s"), Place(FLOW, AT), Step(State.STARTED, 2), 0, moved.recorded(), b"")
    assert moved_of(row) == moved
    assert all(map(is_place, decode_records(row.outcome))), "and nothing that would be published were the step fenced"
    assert moved_of(row._replace(step=Step(State.DONE, 2))) is None
    assert moved_of(row._replace(step=Step(State.DONE, 2, turn=Turn.AWAITED))) == moved
