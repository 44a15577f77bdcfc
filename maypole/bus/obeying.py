"""Obeying one command: what it does to the step's row, and what is told because of it. Safe to repeat from any point."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from maypole.bus.answers import Answers, Untold
from maypole.bus.command_reading import Order, Refused
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.expiry import Expiry
from maypole.bus.inputs import InputUnreadable, input_of
from maypole.bus.ledger.port import Answer, Ask, Ledger, Place
from maypole.bus.ledger.step import State
from maypole.bus.ledger.transitions import Abandon, Compensate, Compensated, Fence, Input, Retry, Verdict
from maypole.bus.memos import Patiently
from maypole.bus.moves import Moved, moved_of
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Record, TopicPartition
from maypole.bus.recording import CLOCK_SKEW_MS
from maypole.bus.retry import hop
from maypole.bus.subscription import Subscription
from maypole.bus.undoing import Hand, NotUndone, Undoing
from maypole.bus.work import Work
from maypole.schemas import commands
from maypole.schemas.identifiers import StepId
from maypole.schemas.topics import retry_topic

log = logging.getLogger("maypole.bus.obeying")

_LEASE_LOOK_SECONDS: Final = 1.0
POSTPONE_SECONDS: Final = 60.0
"""How long an undo waits for a step to come to its end; then it says that it could not, and is asked again."""

_FORGOTTEN: Final = (
    "expected the row of a step that has acted, found that the ledger knows of no attempt at it: was the ledger lost, or begun anew? "
    "Nothing was undone: find out what the step did, and decide"
)

Halt = Callable[[StepId], Awaitable[Work | None]]
"""Cut off what works on a step in this process, and wait until that is over."""


class Obeying:
    """For one agent."""

    def __init__(
        self,
        agent: str,
        subscriptions: Sequence[Subscription],
        ledger: Ledger,
        patiently: Patiently,
        undoing: Undoing,
        halt: Halt,
        remember: Callable[[StepId], None],
        partitions: Mapping[str, int],
        delays: Sequence[float],
        now: Callable[[], float],
    ) -> None:
        """`remember` is told of tombstones; `partitions` are those of the topics subscribed to; `delays`, in seconds, those of the
        agent's retry topics; `now` gives seconds since the epoch.
        """
        self._agent = agent
        self._acting = frozenset(each.name for each in subscriptions if each.kind.acts_outside)
        self._ledger = ledger
        self._patiently = patiently
        self._undoing = undoing
        self._halt = halt
        self._remember = remember
        self._partitions = partitions
        self._delays = delays
        self._now = now
        self._answers = Answers(agent, now)
        self._expiry = Expiry(agent, subscriptions, ledger, patiently, self._answers, delays, now)

    async def obey(self, order: Order, hand: Hand) -> Sequence[Record]:
        """What is to be published, each only once the one before it is acknowledged. Raises `Refused`."""
        try:
            match order.body:
                case commands.Fence():
                    return await self._fence(order, order.body.generation)
                case commands.Compensate():
                    return await self._compensate(order, hand)
                case commands.Expire():
                    return await self._expiry.end(order, self._place(order))
                case commands.Retry():
                    return await self._retry(order, order.body.generation)
        except (Untold, InputUnreadable) as error:
            raise Refused(Reason.REJECTED, error) from error

    async def _fence(self, order: Order, generation: int) -> Sequence[Record]:
        # First in memory: what has not begun here must not begin while the ledger is asked.
        self._remember(order.step)
        answer = await self._ask(order, Fence(generation))
        if answer.verdict in (Verdict.ANSWER_FENCED, Verdict.REJOURNAL_ABANDONED):
            # Only now: a delivery that is cut off asks the row what to do next.
            halted = await self._halt(order.step)
            if halted is not None and halted.begun and order.body.subscription in self._acting:
                # Once it is known to be over, its undo need not wait for the lease.
                answer = await self._ask(order, Abandon(halted.begun, halted.over))
        assert answer.row is not None, "a fence leaves a row"
        return [self._answers.of(order, answer.row)]

    async def _compensate(self, order: Order, hand: Hand) -> Sequence[Record]:
        give_up_at = self._now() + POSTPONE_SECONDS
        while True:
            answer = await self._ask(order, Compensate(int(self._now() * 1000), CLOCK_SKEW_MS))
            match answer.verdict:
                case Verdict.UNDO:
                    break
                case Verdict.WAIT:
                    # Whoever holds the lease may let go of it before its end.
                    seconds = min(_LEASE_LOOK_SECONDS, max(0.0, answer.wait_until_ms / 1000 - self._now()))
                case Verdict.POSTPONE if self._now() >= give_up_at:
                    why = f"the step has not come to its end within {POSTPONE_SECONDS:g} s: there is nothing to undo yet"
                    return [self._answers.not_undone(order, why, retryable=True)]
                case Verdict.POSTPONE:
                    seconds = _LEASE_LOOK_SECONDS
                case Verdict.ANSWER_FENCED:
                    # The coordinator asks for this only where the journal tells of an effect.
                    assert answer.row is not None, "a tombstone is a row"
                    self._remember(order.step)
                    return [self._answers.of(order, answer.row), *self._give_up(order, NotUndone(0, _FORGOTTEN))]
                case _:
                    assert answer.row is not None, "every other verdict is about a row"
                    self._remember(order.step)
                    return [self._answers.of(order, answer.row)]
            with hand.resting():
                await asyncio.sleep(seconds)
        assert answer.row is not None, "there is something to undo"
        failed = await self._undoing.undo(order, answer.row, hand)
        if failed is not None:
            return self._give_up(order, failed)
        answer = await self._ask(order, Compensated())
        assert answer.row is not None
        log.info("step.compensated", extra=self._about(order))
        return [self._answers.of(order, answer.row)]

    def _give_up(self, order: Order, failed: NotUndone) -> Sequence[Record]:
        log.error("step.not_compensated", extra={**self._about(order), "attempts": failed.attempts, "error": failed.error})
        now_ms = self._now() * 1000
        letter = dead_letter(self._agent, order.delivery, Reason.COMPENSATION_FAILED, failed.error, failed.attempts, now_ms)
        return [self._answers.not_undone(order, failed.error, retryable=False), letter]

    async def _retry(self, order: Order, generation: int) -> Sequence[Record]:
        """One more attempt, by the way of every retry. Its end is the answer; told twice, it is the same attempt."""
        row = (await self._patiently(lambda: self._ledger.rows([order.step]))).get(order.step)
        if row is None:
            raise Refused(Reason.REJECTED, f"step {order.step}: expected a record of what it was given, to run it again, found none")
        if row.step.state is State.FAILED:
            original, move = input_of(self._agent, row)[-1]  # of a join the part that completes it again
            move = move._replace(attempt=row.step.attempt + 1, due_ms=int(self._now() * 1000))
            moved = Moved(retry_topic(self._agent, hop(self._delays, 0)).name, move)
            answer = await self._ask(order, Retry(generation), moved.recorded())
        else:
            answer = await self._ask(order, Retry(generation))
        assert answer.row is not None, "it was there a moment ago"
        if answer.verdict not in (Verdict.RECORDED, Verdict.POSTPONE):
            return [self._answers.of(order, answer.row)]
        waits = moved_of(answer.row)
        if waits is None:
            return ()  # it is at it
        original, _ = input_of(self._agent, answer.row)[-1]
        return [waits.record(original)]

    async def _ask(self, order: Order, asked: Input, outcome: bytes | None = None) -> Answer:
        ask = Ask(order.step, asked, self._place(order), outcome)
        return (await self._patiently(lambda: self._ledger.ask([ask])))[0]

    def _place(self, order: Order) -> Place:
        """Of a step whose event may never have come: where it would come from, so that whoever owns that partition learns of it."""
        flow_id, topic = order.envelope.flow_id, order.body.subscription.partition("+")[0]  # of a join any part: they lie alike
        return Place(flow_id, TopicPartition(topic, partition_of(flow_id.encode(), self._partitions.get(topic, 1))))

    def _about(self, order: Order) -> dict[str, object]:
        return {"agent": self._agent, "flow_id": order.envelope.flow_id, "step_id": order.step, "command_id": order.command}
