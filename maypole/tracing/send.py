"""`send {topic}`: one record on its way to the broker, until it is acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from maypole.bus.ports import Receipt
from maypole.schemas.identifiers import EventId, FlowId
from maypole.tracing import attributes as name
from maypole.tracing.service import Service
from maypole.tracing.text import shortened
from maypole.tracing.trace_context import write_traceparent, write_tracestate


class SendSpan:
    """Never ended when its record was taken back before it left: what did not happen is not shown."""

    __slots__ = ("_span", "traceparent", "tracestate")

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        self._span = span
        self.traceparent = write_traceparent(context)
        self.tracestate = write_tracestate(context)

    def acknowledged(self, receipt: Receipt) -> None:
        span = self._span
        if receipt.offset >= 0:
            span.set_attributes({name.PARTITION: str(receipt.partition), name.OFFSET: receipt.offset})
        else:
            span.set_attribute(name.PARTITION, str(receipt.partition))
        span.end()

    def failed(self, reason: str) -> None:
        span = self._span
        span.set_status(StatusCode.ERROR, shortened(reason))
        span.end()


def begin_send(
    service: Service,
    parent: Context,
    topic: str,
    event_id: EventId,
    flow_id: FlowId,
    causation_id: str | None,
    lineage: Mapping[str, str | int],
) -> SendSpan:
    """`lineage` is what the sender knows of all it sends."""
    about: dict[str, str | int] = {
        **_constant(topic),
        name.MESSAGE_ID: event_id,
        name.CONVERSATION_ID: flow_id,
        name.FLOW_ID: flow_id,
        **lineage,
    }
    if causation_id is not None:
        about[name.CAUSATION_ID] = causation_id
    return SendSpan(service.tracer.start_span(f"{name.SEND} {topic}", parent, SpanKind.PRODUCER, about))


@lru_cache(maxsize=256)
def _constant(topic: str) -> Mapping[str, str]:
    return {name.SYSTEM: name.KAFKA, name.OPERATION_NAME: name.SEND, name.OPERATION_TYPE: name.SEND, name.DESTINATION: topic}
