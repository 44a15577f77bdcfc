"""Driving the observer as the bus does, and reading back the spans it recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from maypole.bus.hook import Tracing
from maypole.bus.ports import Delivery
from maypole.schemas.envelope import Envelope
from maypole.schemas.identifiers import EventId, FlowId
from maypole.tracing.destination import Destination
from maypole.tracing.opening import open_service

FLOW = FlowId("0f2b8c1e-8e0a-4c55-9f5f-3a8a7c1d2e4b")
HERE = Destination(("kept",), None, "this process")


class Kept(SpanExporter):
    """Keeps what is exported. Complete once the service is closed."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS

    def named(self, name: str) -> ReadableSpan:
        (found,) = self.all_named(name)
        return found

    def all_named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def recording(kept: Kept, service: str = "analysis", version: str = "3") -> Iterator[Tracing]:
    with open_service(HERE, service, version, lambda: [kept]) as tracing:
        yield tracing


def envelope(**changes: Any) -> Envelope:
    usual = Envelope(
        event_id=EventId("event-1"),
        type="research.completed",
        flow_id=FLOW,
        state_version=2,
        choreography="c0ffee",
        causation_id="event-0",
        observer=False,
        business_key="order-7",
        traceparent=None,
        tracestate=None,
        time=None,
        source="/agents/research",
        idempotency_key="event-1",
    )
    return usual._replace(**changes)


def delivery(**changes: Any) -> Delivery:
    usual = Delivery("research.completed", 2, 41, 1_700_000_000_000, FLOW.encode(), b"", [])
    return usual._replace(**changes)


def hexadecimal(span: ReadableSpan) -> tuple[str, str]:
    """Trace id and span id as they are written in headers."""
    context = span.context
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})
