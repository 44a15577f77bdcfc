"""Taking back what a step did: its undo, called until it returns, and asked whether the effect is gone, with a budget of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from maypole.bus.attempt import Failed, Guard, attempted
from maypole.bus.backoff import Backoff
from maypole.bus.command_reading import Order
from maypole.bus.context import Context
from maypole.bus.contracts import Contracts
from maypole.bus.dependencies import Dependencies, Tell
from maypole.bus.guarding import observed
from maypole.bus.handler_threads import HandlerThreads
from maypole.bus.hook import Processing, Tracing
from maypole.bus.inputs import InputUnreadable, input_of
from maypole.bus.ledger.outcome import OutcomeUnreadable, decode_records
from maypole.bus.ledger.port import Ledger, Row
from maypole.bus.ledger.step import State
from maypole.bus.memos import Memos, Patiently
from maypole.bus.moves import is_place
from maypole.bus.outcomes import Reject, RetryLater
from maypole.bus.ports import Delivery
from maypole.bus.retry import IN_PLACE_SECONDS_MAX
from maypole.bus.subscription import Handler, Subscription, UndoWants
from maypole.schemas.codec import schema_id_of
from maypole.schemas.envelope import TRACEPARENT, Envelope, read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, derive
from maypole.schemas.topics import JOURNAL

log = logging.getLogger("maypole.bus.undoing")


class Hand(Guard, Protocol):
    """Whoever works on one command: guards the handler that it runs, and may be sent away while it only waits."""

    def resting(self) -> AbstractContextManager[None]: ...


class NotUndone(NamedTuple):
    """For good, as far as this command goes."""

    attempts: int
    error: str


class Impossible(RuntimeError):
    """No repetition will help. Says what was expected, what was found, and what to do."""


class StillThere(RuntimeError):
    """The undo returned, and the outside world says that the effect is there."""


class Undoing:
    """Of one agent. Nothing of it is shared with the forward way: neither threads, nor attempts, nor breakers."""

    def __init__(
        self,
        agent: str,
        subscriptions: Sequence[Subscription],
        ledger: Ledger,
        patiently: Patiently,
        contracts: Contracts,
        tracing: Tracing,
        backoff: Backoff,
        home: Path,
        concurrency: int,
        moved: Tell,
    ) -> None:
        """`concurrency`: how many undos run at the same time. `moved` is told what becomes of the breakers of what they need."""
        self._agent = agent
        self._subscriptions: Mapping[str, Subscription] = {each.name: each for each in subscriptions}
        self._ledger = ledger
        self._patiently = patiently
        self._contracts = contracts
        self._tracing = tracing
        self._backoff = backoff
        self._home = home
        self._log = logging.getLogger(f"maypole.agents.{agent}")
        # Not those of the handlers: what is open for them may let an undo through.
        self._dependencies = Dependencies(asyncio.get_running_loop().time, moved)
        self._room = asyncio.Semaphore(concurrency)
        self.threads = HandlerThreads(f"{agent}-undo")

    async def undo(self, order: Order, row: Row, hand: Hand) -> NotUndone | None:
        """None once the effect is gone. Repeated after a crash, under the same idempotency key."""
        try:
            subscription = self._undoable(order)
            arguments = await self._given(subscription, row)
        except Impossible as error:
            return NotUndone(0, str(error))
        spans = self._tracing.compensating(self._agent, order.envelope, order.step, _traceparent(row))
        try:
            return await self._until_undone(subscription, arguments, order, hand, spans)
        except asyncio.CancelledError:
            spans.ended("revoked", 0)
            raise

    async def _until_undone(
        self, subscription: Subscription, given: _Given, order: Order, hand: Hand, spans: Processing
    ) -> NotUndone | None:
        attempt = 0
        while True:
            attempt += 1
            with hand.resting():
                await self._room.acquire()
            try:
                with spans.handling():
                    failure = await self._attempt(subscription, given, attempt, order, hand, spans)
            finally:
                self._room.release()
            if failure is None:
                spans.ended("compensated", attempt)
                return None
            last = isinstance(failure, Reject) or not subscription.undo_retry.again(attempt, failure)
            about = {"agent": self._agent, "flow_id": order.envelope.flow_id, "step_id": order.step, "attempt": attempt}
            spans.attempt_failed(attempt, failure, last=last)
            log.warning("undo.attempt_failed", exc_info=failure if last else None, extra={**about, "error": repr(failure)})
            if last:
                detail = f"{type(failure).__name__}: {failure}"
                spans.ended("dead_letter", attempt, detail)
                return NotUndone(attempt, detail)
            with hand.resting():
                await self._wait(subscription, attempt, failure)

    def _undoable(self, order: Order) -> Subscription:
        subscription = self._subscriptions.get(order.body.subscription)
        if subscription is None or subscription.undo is None:
            found = "no such subscription" if subscription is None else f"one that is {subscription.kind}, without an undo"
            raise Impossible(
                f"step {order.step}: expected an undo for {order.body.subscription} in {self._agent}, found {found}. "
                "Start the version of the agent that can undo it, or undo it by hand, and decide"
            )
        return subscription

    async def _given(self, subscription: Subscription, row: Row) -> _Given:
        try:
            given = input_of(self._agent, row)
            deliveries, (last, _) = {delivery.topic: delivery for delivery, _ in given}, given[-1]
            envelope = read_envelope(last.headers)
            events = [
                await self._decoded(trigger.event_class, deliveries[trigger.event_type].value) if trigger.event_type in deliveries else None
                for trigger in subscription.triggers
            ]
            emitted = await self._emitted(subscription, row)
        except (InputUnreadable, Undecodable, ContractRefused, OutcomeUnreadable) as error:
            raise Impossible(f"{error}. Undo the step by hand, and decide") from error
        return _Given(last, envelope, events, emitted)

    async def _emitted(self, subscription: Subscription, row: Row) -> object:
        """What the step emitted; None where nobody asks, and where it came to no end of which that is known."""
        if UndoWants.EMITTED not in (*subscription.undo_wants, *subscription.verify_wants):
            return None
        if row.step.state is not State.DONE:
            return _unknown(subscription, f"nobody can tell, because the step is {row.step.state}")
        classes = {event.event_type: event for event in subscription.emits}
        events: list[Any] = [
            await self._decoded(classes.get(record.topic), record.value)
            for record in decode_records(row.outcome)
            if record.topic != JOURNAL and not is_place(record)
        ]
        if subscription.emits_several:
            return tuple(events)
        return events[0] if events else _unknown(subscription, "nothing")

    async def _decoded(self, event_class: type[Event] | None, value: bytes | None) -> object:
        reader = await self._contracts.reader(event_class, schema_id_of(value))
        return reader.decode(value or b"")

    async def _attempt(
        self, subscription: Subscription, given: _Given, attempt: int, order: Order, hand: Hand, spans: Processing
    ) -> BaseException | None:
        observed.set(spans)
        context = self._context(given, attempt, order)
        assert subscription.undo is not None
        answer = await self._called(subscription.undo, subscription.undo_wants, subscription, given, context, hand)
        if type(answer) is not Failed and subscription.verify is not None:
            answer = await self._called(subscription.verify, subscription.verify_wants, subscription, given, context, hand)
            if type(answer) is not Failed and answer is not True:
                return StillThere(f"expected {subscription.verify.__name__} to say True, that the effect is gone, found {answer!r}")
        return answer.error if type(answer) is Failed else None

    async def _called(
        self, handler: Handler, wants: Sequence[UndoWants], subscription: Subscription, given: _Given, context: Context, hand: Hand
    ) -> object | Failed:
        self.threads.check()
        arguments = (*given.events, *(given.emitted if want is UndoWants.EMITTED else context for want in wants))
        if iscoroutinefunction(handler):
            call: Callable[..., Awaitable[object]] = handler
        else:
            about = {"agent": self._agent, "flow_id": context.flow_id, "step_id": context.step_id, "attempt": context.attempt}
            call = partial(self.threads.call, about, handler)
        return await attempted(hand, subscription.timeout_seconds, call, *arguments)

    async def _wait(self, subscription: Subscription, attempt: int, failure: BaseException) -> None:
        seconds = failure.after_seconds if isinstance(failure, RetryLater) else subscription.undo_retry.delay_after(attempt)
        if isinstance(failure, RetryLater) or (seconds is not None and seconds > IN_PLACE_SECONDS_MAX):
            await asyncio.sleep(seconds or 0)
        else:
            await self._backoff(attempt, seconds)

    def _context(self, given: _Given, attempt: int, order: Order) -> Context:
        envelope = given.envelope
        fields = {"agent": self._agent, "flow_id": envelope.flow_id, "step_id": order.step, "attempt": attempt}
        # Names of its own: `once("charge", ...)` of the step must not answer for that of its undo.
        memos = Memos(self._ledger, StepId(derive("undo", order.step)), self._patiently)
        memos.threaded = partial(self.threads.call, fields)
        return Context(
            agent=self._agent,
            flow_id=envelope.flow_id,
            step_id=order.step,
            event_id=envelope.event_id,
            attempt=attempt,
            business_key=envelope.business_key,
            triggered_at_ms=given.delivery.timestamp_ms,
            home=self._home,
            acts=True,
            memos=memos,
            dependencies=self._dependencies,
            logger=logging.LoggerAdapter(self._log, fields),
        )


class _Given(NamedTuple):
    """`events` as the handler took them, None for a part of a join that never came; `delivery` is the last of them."""

    delivery: Delivery
    envelope: Envelope
    events: Sequence[object]
    emitted: object


def _traceparent(row: Row) -> str | None:
    """Of the processing in which the step came to its end."""
    try:
        told = next((record for record in decode_records(row.outcome) if record.topic == JOURNAL), None) if row.outcome else None
    except OutcomeUnreadable:
        return None
    found = None if told is None else dict(told.headers).get(TRACEPARENT)
    return None if found is None else found.decode("ascii", errors="replace")


def _unknown(subscription: Subscription, found: str) -> object:
    if subscription.undo_copes:
        return None
    expected = " | ".join(event.__name__ for event in subscription.emits)
    raise Impossible(
        f"the undo of {subscription.name}: expected what the step had emitted ({expected}), found {found}. "
        f"An undo that can do without declares {expected} | None. Undo the step by hand, and decide"
    )
