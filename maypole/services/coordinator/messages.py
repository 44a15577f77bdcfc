"""What the coordinator writes: commands, deadlines that passed, ends. The same cause gives the same bytes, whoever writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from maypole.bus.journal import JournalRecords
from maypole.bus.ports import Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.commands import COMMANDS, Compensate, Expire, Fence, Retry, StepCommand
from maypole.schemas.envelope import Lineage, Stamp, lineage, rfc3339
from maypole.schemas.identifiers import FlowId, root_traceparent
from maypole.schemas.journal import DeadlineFired, FlowEnded
from maypole.schemas.topics import FLOW_ENDED, command_topic
from maypole.services.coordinator.naming import SOURCE
from maypole.services.saga import Ask, Command, Deadline, Saga

_KINDS: Final[dict[Ask, type[StepCommand]]] = {
    Ask.FENCE: Fence,
    Ask.COMPENSATE: Compensate,
    Ask.EXPIRE: Expire,
    Ask.RETRY: Retry,
}


class Messages:
    def __init__(self) -> None:
        self._journal = JournalRecords(SOURCE)
        self._forms = {form: (Stamp(form.event_type, SOURCE), Writer(form, schema_of(form).derived_id)) for form in COMMANDS}

    def command(self, command: Command, saga: Saga, subject: str | None, traceparent: str) -> Record:
        form = _KINDS[command.kind]
        stamp, writer = self._forms[form]
        body = form(step_id=command.step_id, subscription=command.subscription, generation=command.generation)
        headers = stamp.headers(command.id, traceparent, None, _lineage(saga, subject, command.since_ms))
        return Record(command_topic(command.agent), command.flow_id.encode(), writer.encode(body), headers)

    def deadline_fired(self, deadline: Deadline, saga: Saga, subject: str | None) -> Record:
        body = DeadlineFired(scope=deadline.scope, due=datetime.fromtimestamp(deadline.due_ms / 1000, UTC))
        return self._journaled(body, deadline.scope, saga, subject, deadline.due_ms)

    def ended(self, saga: Saga, subject: str | None, reason: str, ended_ms: int) -> tuple[Record, Record]:
        """For whoever reacts to ends, and for the journal. The end of a flow in one state is one event, however often it is told."""
        state = saga.state.value
        record = self._journaled(FlowEnded(state=state, reason=reason), f"{saga.flow_id}/{state}", saga, subject, ended_ms)
        return record._replace(topic=FLOW_ENDED), record

    def _journaled(self, body: DeadlineFired | FlowEnded, about: str, saga: Saga, subject: str | None, at_ms: int) -> Record:
        flow: FlowId = saga.flow_id
        return self._journal.record(body, about, flow.encode(), root_traceparent(flow), None, _lineage(saga, subject, at_ms))


def _lineage(saga: Saga, subject: str | None, at_ms: int) -> Lineage:
    assert saga.choreography is not None, "nothing is said of a flow that nobody has started"
    return lineage(
        flow_id=saga.flow_id.encode(),
        time=rfc3339(at_ms).encode(),
        state_version=1,
        choreography=saga.choreography.hash.encode(),
        business_key=subject,
    )
