"""`process {topic}`: one delivery, from when it is taken up until everything it led to is acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind

from maypole.bus.ports import Delivery
from maypole.schemas.envelope import Envelope
from maypole.tracing import attributes as name
from maypole.tracing.attempt_spans import AttemptSpans
from maypole.tracing.service import Service
from maypole.tracing.watch import Watch

_LINKED_BESIDE: Final = {name.LINK: name.LINK_PART}


def process_spans(
    service: Service,
    watch: Watch,
    parent: Context,
    agent: str,
    delivery: Delivery,
    envelope: Envelope,
    step_id: str,
    queued_ms: float,
    others: Sequence[SpanContext] = (),
) -> AttemptSpans:
    """Siblings under the `send` that the record names, linked to those of a join's other parts."""
    about: dict[str, str | int] = {
        name.SYSTEM: name.KAFKA,
        name.OPERATION_NAME: name.PROCESS,
        name.OPERATION_TYPE: name.PROCESS,
        name.DESTINATION: delivery.topic,
        name.PARTITION: str(delivery.partition),
        name.OFFSET: delivery.offset,
        name.CONSUMER_GROUP: agent,
        name.MESSAGE_ID: envelope.event_id,
        name.CONVERSATION_ID: envelope.flow_id,
        name.FLOW_ID: envelope.flow_id,
        name.STEP_ID: step_id,
        name.STATE_VERSION: envelope.state_version,
    }
    lineage: dict[str, str | int] = {name.STEP_ID: step_id, name.STATE_VERSION: envelope.state_version + 1}
    if envelope.causation_id is not None:
        about[name.CAUSATION_ID] = envelope.causation_id
    if envelope.business_key is not None:
        about[name.BUSINESS_KEY] = lineage[name.BUSINESS_KEY] = envelope.business_key
    links = tuple([Link(other, _LINKED_BESIDE) for other in others])
    spans = AttemptSpans(service, watch, parent, f"{name.PROCESS} {delivery.topic}", SpanKind.CONSUMER, about, lineage, links)
    # Clocks differ between machines: what was queued for less than nothing was queued for nothing.
    spans.begin(1, {name.QUEUE_WAIT_MS: max(0, round(queued_ms))})
    return spans
