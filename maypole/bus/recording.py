"""The step ledger's part in a delivery: which handlers are still called, and what stands once they were.

A step that only makes events begins in memory and writes its row once, at its end. One that acts on the outside claims its
row first and tells the journal, so that whoever comes after it knows that something may have happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from maypole.bus.backoff import Backoff
from maypole.bus.hook import UNOBSERVED, Outcome
from maypole.bus.inputs import recorded_input
from maypole.bus.journal import JournalRecords
from maypole.bus.lease import Lease
from maypole.bus.ledger.outcome import decode_records, encode_records
from maypole.bus.ledger.port import Answer, Ask, Ledger, Place, Row
from maypole.bus.ledger.step import State, Turn
from maypole.bus.ledger.transitions import UNWRITTEN, Abandon, AttemptFailed, Begin, Defer, Fail, Finish, TellLater, Told, Verdict
from maypole.bus.membership import PLACELESS
from maypole.bus.memos import Memos
from maypole.bus.moves import Move, Moved, excused_in, excusing, is_place, moved_of
from maypole.bus.patience import Patience
from maypole.bus.ports import Record, Sink, TopicPartition
from maypole.bus.subscription import Subscription, by_topic
from maypole.bus.waiting import Waiting
from maypole.bus.work import Work
from maypole.schemas.commands import Compensate
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, command_id_of
from maypole.schemas.journal import Effect, StepAbandoned, StepCompensated, StepFenced, StepStarted
from maypole.schemas.topics import JOURNAL, dead_letter_topic

log = logging.getLogger("maypole.bus.recording")

CLOCK_SKEW_MS: Final = 2_000
"""How far two machines' clocks may be apart. A lease counts as passed this much later."""
LEASE_MARGIN_MS: Final = 5_000
"""What a lease is longer than its handler may take: to be cancelled takes a moment, and so does writing that it was."""

_AGAIN: Final[Mapping[Verdict, Outcome]] = {Verdict.ANSWER_FENCED: "fenced", Verdict.ANSWER_COMPENSATED: "compensated"}
_COMPENSATE: Final = Compensate.event_type.rpartition(".")[2]
_TOLD_IN_TURN: Final = (State.DONE, State.FAILED)
"""What became of all others is the answer to a command, and these come in any order."""
_LEASE_LOOK_SECONDS: Final = 1.0
LOOK_HOLDS_SECONDS: Final = 1.0
"""Longer than a full window takes where handlers are fast: only who waits for slow ones looks twice."""
BITE: Final = 500
BETWEEN_BITES_SECONDS: Final = 0.05
_FORGET_EVERY_SECONDS: Final = 300.0


class Recording:
    """For one agent. Waits as long as the ledger is away; says so once."""

    def __init__(
        self,
        agent: str,
        subscriptions: Sequence[Subscription],
        ledger: Ledger,
        sink: Sink,
        now: Callable[[], float],
        backoff: Backoff,
        delays: Sequence[float],
        retention_ms: int | None,
        wait_allowed: Callable[[], Awaitable[None]],
    ) -> None:
        """`now` gives seconds since the epoch; `delays`, in seconds, are those of the agent's retry topics. `wait_allowed` is
        asked before a step acts on the outside.

        Rows are forgotten `retention_ms` after they last changed, None: never.
        """
        self._retention_ms = retention_ms
        self._agent = agent
        self._subscriptions: Mapping[str, Subscription] = by_topic(subscriptions)
        self._ledger = ledger
        self._sink = sink
        self._now = now
        self._patiently = Patience(agent, backoff)
        self._wait_allowed = wait_allowed
        self._records = JournalRecords(f"/agents/{agent}")
        self.rowed: set[StepId] = set()
        """Steps that have a row, though nobody would look for one: what must never run, and what failed of pure steps."""
        self.told_again: Counter[str] = Counter()
        """Deliveries since the start whose step had been fenced, or undone."""
        self._keeps_rows = any(each.keeps_row for each in subscriptions)
        self._waiting = Waiting(agent, delays, self._rows, self._now_ms)
        self.left = self._waiting.left
        self.waiting_flows = self._waiting.flows

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Learn what must never run and what waits, also where nothing else is recorded."""
        rows = await self._patiently(lambda: self._ledger.unsettled(partitions))
        self.rowed.update(row.step_id for row in rows if row.step.state is State.FENCED or not self._has_row(row.place.at.topic))
        waiting = [row.step_id for row in rows if row.step.waits]
        if waiting:
            self._waiting.learn((await self._rows(waiting)).values())

    def fence(self, step: StepId) -> None:
        """Its row says so too, or will: what comes of it from now on asks before it begins."""
        self.rowed.add(step)

    async def look(self, works: Sequence[Work]) -> None:
        """Leave in each work what its step's row says; most have none."""
        rowed, concerns = self.rowed, self._waiting.concerns
        if not (self._keeps_rows or rowed or self.waiting_flows):
            works = [work for work in works if work.move is not None]
        asked = [work for work in works if work.step and (self._keeps(work) or work.step in rowed or concerns(work))]
        if not asked:
            return
        now = self._now()
        rows = await self._rows([work.step for work in asked])
        for work in asked:
            work.row, work.looked = rows.get(work.step), now

    def looked_long_ago(self, work: Work) -> bool:
        """Whether a step would begin in memory by what its row said long ago: meanwhile another instance may have tried it."""
        return work.row is None and work.looked > 0 and self._now() - work.looked > LOOK_HOLDS_SECONDS

    async def put_off(self, work: Work) -> bool:
        """True where the step's turn has not come: it waits on, and no attempt of it was made."""
        while True:
            if work.row is None and not self._waiting.concerns(work):
                return False
            if work.row is not None and work.row.step.state.final:
                return work.row.step.state in _TOLD_IN_TURN and await self._told_later(work)
            stands = moved_of(work.row)
            if stands is not None and stands.move != work.move:
                # It waits elsewhere already; that its record lies there is not certain, so it is written again.
                self._waiting.waits(work, stands)
                work.put_off(stands.record(work.delivery))
                return True
            moved = await self._waiting.until_turn(work)
            if moved is None:
                return False
            if await self._defer(work, moved):
                return True

    async def _told_later(self, work: Work) -> bool:
        """True where an earlier step of its flow has not been told: it has to begin again, or its record lies on a retry topic.

        The record that will tell of this one lies there before its row says so: else later ones might wait for what nobody wrote.
        """
        moved = await self._waiting.until_told(work)
        if moved is None:
            return False
        assert work.row is not None
        await self._sink.publish([moved.record(work.delivery)])
        outcome = _with_place(work.row.outcome, moved)
        work.row = (answer := await self._ask(Ask(work.step, TellLater(), _place(work), outcome))).row
        if answer.verdict is not Verdict.RECORDED:
            return False  # somebody has told it meanwhile
        self._waiting.waits(work, moved)
        work.leaves_nothing()
        work.outcome = "retry"
        return True

    async def told(self, works: Sequence[Work]) -> None:
        """All that these lead to is acknowledged, so their flows wait for them no more. To be written before they are committed."""
        asks = [Ask(work.step, Told(), _place(work)) for work in works]
        await self._patiently(lambda: self._ledger.ask(asks))

    async def wait_again(self, work: Work, move: Move, seconds: float) -> bool:
        """A step whose handler may not be called yet goes back to where it waited. False where it came to its end meanwhile."""
        return await self._defer(work, self._waiting.again_after(move, seconds)) or await self.put_off(work)

    async def _defer(self, work: Work, moved: Moved) -> bool:
        """False where the step came to its end, or to another attempt, since its row was looked at; `work` has the row as it is now."""
        seen = 0 if work.row is None else work.row.step.attempt
        answer = await self._ask(Ask(work.step, Defer(seen), _place(work), moved.recorded()))
        work.row = answer.row
        if answer.verdict is not Verdict.RECORDED:
            return False
        self._waiting.waits(work, moved)
        work.put_off(moved.record(work.delivery))
        return True

    def ends(self, work: Work) -> None:
        """The step has come to its end, as far as its flow's next one is concerned."""
        self._waiting.ends(work)

    async def begin(self, work: Work) -> bool:
        """Claim the next attempt; False when what became of the step stands already and is only told again."""
        subscription = self._subscriptions[work.delivery.topic]
        if work.row is None and not subscription.kind.acts_outside:
            work.attempts, work.begun = work.attempts + 1, UNWRITTEN
            return True
        if subscription.kind.acts_outside:
            await self._wait_allowed()
        while True:
            now_ms = self._now_ms()
            lease_until_ms = now_ms + int(subscription.timeout_seconds * 1000) + LEASE_MARGIN_MS
            begin = Begin("", lease_until_ms, now_ms, CLOCK_SKEW_MS, subscription.kind.acts_outside, subscription.repeats)
            given = recorded_input(self._agent, work.given, work.move) if subscription.kind.acts_outside else None
            answer = await self._ask(Ask(work.step, begin, _place(work), undo=given))
            work.row = answer.row
            if answer.verdict is Verdict.WAIT:
                # Whoever holds the lease may let go of it before its end.
                await asyncio.sleep(min(_LEASE_LOOK_SECONDS, max(0.0, answer.wait_until_ms / 1000 - self._now())))
            elif answer.verdict is not Verdict.RUN:
                self._tell_again(work, answer)
                return False
            elif await self._begun_early(work, answer.row):
                if await self.put_off(work):
                    return False
            else:
                assert answer.row is not None
                work.begun = answer.row.step.attempt
                # Attempts of a pure step have no row until it waits: then the record has counted them.
                work.attempts = max(work.begun, work.attempts + 1)
                work.effect = answer.row.step.effect
                if answer.row.outcome:
                    work.excused = excused_in(answer.row)
                if not subscription.kind.acts_outside:
                    return True
                await self._say_started(work, subscription, lease_until_ms)
                if self._now_ms() <= now_ms + LEASE_MARGIN_MS // 2:
                    return True
                # The journal was away for so long that the handler could outlive its lease.
                await self._ask(Ask(work.step, AttemptFailed(work.begun, Effect.NONE), _place(work)))

    async def _begun_early(self, work: Work, row: Row | None) -> bool:
        """Whether another instance's attempt has failed since the row was looked at, and the next one is not due. Then the attempt
        that was begun is given back, and does not count."""
        moved = moved_of(row)
        if moved is None or moved.move == work.move or moved.move.due_ms <= self._now_ms():
            return False
        assert row is not None
        given_back = AttemptFailed(row.step.attempt, Effect.NONE)
        work.row = (await self._ask(Ask(work.step, given_back, _place(work), excusing(row, moved.move.excused + 1)))).row
        return True

    async def attempt_failed(self, work: Work, *, over: bool) -> None:
        """`over` is False where the attempt may still be alive: then its lease is waited for if it may act."""
        acts = self._subscriptions[work.delivery.topic].kind.acts_outside
        if over or not acts:
            work.row = (await self._ask(Ask(work.step, AttemptFailed(work.begun, work.effect), _place(work)))).row

    async def attempt_excused(self, work: Work) -> None:
        """An attempt that is over does not count. Where a row names it, the row says that it is over, and what it may have done."""
        if work.begun == UNWRITTEN:
            work.attempts -= 1
            return
        work.excused += 1
        if work.move is not None:
            work.move = work.move._replace(excused=work.excused)
        told = AttemptFailed(work.begun, work.effect)
        work.row = (await self._ask(Ask(work.step, told, _place(work), excusing(work.row, work.excused)))).row

    async def let_go(self, work: Work) -> None:
        """The attempt was cut off because its partition was taken away: its next owner need not wait for the lease."""
        if work.begun != UNWRITTEN and not work.settled and work.over:
            await self._ask(Ask(work.step, AttemptFailed(work.begun, work.effect), _place(work)))

    async def forget(self) -> None:
        """Until cancelled: remove what nobody can ask for any more, in bites, so that work passes between two."""
        retention_ms = self._retention_ms
        while retention_ms is not None:
            await asyncio.sleep(_FORGET_EVERY_SECONDS)
            before_ms = self._now_ms() - retention_ms
            forgotten = BITE
            while forgotten >= BITE:
                forgotten = await self._patiently(partial(self._ledger.forget, before_ms, BITE))
                await asyncio.sleep(BETWEEN_BITES_SECONDS)

    async def retry_after(self, work: Work, seconds: float, *, over: bool) -> bool:
        """The attempt failed and the next one waits on a retry topic; True when that is written down, or what became of the step.

        False when another attempt at it was begun: ask again.
        """
        moved = self._waiting.until_retry(work, seconds)
        acts = self._subscriptions[work.delivery.topic].kind.acts_outside
        asked = AttemptFailed(work.begun, work.effect, elsewhere=True) if over or not acts else Defer(work.begun)
        answer = await self._ask(Ask(work.step, asked, _place(work), moved.recorded()))
        work.row = answer.row
        if answer.verdict is Verdict.LOST_RACE:
            return False
        if answer.verdict is not Verdict.RECORDED:
            self._tell_again(work, answer)
            return True
        self._waiting.waits(work, moved)
        work.put_off(moved.record(work.delivery))
        return True

    async def settle(self, works: Sequence[Work]) -> Sequence[Work]:
        """Write down what was concluded, before anything of it leaves; gives back those that may leave.

        A step that somebody else has brought to its end leaves with what is recorded; one that somebody else is at begins again.
        """
        candidates = works if self._keeps_rows else [work for work in works if work.row is not None]
        recorded = [work for work in candidates if not work.settled and self._records_end(work)]
        if not recorded:
            return works
        asks = [Ask(work.step, _end(work), _place(work), _outcome(work), self._given(work)) for work in recorded]
        answers = await self._patiently(lambda: self._ledger.ask(asks))
        for work, answer in zip(recorded, answers, strict=True):
            if answer.verdict is Verdict.LOST_RACE:
                work.lost = True
            elif answer.verdict is Verdict.RECORDED:
                # A pure step that has a row, because an attempt failed, leaves the way of those that have none: in their order.
                work.recorded = self._keeps(work)
                work.awaited = answer.row is not None and answer.row.step.turn is Turn.AWAITED
                if not work.recorded:
                    self.rowed.discard(work.step)
            else:
                self._tell_again(work, answer)
        await self._let_go_fenced([work for work, answer in zip(recorded, answers, strict=True) if _may_be_undone(work, answer)])
        return [work for work in works if not work.lost]

    async def _let_go_fenced(self, works: Sequence[Work]) -> None:
        """Fenced by another instance while they ran here: their undo waits for these attempts, and they are over."""
        asks = [Ask(work.step, Abandon(work.begun, work.over), _place(work)) for work in works]
        if asks:
            await self._patiently(lambda: self._ledger.ask(asks))

    def lease(self, work: Work) -> Lease | None:
        """How long the attempt that was begun may act: until its handler is stopped, and what that may take."""
        until_ms = 0 if work.row is None else work.row.step.lease_until_ms
        return Lease(until_ms - LEASE_MARGIN_MS // 2, self._now_ms) if until_ms else None

    def memos(self, work: Work) -> Memos:
        """What `Context.once` is kept by."""
        return Memos(self._ledger, work.step, self._patiently)

    def _given(self, work: Work) -> bytes | None:
        """A step that failed may be run again, one that acts has said before it began what its undo will need."""
        return recorded_input(self._agent, work.given, work.move) if work.failure is not None else None

    def _keeps(self, work: Work) -> bool:
        return self._has_row(work.delivery.topic)

    def _has_row(self, topic: str) -> bool:
        """Whether every step of these events has a row, once it has come to its end."""
        subscription = self._subscriptions.get(topic)
        return subscription is not None and subscription.keeps_row

    def _records_end(self, work: Work) -> bool:
        # Under a key that means another event, the step's id is that of the event it means.
        placeless = work.failure is not None and work.failure.reason in PLACELESS
        keeps = self._keeps(work) or work.row is not None
        return bool(work.step) and keeps and work.outcome != "skipped" and not placeless

    async def _say_started(self, work: Work, subscription: Subscription, lease_until_ms: int) -> None:
        assert work.envelope is not None
        body = StepStarted(
            step_id=work.step,
            agent=self._agent,
            subscription=subscription.name,
            parents=work.parents,
            attempt=work.begun,
            lease_until=datetime.fromtimestamp(lease_until_ms / 1000, UTC),
        )
        # Each attempt says it anew, so each is a record of its own.
        record = self._said(work, body, f"{work.step}/{work.begun}")
        if record is not None:
            await self._sink.publish([record])

    def _tell_again(self, work: Work, answer: Answer) -> None:
        """What was recorded takes the place of whatever this attempt came to."""
        assert answer.row is not None
        records = decode_records(answer.row.outcome) if answer.row.outcome else ()
        work.settled, work.recorded = True, self._keeps(work)
        work.awaited = answer.row.step.turn is Turn.AWAITED
        work.failure = None
        work.outcome = _AGAIN.get(answer.verdict, "duplicate_skipped")
        if work.outcome != "duplicate_skipped":
            self.told_again[work.outcome] += 1
        if work.recorded:
            self.rowed.discard(work.step)  # whoever meets it again finds its row
        work.journal = next((record for record in records if record.topic == JOURNAL), None)
        work.outputs = [record for record in records if record.topic != JOURNAL and not is_place(record)]
        if answer.verdict is Verdict.ANSWER_COMPENSATED:
            self._undone_again(work)
        work.sendings = [UNOBSERVED] * len(work.outputs)
        if work.journal is None and answer.verdict is Verdict.REJOURNAL_ABANDONED:
            log.error("step.abandoned", extra={"agent": self._agent, "step_id": work.step, "why": "what its last attempt did is unknown"})
            work.journal = self._said(work, StepAbandoned(step_id=work.step, generation=answer.row.step.generation), work.step)
        elif work.journal is None and answer.verdict is Verdict.ANSWER_FENCED:
            work.journal = self._said(work, StepFenced(step_id=work.step, attempts=answer.row.step.attempt), work.step)

    def _undone_again(self, work: Work) -> None:
        """What it emitted and never left feeds nobody any more; only a dead letter that a crash may have lost is still owed."""
        assert work.envelope is not None
        # The row does not say which command it was. The first one's answer is good for all: the step is undone.
        command = command_id_of(work.envelope.flow_id, work.step, _COMPENSATE, 1)
        work.journal = self._said(work, StepCompensated(step_id=work.step, command_id=command), command)
        work.outputs = [record for record in work.outputs if record.topic == dead_letter_topic(self._agent)]

    def _said(self, work: Work, body: Event, about: str) -> Record | None:
        """What the journal is told; nothing where the agent only observes."""
        envelope, membership, processing = work.envelope, work.membership, work.processing
        assert envelope is not None
        assert processing is not None
        if membership is None or not membership.takes_part:
            return None
        flow = envelope.flow_id.encode()
        common = lineage(
            flow_id=flow,
            time=rfc3339(self._now() * 1000).encode(),
            state_version=envelope.state_version + 1,
            choreography=membership.choreography,
            causation_id=envelope.event_id.encode(),
            business_key=envelope.business_key,
        )
        return self._records.record(body, about, flow, processing.traceparent, processing.tracestate, common)

    async def _rows(self, step_ids: Collection[StepId]) -> Mapping[StepId, Row]:
        return await self._patiently(lambda: self._ledger.rows(step_ids))

    async def _ask(self, ask: Ask) -> Answer:
        return (await self._patiently(lambda: self._ledger.ask([ask])))[0]

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _place(work: Work) -> Place:
    envelope = work.envelope
    assert envelope is not None
    return Place(envelope.flow_id, TopicPartition(work.delivery.topic, work.delivery.partition))


def _end(work: Work) -> Finish | Fail:
    if work.failure is None:
        return Finish(work.begun)
    return Fail(work.begun, work.effect, work.over)


def _outcome(work: Work) -> bytes:
    records = list(work.outputs) if work.journal is None else [work.journal, *work.outputs]
    waited = moved_of(work.row)
    return encode_records(records if waited is None else [*records, waited.place()])


def _with_place(outcome: bytes, moved: Moved) -> bytes:
    """What the row of a step that has ended keeps while it waits for its turn to be told."""
    records = decode_records(outcome) if outcome else ()
    return encode_records([*(record for record in records if not is_place(record)), moved.place()])


def _may_be_undone(work: Work, answer: Answer) -> bool:
    return answer.verdict is Verdict.REJOURNAL_ABANDONED and answer.row is not None and answer.row.step.leased and work.begun != UNWRITTEN
