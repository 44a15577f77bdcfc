"""What the journal is told in answer to a command: always what the step's row says, so any instance can tell it, any time.

Outputs are not published again: they are the duty of the delivery, whose offset is not committed before they have left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from maypole.bus.command_reading import Order
from maypole.bus.dead_letters import Reason
from maypole.bus.journal import JournalRecords
from maypole.bus.ledger.outcome import OutcomeUnreadable, decode_records
from maypole.bus.ledger.port import Row
from maypole.bus.ledger.step import State
from maypole.bus.ports import Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.identifiers import EventId, root_traceparent
from maypole.schemas.journal import CompensationFailed, Effect, StepAbandoned, StepCompensated, StepFailed, StepFenced
from maypole.schemas.topics import JOURNAL

_DETAIL_LENGTH_MAX: Final = 2000


class Untold(LookupError):
    """The row has an outcome and no words for the journal: the agent only observed the flow, or a later version wrote the row."""


class Answers:
    """Of one agent. `now` gives seconds since the epoch."""

    def __init__(self, agent: str, now: Callable[[], float]) -> None:
        self._agent = agent
        self._now = now
        self._records = JournalRecords(f"/agents/{agent}")
        self._failed = Reader(schema_of(StepFailed), StepFailed)

    def of(self, order: Order, row: Row) -> Record:
        """Raises `Untold`."""
        match row.step.state:
            case State.FENCED:
                return self._said(order, StepFenced(step_id=row.step_id, command_id=order.command, attempts=row.step.attempt))
            case State.ABANDONED:
                generation = row.step.generation
                return self._said(order, StepAbandoned(step_id=row.step_id, command_id=order.command, generation=generation))
            case State.COMPENSATED:
                return self._said(order, StepCompensated(step_id=row.step_id, command_id=order.command))
            case State.FAILED:
                return self._of_failure(order, row)
        return _recorded(row)

    def not_undone(self, order: Order, detail: str, *, retryable: bool) -> Record:
        # An error's text may hold half a surrogate pair, which no encoding takes.
        told = detail[:_DETAIL_LENGTH_MAX].encode(errors="replace").decode()
        body = CompensationFailed(step_id=order.step, command_id=order.command, retryable=retryable, detail=told)
        return self._said(order, body)

    def expired(self, order: Order, parents: tuple[EventId, ...], missing: Sequence[str]) -> Record:
        """Of a join whose parts did not come in time: `parents` are those that came, `missing` the types of the others."""
        detail = f"{', '.join(missing) or 'the parts of the join'} did not come in time"
        body = StepFailed(
            step_id=order.step, agent=self._agent, subscription=order.body.subscription, parents=parents, reason=Reason.EXPIRED.value,
            detail=detail, attempts=0, effect=Effect.NONE, generation=order.body.generation,
        )  # fmt: skip
        return self._said(order, body)

    def _of_failure(self, order: Order, row: Row) -> Record:
        """The recorded words, but for the generation: a fence may have raised it since."""
        recorded = _recorded(row)
        body = self._failed.decode(recorded.value or b"")
        if body.generation == row.step.generation:
            return recorded
        return self._said(order, body.model_copy(update={"generation": row.step.generation}))

    def _said(self, order: Order, body: Event) -> Record:
        envelope = order.envelope
        flow = envelope.flow_id.encode()
        common = lineage(
            flow_id=flow,
            time=rfc3339(self._now() * 1000).encode(),
            state_version=envelope.state_version + 1,
            choreography=envelope.choreography.encode(),
            causation_id=envelope.event_id.encode(),
            business_key=envelope.business_key,
        )
        traceparent = envelope.traceparent or root_traceparent(envelope.flow_id)
        return self._records.record(body, order.command, flow, traceparent, envelope.tracestate, common)


def _recorded(row: Row) -> Record:
    try:
        told = next((record for record in decode_records(row.outcome) if record.topic == JOURNAL), None) if row.outcome else None
    except OutcomeUnreadable as error:
        raise Untold(f"step {row.step_id} is {row.step.state}, and what it told the journal cannot be read: {error}") from error
    if told is None:
        raise Untold(f"step {row.step_id} is {row.step.state}, and it told the journal nothing: the agent only observed its flow")
    return told
