"""One step: decode, contract, handler, outputs. Decides everything and writes nothing; the publisher acts on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from maypole.bus.agent import Kind, Subscription
from maypole.bus.backoff import Backoff
from maypole.bus.completion import CompletionTemplate
from maypole.bus.context import Context
from maypole.bus.contracts import Contracts
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.hook import UNOBSERVED, Tracing
from maypole.bus.journal import JournalRecords
from maypole.bus.membership import IdempotencyConflict, Membership, Memberships, UnknownChoreography
from maypole.bus.outcomes import Reject
from maypole.bus.ports import Record
from maypole.bus.work import Work
from maypole.schemas.codec import Reader, Writer, schema_id_of
from maypole.schemas.envelope import TYPE, Envelope, Stamp, lineage, read_envelope, rfc3339
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, digest_of, output_event_id, step_id_of
from maypole.schemas.journal import Effect, StepCompleted, StepFailed

log = logging.getLogger("maypole.bus.steps")

VALUE_BYTES_MAX: Final = 900_000
"""A little under the broker's usual limit of 1 MiB for a record with its headers."""
_DETAIL_LENGTH_MAX: Final = 2000


class Guard(Protocol):
    """Watches over one handler at a time from outside the task that runs it."""

    expired: bool

    def arm(self, timeout_seconds: float) -> None: ...

    def disarm(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Output:
    topic: str
    stamp: Stamp
    writer: Writer[Any]


class _Border:
    """What is the same for every record of a subscription, made once."""

    def __init__(self, agent: str, subscription: Subscription, contracts: Contracts, outputs: Mapping[type[Event], _Output]) -> None:
        self.subscription = subscription
        effect = Effect.APPLIED if subscription.kind.acts_outside else Effect.NONE
        self.completion = CompletionTemplate(agent, subscription.name, effect)
        self.outputs = outputs
        self._contracts = contracts
        self._readers: dict[int, Reader[Any]] = {}

    async def admit(self, value: bytes | None) -> object:
        """The event, decoded and held to its contract and to what this subscriber requires."""
        if value is None:
            raise Undecodable("expected an Avro value, found null")
        schema_id = schema_id_of(value)
        reader = self._readers.get(schema_id)
        if reader is None:
            reader = self._readers[schema_id] = await self._contracts.reader(self.subscription.event_class, schema_id)
        event = reader.decode(value)
        for requirement in self.subscription.requires:
            requirement.check(event)
        return event


async def open_borders(agent: str, subscriptions: Sequence[Subscription], contracts: Contracts) -> Mapping[str, _Border]:
    borders = {}
    for subscription in subscriptions:
        outputs = {
            event: _Output(event.event_type, Stamp(event.event_type, f"/agents/{agent}"), await contracts.writer(event))
            for event in subscription.emits
        }
        borders[subscription.event_type] = _Border(agent, subscription, contracts, outputs)
    return borders


class Steps:
    """Runs the steps of one agent. Safe to call from many tasks at once."""

    def __init__(
        self,
        agent: str,
        borders: Mapping[str, _Border],
        memberships: Memberships,
        tracing: Tracing,
        now: Callable[[], float],
        backoff: Backoff,
        home: Path,
    ) -> None:
        """`now` gives seconds since the epoch."""
        self._agent = agent
        self._borders = borders
        self._memberships = memberships
        self._records = JournalRecords(f"/agents/{agent}")
        self._tracing = tracing
        self._now = now
        self._backoff = backoff
        self._home = home
        self._log = logging.getLogger(f"maypole.agents.{agent}")

    async def run(self, work: Work, guard: Guard) -> None:
        """Take one delivery to its end and leave in `work` what is to be written because of it."""
        delivery = work.delivery
        border = self._borders[delivery.topic]
        try:
            envelope = read_envelope(delivery.headers)
        except Undecodable as error:
            self._unreadable(work, error)
            return
        step = step_id_of(envelope.flow_id, self._agent, border.subscription.name, envelope.event_id)
        queued_ms = self._now() * 1000 - delivery.timestamp_ms
        work.processing = self._tracing.processing(self._agent, delivery, envelope, step, queued_ms)
        membership: Membership | None = None
        try:
            if envelope.type != delivery.topic:
                raise ContractRefused(field=TYPE, value=envelope.type, rule=f"one event type per topic: {delivery.topic}")
            membership = self._memberships.known(envelope, border.subscription.name)
            if membership is None:
                membership = await self._memberships.of(envelope, border.subscription.name, delivery.value)
            if not membership.takes_part and border.subscription.kind.acts_outside:
                self._skipped(work, envelope, step)
                return
            event = await border.admit(delivery.value)
            emitted = await self._handled(work, border.subscription, event, envelope, step, guard)
            self._completed(work, border, envelope, membership, step, emitted)
        except Undecodable as error:
            self._failed(work, border.subscription, envelope, membership, step, Reason.UNDECODABLE, error)
        except ContractRefused as error:
            self._failed(work, border.subscription, envelope, membership, step, Reason.CONTRACT_REFUSED, error)
        except IdempotencyConflict as error:
            # The flow goes on with the root it started with: its journal says nothing of the intruder.
            self._failed(work, border.subscription, envelope, None, step, Reason.IDEMPOTENCY_CONFLICT, error)
        except UnknownChoreography as error:
            self._failed(work, border.subscription, envelope, membership, step, Reason.UNKNOWN_FLOW, error)
        except Reject as error:
            self._failed(work, border.subscription, envelope, membership, step, Reason.REJECTED, error)
        except _Exhausted as error:
            self._failed(work, border.subscription, envelope, membership, step, Reason.ATTEMPTS_EXHAUSTED, error)

    async def _handled(
        self, work: Work, subscription: Subscription, event: object, envelope: Envelope, step: StepId, guard: Guard
    ) -> Sequence[Event]:
        """Call the handler until it returns, refuses, or has failed as often as it may."""
        processing = work.processing
        assert processing is not None
        while True:
            work.attempts += 1
            context = self._context(envelope, step, work) if subscription.wants_context else None
            guard.arm(subscription.timeout_seconds)
            try:
                with processing.handling():
                    returned = await _call(subscription, event, context)
                if not guard.expired:
                    return _sequence(returned)
                failure: Exception = TimeoutError(f"{self._agent} took longer than {subscription.timeout_seconds:g} s")
            except asyncio.CancelledError:
                if not guard.expired:
                    raise
                failure = TimeoutError(f"{self._agent} took longer than {subscription.timeout_seconds:g} s")
            except (Reject, ContractRefused):
                raise
            except Exception as error:  # noqa: BLE001 - the one border where any failure of a handler is an attempt that failed
                failure = error
            finally:
                guard.disarm()
            last = work.attempts >= subscription.attempts_max
            log.warning(
                "step.attempt_failed",
                exc_info=failure if last else None,
                extra={
                    "agent": self._agent,
                    "flow_id": envelope.flow_id,
                    "step_id": step,
                    "attempt": work.attempts,
                    "error": repr(failure),
                },
            )
            processing.attempt_failed(work.attempts, failure, last=last)
            if last:
                raise _Exhausted(f"{type(failure).__name__}: {failure}") from failure
            await self._backoff(work.attempts)

    def _context(self, envelope: Envelope, step: StepId, work: Work) -> Context:
        fields = {"agent": self._agent, "flow_id": envelope.flow_id, "step_id": step, "attempt": work.attempts}
        return Context(
            agent=self._agent,
            flow_id=envelope.flow_id,
            step_id=step,
            event_id=envelope.event_id,
            attempt=work.attempts,
            business_key=envelope.business_key,
            triggered_at_ms=work.delivery.timestamp_ms,
            home=self._home,
            logger=logging.LoggerAdapter(self._log, fields),
        )

    def _completed(
        self, work: Work, border: _Border, envelope: Envelope, membership: Membership, step: StepId, emitted: Sequence[Event]
    ) -> None:
        processing = work.processing
        assert processing is not None
        pure = border.subscription.kind is Kind.PURE
        flow = envelope.flow_id.encode()
        common = lineage(
            flow_id=flow,
            # Only a repetition that is told to be the same gets the same time.
            time=rfc3339(work.delivery.timestamp_ms if pure else self._now() * 1000).encode(),
            state_version=envelope.state_version + 1,
            choreography=membership.choreography,
            causation_id=envelope.event_id.encode(),
            business_key=envelope.business_key,
            observer=not membership.takes_part,
        )
        produced, records, sendings = [], [], []
        for index, event in enumerate(emitted):
            output = border.outputs.get(type(event))
            if output is None:
                expected = ", ".join(kind.__name__ for kind in border.outputs) or "nothing"
                raise ContractRefused(
                    field="return", value=type(event).__name__, rule=f"one of the events that {self._agent} declares: {expected}"
                )
            value = output.writer.encode(event)
            if len(value) > VALUE_BYTES_MAX:
                raise ContractRefused(field=output.topic, value=f"{len(value)} bytes", rule=f"at most {VALUE_BYTES_MAX} bytes")
            event_id = output_event_id(step, output.topic, index)
            sending = processing.sending(output.topic, event_id, envelope.flow_id, envelope.event_id)
            headers = output.stamp.headers(event_id, sending.traceparent, sending.tracestate, common)
            produced.append((event_id, output.topic, digest_of(value)))
            records.append(Record(output.topic, flow, value, headers))
            sendings.append(sending)
        work.outputs = records
        work.sendings = sendings
        if membership.takes_part:
            completed = border.completion.value(step, (envelope.event_id,), produced)
            work.journal = self._records.written(
                StepCompleted, completed, step, flow, processing.traceparent, processing.tracestate, common
            )

    def _failed(
        self,
        work: Work,
        subscription: Subscription,
        envelope: Envelope,
        membership: Membership | None,
        step: StepId,
        reason: Reason,
        error: Exception,
    ) -> None:
        processing = work.processing
        assert processing is not None
        now_ms = self._now() * 1000
        detail = str(error)[:_DETAIL_LENGTH_MAX]
        if membership is not None and membership.takes_part:
            body = StepFailed(
                step_id=step,
                agent=self._agent,
                subscription=subscription.name,
                parents=(envelope.event_id,),
                reason=reason.value,
                detail=detail,
                attempts=work.attempts,
                # Once a handler with outside effects was called, nobody can say that it changed nothing.
                effect=Effect.UNKNOWN if subscription.kind.acts_outside and work.attempts else Effect.NONE,
            )
            flow = envelope.flow_id.encode()
            common = lineage(
                flow_id=flow,
                time=rfc3339(now_ms).encode(),
                state_version=envelope.state_version + 1,
                choreography=membership.choreography,
                causation_id=envelope.event_id.encode(),
                business_key=envelope.business_key,
            )
            work.journal = self._records.record(body, step, flow, processing.traceparent, processing.tracestate, common)
        self._bury(work, reason, detail, now_ms, flow_id=envelope.flow_id, event_id=envelope.event_id, step_id=step)

    def _unreadable(self, work: Work, error: Undecodable) -> None:
        self._bury(work, Reason.UNDECODABLE, str(error), self._now() * 1000)

    def _bury(self, work: Work, reason: Reason, detail: str, now_ms: float, **ids: str) -> None:
        delivery = work.delivery
        work.outputs = [dead_letter(self._agent, delivery, reason, detail, work.attempts, now_ms)]
        work.sendings = [UNOBSERVED]
        work.outcome = "dead_letter"
        work.detail = f"{reason.value}: {detail}"
        position = {"topic": delivery.topic, "partition": delivery.partition, "offset": delivery.offset}
        log.error("step.dead_lettered", extra={"agent": self._agent, "reason": reason.value, "error": detail, **position, **ids})

    def _skipped(self, work: Work, envelope: Envelope, step: StepId) -> None:
        log.warning(
            "step.observation_skipped",
            extra={
                "agent": self._agent, "flow_id": envelope.flow_id, "event_id": envelope.event_id, "step_id": step,
                "why": "the flow was pinned before this agent took part, and this subscription acts on the outside",
            },
        )  # fmt: skip


class _Exhausted(Exception):
    """Every attempt failed; the text is that of the last failure."""


def _call(subscription: Subscription, event: object, context: Context | None) -> Awaitable[object]:
    arguments = (event,) if context is None else (event, context)
    if subscription.is_async:
        return subscription.handler(*arguments)  # type: ignore[return-value]  # a coroutine function
    # A plain function may block; a thread keeps the other flows going.
    return asyncio.to_thread(subscription.handler, *arguments)


def _sequence(returned: object) -> Sequence[Event]:
    if returned is None:
        return ()
    if isinstance(returned, (list, tuple)):
        return returned
    return (returned,)  # type: ignore[return-value]  # what it really is, is checked against the declaration
