"""From what a handler decided to the records that say so: outputs and `StepCompleted`, or `StepFailed` and a dead letter.

A group is concluded stage by stage, for the same reason as it is admitted so (`admission.py`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from maypole.bus.completion import CompletionTemplate
from maypole.bus.contracts import Contracts
from maypole.bus.dead_letters import Reason, dead_letter, fitting
from maypole.bus.hook import UNOBSERVED, Sending
from maypole.bus.journal import JournalRecords
from maypole.bus.membership import Membership
from maypole.bus.ports import Record
from maypole.bus.subscription import Kind, Subscription
from maypole.bus.work import Failure, Work
from maypole.schemas.codec import Writer
from maypole.schemas.envelope import DEGRADED, INHERITED, Envelope, Stamp, lineage, rfc3339
from maypole.schemas.errors import ContractRefused
from maypole.schemas.event import Event
from maypole.schemas.identifiers import digest_of, output_event_id
from maypole.schemas.journal import Effect, StepCompleted, StepFailed

log = logging.getLogger("maypole.bus.conclusion")

_DETAIL_LENGTH_MAX: Final = 2000
_new: Final = tuple.__new__  # skips the generated constructor, once per record


@dataclass(frozen=True, slots=True)
class _Output:
    topic: str
    stamp: Stamp
    writer: Writer[Any]
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Form:
    """What is the same for every step of a subscription, made once."""

    subscription: Subscription
    outputs: Mapping[type[Event], _Output]
    completion: CompletionTemplate


async def open_forms(
    agent: str, subscriptions: Sequence[Subscription], contracts: Contracts, sizes: Mapping[str, int]
) -> Mapping[str, Form]:
    """By event type; a join has one form for all of its. Registers the schemas of the outputs where there is a registry.

    `sizes`: how many bytes a value may have, by topic.
    """
    forms: dict[str, Form] = {}
    for subscription in subscriptions:
        outputs = {
            event: _Output(
                event.event_type, Stamp(event.event_type, f"/agents/{agent}"), await contracts.writer(event), sizes[event.event_type]
            )
            for event in subscription.emits
        }
        effect = Effect.APPLIED if subscription.kind.acts_outside else Effect.NONE
        form = Form(subscription, outputs, CompletionTemplate(agent, subscription.name, effect))
        forms.update(dict.fromkeys(subscription.event_types, form))
    return forms


class _Draft:
    """One step that is being written down: `values` are its outputs, encoded."""

    __slots__ = ("common", "envelope", "flow", "form", "ids", "membership", "processing", "values", "work")

    def __init__(self, work: Work, form: Form, values: Sequence[tuple[_Output, bytes]], now: bytes) -> None:
        envelope, membership, processing = work.envelope, work.membership, work.processing
        assert envelope is not None
        assert membership is not None
        assert processing is not None
        self.work = work
        self.form = form
        self.values = values
        self.membership = membership
        self.processing = processing
        self.envelope = envelope
        self.flow = flow = envelope.flow_id.encode()
        step = work.step
        self.ids = [output_event_id(step, output.topic, index) for index, (output, _) in enumerate(values)]
        self.common = lineage(
            flow_id=flow,
            # Only a repetition that is told to be the same gets the same time.
            time=rfc3339(work.delivery.timestamp_ms).encode() if form.subscription.kind is Kind.PURE else now,
            state_version=envelope.state_version + 1,
            choreography=membership.choreography,
            causation_id=envelope.event_id.encode(),
            business_key=envelope.business_key,
            observer=not membership.takes_part,
        )
        if work.served is not None:
            self.common += work.served.marks
        elif envelope.degraded or (work.joined is not None and work.joined.degraded):
            self.common.append((DEGRADED, INHERITED))


class Conclusion:
    """Writes down the steps of one agent."""

    def __init__(
        self, agent: str, forms: Mapping[str, Form], now: Callable[[], float], journal_bytes_max: int, letter_bytes_max: int
    ) -> None:
        """`now` gives seconds since the epoch; `journal_bytes_max` is what the value of a journal record may have, `letter_bytes_max`
        what a whole dead letter may."""
        self._letter_bytes_max = letter_bytes_max
        self._journal_bytes_max = journal_bytes_max
        self._agent = agent
        self._forms = forms
        self._now = now
        self._records = JournalRecords(f"/agents/{agent}")
        self.dead_lettered: Counter[Reason] = Counter()
        """How many since the start, by reason: a record whose flow cannot be read is told nowhere else but in the dead letters."""

    def conclude(self, works: Sequence[Work]) -> None:
        """Leaves in each work what is to be written because of it."""
        encoded = [
            (work, values) for work in works if work.failure is None and not work.settled and (values := self._values(work)) is not None
        ]
        now = rfc3339(self._now() * 1000).encode()
        drafts = [_Draft(work, self._forms[work.delivery.topic], values, now) for work, values in encoded]
        for draft in drafts:
            self._write_outputs(draft)
        journaled = [draft for draft in drafts if draft.membership.takes_part]
        completed = [self._completed(draft) for draft in journaled]
        for draft, value in zip(journaled, completed, strict=True):
            work, processing = draft.work, draft.processing
            if len(value) > self._journal_bytes_max:
                rule = f"so few events that their journal record of {len(value)} bytes has at most {self._journal_bytes_max}"
                refused = ContractRefused(field="return", value=f"{len(draft.values)} events", rule=rule)
                work.failure = Failure(Reason.CONTRACT_REFUSED, refused)
                continue
            work.journal = self._records.written(
                StepCompleted, value, work.step, draft.flow, processing.traceparent, processing.tracestate, draft.common
            )
        for work in works:
            if work.failure is not None:
                self._bury(work, work.failure)

    def _values(self, work: Work) -> list[tuple[_Output, bytes]] | None:
        """The step's outputs, encoded; None when that fails, which is a failure of the step."""
        form = self._forms[work.delivery.topic]
        try:
            return [self._encoded(form, event) for event in work.emitted]
        except ContractRefused as error:
            work.failure = Failure(Reason.CONTRACT_REFUSED, error)
            return None

    def _encoded(self, form: Form, event: Event) -> tuple[_Output, bytes]:
        output = form.outputs.get(type(event))
        if output is None:
            expected = ", ".join(kind.__name__ for kind in form.outputs) or "nothing"
            rule = f"one of the events that {self._agent} declares: {expected}"
            raise ContractRefused(field="return", value=type(event).__name__, rule=rule)
        try:
            value = output.writer.encode(event)
        except Exception as error:  # an event made past its own checks can hold anything
            raise ContractRefused(field=output.topic, value=repr(event), rule=f"an event that can be encoded ({error})") from error
        if len(value) > output.bytes_max:
            raise ContractRefused(field=output.topic, value=f"{len(value)} bytes", rule=f"at most {output.bytes_max} bytes on this topic")
        return output, value

    def _write_outputs(self, draft: _Draft) -> None:
        envelope, common, flow, processing = draft.envelope, draft.common, draft.flow, draft.processing
        records: list[Record] = []
        sendings: list[Sending] = []
        for event_id, (output, value) in zip(draft.ids, draft.values, strict=True):
            sending = processing.sending(output.topic, event_id, envelope.flow_id, envelope.event_id)
            headers = output.stamp.headers(event_id, sending.traceparent, sending.tracestate, common)
            records.append(_new(Record, (output.topic, flow, value, headers)))
            sendings.append(sending)
        draft.work.outputs, draft.work.sendings = records, sendings

    def _completed(self, draft: _Draft) -> bytes:
        produced = [(event_id, output.topic, digest_of(value)) for event_id, (output, value) in zip(draft.ids, draft.values, strict=True)]
        parents = (draft.envelope.event_id,) if draft.work.joined is None else draft.work.joined.parents
        return draft.form.completion.value(draft.work.step, parents, produced)

    def _bury(self, work: Work, failure: Failure) -> None:
        delivery, envelope = work.delivery, work.envelope
        now_ms = self._now() * 1000
        # An error's text may hold half a surrogate pair, which no encoding takes.
        detail = str(failure.error)[:_DETAIL_LENGTH_MAX].encode(errors="replace").decode()
        self.dead_lettered[failure.reason] += 1
        # Of a part that was refused while others are awaited, the step has no name yet: it fails when they are there.
        if envelope is not None and work.step and work.membership is not None and work.membership.takes_part:
            work.journal = self._failed(work, envelope, work.membership, failure.reason, detail, now_ms)
        if failure.reason is not Reason.EXPIRED:
            letter = dead_letter(self._agent, delivery, failure.reason, detail, work.attempts, now_ms)
            work.outputs = [fitting(letter, self._letter_bytes_max)]
            work.sendings = [UNOBSERVED]
        work.outcome = "dead_letter"
        position = {"topic": delivery.topic, "partition": delivery.partition, "offset": delivery.offset}
        ids = {} if envelope is None else {"flow_id": envelope.flow_id, "event_id": envelope.event_id, "step_id": work.step}
        log.error("step.dead_lettered", extra={"agent": self._agent, "reason": failure.reason.value, "error": detail, **position, **ids})

    def _failed(self, work: Work, envelope: Envelope, membership: Membership, reason: Reason, detail: str, now_ms: float) -> Record:
        processing = work.processing
        assert processing is not None
        subscription = self._forms[work.delivery.topic].subscription
        generation = 1 if work.row is None else work.row.step.generation
        body = StepFailed(
            step_id=work.step,
            agent=self._agent,
            subscription=subscription.name,
            parents=work.parents,
            reason=reason.value,
            detail=detail,
            attempts=work.attempts,
            effect=work.effect,
            generation=generation,
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
        # Another chance that fails is another record.
        about = work.step if generation == 1 else f"{work.step}/{generation}"
        return self._records.record(body, about, flow, processing.traceparent, processing.tracestate, common)
