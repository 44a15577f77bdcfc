"""One step: the handler, called until it returns, refuses, or has failed as often as it may. Decides everything and writes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from maypole.bus.admission import Admission
from maypole.bus.attempt import Failed, Guard, attempted
from maypole.bus.backoff import Backoff
from maypole.bus.conclusion import Conclusion
from maypole.bus.context import Context, UndeclaredEffect
from maypole.bus.dead_letters import Reason
from maypole.bus.gate import Gate
from maypole.bus.gathering import Gathering
from maypole.bus.guarding import Guarding, observed
from maypole.bus.handler_threads import HandlerThreads
from maypole.bus.hook import Processing, Tracing
from maypole.bus.ledger.step import together
from maypole.bus.membership import PLACELESS
from maypole.bus.outage import unavailable_in
from maypole.bus.outcomes import Reject, RetryLater
from maypole.bus.ports import TopicPartition
from maypole.bus.recording import Recording
from maypole.bus.retry import IN_PLACE_SECONDS_MAX
from maypole.bus.subscription import Subscription, by_topic
from maypole.bus.work import Failure, Work
from maypole.schemas.envelope import Envelope
from maypole.schemas.errors import ContractRefused
from maypole.schemas.event import Event
from maypole.schemas.journal import Effect

log = logging.getLogger("maypole.bus.steps")


class Steps:
    """The steps of one agent: admitted and concluded in batches, handled one by one, many at the same time."""

    def __init__(
        self,
        agent: str,
        subscriptions: Sequence[Subscription],
        admission: Admission,
        conclusion: Conclusion,
        tracing: Tracing,
        now: Callable[[], float],
        backoff: Backoff,
        home: Path,
        recording: Recording,
        gathering: Gathering,
        guarding: Guarding,
    ) -> None:
        """`now` gives seconds since the epoch."""
        self._agent = agent
        self._subscriptions: Mapping[str, Subscription] = by_topic(subscriptions)
        self._acting = frozenset(topic for topic, each in self._subscriptions.items() if each.kind.acts_outside)
        self._admission = admission
        self.admit = admission.admit
        self.conclude = conclusion.conclude
        self.dead_lettered = conclusion.dead_lettered
        self._tracing = tracing
        self._now = now
        self._backoff = backoff
        self._home = home
        self._recording = recording
        self._gathering = gathering
        self.watch = gathering.watch
        self.late_parts = gathering.late
        self.told_again = recording.told_again
        self._waiting_flows = recording.waiting_flows
        self._rowed = recording.rowed
        self.guarding = guarding
        self._gates = guarding.gates
        self.in_turn: Callable[[object], Awaitable[bool]] = _always
        """Whether what came before in its lane is recorded. Else a step that waits elsewhere would wait behind nobody."""
        self.look = recording.look
        self.settle = recording.settle
        self.told = recording.told
        self.let_go = recording.let_go
        self.forget = recording.forget
        self.left = recording.left
        self.threads = HandlerThreads(agent)
        self._log = logging.getLogger(f"maypole.agents.{agent}")

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        await self._recording.assigned(partitions)
        await self._gathering.assigned(partitions)

    async def run(self, work: Work, guard: Guard) -> None:
        """Handle one admitted delivery and leave in `work` what was emitted, or why it failed, or that it waits and where."""
        if work.again or (self._rowed and work.step in self._rowed) or self._recording.looked_long_ago(work):
            work.again = False
            await self._recording.look([work])
        envelope = work.envelope
        if envelope is None:
            return
        if work.delivery.topic in self._gathering.topics:
            if work.joined is None and not await self._gathered(work, envelope):
                return
            envelope = work.envelope or envelope
        # Nearly always nothing waits at all, and nobody has seen the step before.
        known = bool(self._waiting_flows) or work.row is not None or work.move is not None
        if known and await self._recording.put_off(work):
            return
        if self.guarding.troubled and work.failure is None and await self._waits(work):
            return
        processing = work.processing or self._observe(work, envelope)
        if work.event is None or work.failure is not None:
            await self._admit_late(work, envelope)
        if work.event is not None and work.failure is None:
            try:
                work.emitted = await self._handled(work, envelope, processing, self._subscription_of(work), guard)
            except ContractRefused as error:
                work.failure = Failure(Reason.CONTRACT_REFUSED, error)
            except Reject as error:
                work.failure = Failure(Reason.REJECTED, error)
            except _Exhausted as error:
                work.failure = Failure(Reason.ATTEMPTS_EXHAUSTED, error)
        if (self._waiting_flows or work.move is not None) and work.outcome != "retry" and work.held is None:
            self._recording.ends(work)

    def _subscription_of(self, work: Work) -> Subscription:
        subscription = self._subscriptions[work.delivery.topic]
        if work.joined is not None and work.joined.expired:
            assert subscription.expiry is not None, "without one it has failed"
            return subscription.expiry
        return subscription

    def _observe(self, work: Work, envelope: Envelope) -> Processing:
        queued_ms = self._now() * 1000 - work.delivery.timestamp_ms
        beside = () if work.joined is None else work.joined.traceparents
        work.processing = processing = self._tracing.processing(self._agent, work.delivery, envelope, work.step, queued_ms, beside)
        return processing

    async def _gathered(self, work: Work, envelope: Envelope) -> bool:
        """True where the part is the step of its join from here on; otherwise nothing is left to do but what `work` says."""
        if work.failure is None and work.event is None:
            await self._admission.complete(work)
        elif work.failure is not None and work.membership is None and work.failure.reason not in PLACELESS:
            await self._admission.place(work)
        if work.failure is None and work.event is None:
            self._skipped(work, envelope)
            work.leaves_nothing()
            return False
        if await self._gathering.gather(work):
            await self._recording.look([work])
            return True
        if work.failure is not None:
            self._observe(work, envelope)
        return False

    async def _admit_late(self, work: Work, envelope: Envelope) -> None:
        """What admission had to leave: it must ask, or has refused and must know whom to tell."""
        if work.failure is None:
            await self._admission.complete(work)
        if work.failure is None:
            if work.event is None:
                self._skipped(work, envelope)
        elif work.failure.reason not in PLACELESS:
            if work.membership is None:
                await self._admission.place(work)
            if work.row is not None:
                await self._recording.begin(work)

    async def _handled(
        self, work: Work, envelope: Envelope, processing: Processing, subscription: Subscription, guard: Guard
    ) -> Sequence[Event]:
        acts = work.delivery.topic in self._acting
        gate = self._gates[work.delivery.topic]
        while True:
            if gate.shut and not gate.ask(work):
                return await self._instead(work, gate, processing)
            if work.row is None and not subscription.keeps_row:
                work.attempts += 1
            elif not await self._recording.begin(work):
                return ()
            before = work.effect
            if acts:
                work.effect = together(before, Effect.UNKNOWN)
            context = self._context(envelope, work, processing) if subscription.wants_context else None
            events: tuple[object, ...] = (work.event,) if work.joined is None else work.event  # type: ignore[assignment]  # as it says
            arguments = events if context is None else (*events, context)
            self.threads.check()
            work.over = True
            with processing.handling():
                if subscription.is_async:
                    handler: Callable[..., Awaitable[object]] = subscription.handler  # type: ignore[assignment]  # a coroutine function
                    answer = await attempted(guard, subscription.timeout_seconds, handler, *arguments)
                else:
                    # A plain function may block; a thread keeps the other flows going.
                    call = partial(self._in_a_thread, work, subscription.handler)
                    answer = await attempted(guard, subscription.timeout_seconds, call, *arguments)
            if type(answer) is not Failed:
                work.effect = Effect.APPLIED if acts else Effect.NONE
                emitted = _sequence(answer)
                if gate.listens:
                    gate.succeeded(work, emitted)
                if answer is None and not subscription.may_emit_nothing:
                    expected = " or ".join(event.__name__ for event in subscription.emits)
                    rule = f"{expected}, as the handler's annotation says; one that may emit nothing says `| None`"
                    raise ContractRefused(field="return", value=None, rule=rule)
                return emitted
            failure = answer.error
            if isinstance(failure, (Reject, RetryLater)) and not failure.acted:
                work.effect = before
            if isinstance(failure, (Reject, ContractRefused)):
                raise failure
            if isinstance(failure, UndeclaredEffect):
                raise Reject(str(failure)) from failure
            excused = gate.failed(work, failure)
            if excused and work.over and (subscription.repeats or not acts):
                return await self._excused(work, gate, processing, failure)
            counted = work.attempts - work.excused
            last = not subscription.retry.again(counted, failure)
            log.warning("step.attempt_failed", exc_info=failure if last else None, extra={**self.about(work), "error": repr(failure)})
            processing.attempt_failed(work.attempts, failure, last=last)
            if last:
                raise _Exhausted(f"{type(failure).__name__}: {failure}") from failure
            later = failure.after_seconds if isinstance(failure, RetryLater) else None
            seconds = subscription.retry.delay_after(counted) if later is None else later
            if seconds is not None and seconds > IN_PLACE_SECONDS_MAX:
                if not await self.in_turn(work.lane):
                    await self._recording.attempt_failed(work, over=work.over)
                    work.leaves_nothing()
                    work.lost = True
                    return ()
                if await self._recording.retry_after(work, seconds, over=work.over):
                    return ()
                continue
            await self._recording.attempt_failed(work, over=work.over)
            if later is None:
                await self._backoff(counted, seconds)
            else:
                await asyncio.sleep(later)

    async def _waits(self, work: Work) -> bool:
        """True where its handler may not be called now: it waits at the gate, or where it came from while too many wait there."""
        gate = self._gates.get(work.delivery.topic)
        if gate is None or not gate.holds(work):
            return False
        if work.move is None or not self.guarding.is_full:
            work.held = gate.name
            return True
        return await self._recording.wait_again(work, work.move, gate.seconds_left())

    async def _excused(self, work: Work, gate: Gate, processing: Processing, failure: BaseException) -> Sequence[Event]:
        """An outage answers for this attempt, so it does not bring the record nearer to its dead letter."""
        log.warning("step.attempt_excused", extra={**self.about(work), "error": repr(failure)})
        if unavailable_in(failure) is None:
            processing.attempt_failed(work.attempts, failure, last=False)
        await self._recording.attempt_excused(work)
        return await self._instead(work, gate, processing)

    async def _instead(self, work: Work, gate: Gate, processing: Processing) -> Sequence[Event]:
        """The handler may not be called: what was chosen for that, or wait until it may."""
        served = gate.serve(work)
        if served is None:
            work.held = gate.name
            processing.held(gate.because)
            return ()
        if not await self._recording.begin(work):
            return ()
        work.served = served
        with processing.handling():
            self.guarding.served(work, served)
        return served.events

    async def _in_a_thread(self, work: Work, function: Callable[..., object], *arguments: object) -> object:
        try:
            return await self.threads.call(self.about(work), function, *arguments)
        except asyncio.CancelledError:
            # A thread cannot be stopped: it may act for as long as it likes.
            work.over = False
            raise

    def about(self, work: Work) -> dict[str, object]:
        """Whose handler works on what, as logs tell it."""
        handler = self._subscriptions[work.delivery.topic].handler
        name = f"{handler.__module__}:{getattr(handler, '__qualname__', type(handler).__qualname__)}"
        flow = "" if work.envelope is None else work.envelope.flow_id
        return {"agent": self._agent, "handler": name, "flow_id": flow, "step_id": work.step, "attempt": work.attempts}

    def _context(self, envelope: Envelope, work: Work, processing: Processing) -> Context:
        observed.set(processing)
        memos = self._recording.memos(work)
        memos.threaded = partial(self._in_a_thread, work)
        fields = {"agent": self._agent, "flow_id": envelope.flow_id, "step_id": work.step, "attempt": work.attempts}
        return Context(
            agent=self._agent,
            flow_id=envelope.flow_id,
            step_id=work.step,
            event_id=envelope.event_id,
            attempt=work.attempts,
            business_key=envelope.business_key,
            triggered_at_ms=work.delivery.timestamp_ms,
            home=self._home,
            acts=self._subscriptions[work.delivery.topic].kind.acts_outside,
            memos=memos,
            dependencies=self.guarding.dependencies,
            logger=logging.LoggerAdapter(self._log, fields),
            lease=self._recording.lease(work),
        )

    def _skipped(self, work: Work, envelope: Envelope) -> None:
        work.outcome = "skipped"
        log.warning(
            "step.observation_skipped",
            extra={
                "agent": self._agent, "flow_id": envelope.flow_id, "event_id": envelope.event_id, "step_id": work.step,
                "why": "the flow was pinned before this agent took part, and this subscription acts on the outside",
            },
        )  # fmt: skip


async def _always(lane: object) -> bool:
    return True


class _Exhausted(Exception):
    """Every attempt failed; the text is that of the last failure."""


def _sequence(returned: object) -> Sequence[Event]:
    if returned is None:
        return ()
    if isinstance(returned, (list, tuple)):
        return returned
    return (returned,)  # type: ignore[return-value]  # what it really is, is checked against the declaration
