"""Ending the step of a join because its parts did not come in time. Safe to repeat from any point."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from maypole.bus.answers import Answers
from maypole.bus.command_reading import Order
from maypole.bus.inputs import recorded_input
from maypole.bus.ledger.outcome import encode_records
from maypole.bus.ledger.port import Ask, Join, JoinState, Ledger, Place
from maypole.bus.ledger.transitions import UNWRITTEN, Fail, Verdict
from maypole.bus.memos import Patiently
from maypole.bus.moves import Move, Moved, Origin
from maypole.bus.parts import joined, latest
from maypole.bus.ports import Record
from maypole.bus.retry import hop
from maypole.bus.subscription import Subscription
from maypole.schemas.journal import Effect
from maypole.schemas.topics import retry_topic

log = logging.getLogger("maypole.bus.expiry")


class Expiry:
    """For one agent.

    What is done then is the subscription's to say. A handler of its own is run by the way of every retry: a part is sent once
    more, and is delivered as the join's step. Without one the step has failed.
    """

    def __init__(
        self,
        agent: str,
        subscriptions: Sequence[Subscription],
        ledger: Ledger,
        patiently: Patiently,
        answers: Answers,
        delays: Sequence[float],
        now: Callable[[], float],
    ) -> None:
        """`delays`, in seconds, are those of the agent's retry topics; `now` gives seconds since the epoch."""
        self._agent = agent
        self._joins: Final = {each.name: each for each in subscriptions if each.within_ms is not None}
        self._ledger = ledger
        self._patiently = patiently
        self._answers = answers
        self._delays = delays
        self._now = now

    async def end(self, order: Order, place: Place) -> Sequence[Record]:
        """What is to be published. Nothing where the step's own end is the answer: it fired, or is at it.

        First the ledger closes the join: what comes from then on is late, on whichever instance.
        """
        subscription = self._joins.get(order.body.subscription)
        if subscription is None:
            return await self._failed(order, Join(order.step, place, JoinState.EXPIRED, 0, {}), ())
        join = await self._patiently(lambda: self._ledger.expire_join(order.step, place))
        row = (await self._patiently(lambda: self._ledger.rows([order.step]))).get(order.step)
        if row is not None and row.step.state.final:
            return [self._answers.of(order, row)]
        if join.state is JoinState.FIRED:
            return ()
        log.warning("join.expired", extra={"agent": self._agent, "flow_id": join.place.flow_id, "step_id": order.step})
        if subscription.expiry is not None:
            # Where no part has come yet, the first that comes runs it.
            return () if row is not None else self._sent_again(join)
        return await self._failed(order, join, subscription.event_types)

    def _sent_again(self, join: Join) -> Sequence[Record]:
        part = latest(join)
        if part is None:
            return ()
        move = Move(Origin(part.topic, part.partition, part.offset), part.timestamp_ms, 1, int(self._now() * 1000))
        return [Moved(retry_topic(self._agent, hop(self._delays, 0)).name, move).record(part)]

    async def _failed(self, order: Order, join: Join, types: Sequence[str]) -> Sequence[Record]:
        part = latest(join)
        step = joined(join, types, None if part is None else part.topic, expired=True)
        missing = [event_type for event_type in types if event_type not in step.parts]
        told = self._answers.expired(order, step.parents, missing)
        given = recorded_input(self._agent, step.arrived, None) if step.parts else None
        ask = Ask(order.step, Fail(UNWRITTEN, Effect.NONE), join.place, encode_records([told]), given)
        [answer] = await self._patiently(lambda: self._ledger.ask([ask]))
        if answer.verdict is Verdict.LOST_RACE or answer.row is None:
            return ()  # another attempt at it is under way: its end is the answer
        return [told if answer.verdict is Verdict.RECORDED else self._answers.of(order, answer.row)]
