"""The bus's hook on the OpenTelemetry SDK: one flow, one trace, in whatever processes its parts run.

The messaging conventions make links the default between producer and consumer and allow the message's context as
parent where each message is processed by itself. That is so here: with links alone a flow would be many traces.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from maypole.bus.hook import Processing, Sender, Sending
from maypole.bus.ports import Delivery
from maypole.schemas.envelope import Envelope
from maypole.schemas.identifiers import EventId, FlowId, root_span_id_of, trace_id_of
from maypole.tracing import attributes as name
from maypole.tracing.compensate import compensate_spans
from maypole.tracing.process import process_spans
from maypole.tracing.send import begin_send
from maypole.tracing.service import Service
from maypole.tracing.trace_context import read_trace_context, write_traceparent, write_tracestate
from maypole.tracing.watch import Watch


class SdkTracing:
    """Records every span of one service through the SDK. Safe to use from many tasks and threads."""

    observes = True

    def __init__(self, service: Service, watch: Watch) -> None:
        self._service = service
        self._watch = watch

    def started(self, flow_id: FlowId, event_type: str, business_key: str | None, foreign: str | None) -> Sender:
        """The root is ended at once, so that a flow that never ends orphans nothing."""
        about = {name.FLOW_ID: flow_id, name.FLOW_TYPE: event_type, name.CONVERSATION_ID: flow_id}
        if business_key is not None:
            about[name.BUSINESS_KEY] = business_key
        links = []
        ambient = trace.get_current_span().get_span_context()
        if ambient.is_valid:
            links.append(Link(ambient, {name.LINK: name.LINK_AMBIENT}))
        theirs = read_trace_context(foreign)
        if theirs is not None:
            links.append(Link(theirs, {name.LINK: name.LINK_FOREIGN}))
        ids = self._service.ids
        ids.derive(flow_id)
        try:
            span = self._service.tracer.start_span(f"{name.START} {event_type}", Context(), SpanKind.INTERNAL, about, links)
        finally:
            ids.forget()
        span.end()
        return _Root(self._service, span.get_span_context(), business_key)

    def processing(
        self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float, beside: Sequence[str] = ()
    ) -> Processing:
        parent = set_span_in_context(NonRecordingSpan(self._parent(envelope)), Context())
        others = [context for each in beside if (context := read_trace_context(each)) is not None]
        return process_spans(self._service, self._watch, parent, agent, delivery, envelope, step_id, queued_ms, others)

    def compensating(self, agent: str, command: Envelope, step_id: str, undone: str | None) -> Processing:
        parent = set_span_in_context(NonRecordingSpan(self._parent(command)), Context())
        return compensate_spans(self._service, self._watch, parent, agent, command, step_id, read_trace_context(undone))

    def _parent(self, envelope: Envelope) -> SpanContext:
        """The span that the record names, if it is one of this flow's; the root for what a foreign client sent."""
        found = read_trace_context(envelope.traceparent, envelope.tracestate)
        trace_id = int(trace_id_of(envelope.flow_id), 16)
        if found is not None and found.trace_id == trace_id:
            return found
        span_id = int(root_span_id_of(envelope.flow_id), 16)
        # The root may not be made yet, or by another process: every one comes to the same verdict, which is why it
        # is asked for here without a parent, as for the root itself.
        verdict = self._service.provider.sampler.should_sample(Context(), trace_id, f"{name.START} {envelope.type}", SpanKind.INTERNAL)
        sampled = TraceFlags.SAMPLED if verdict.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(sampled))


class _Root:
    """The `start` span as the parent of what starts the flow."""

    def __init__(self, service: Service, context: SpanContext, business_key: str | None) -> None:
        self._service = service
        self._context = set_span_in_context(NonRecordingSpan(context), Context())
        self._lineage: dict[str, str | int] = {name.STATE_VERSION: 1}
        if business_key is not None:
            self._lineage[name.BUSINESS_KEY] = business_key
        self.traceparent = write_traceparent(context)
        self.tracestate = write_tracestate(context)

    def sending(self, topic: str, event_id: EventId, flow_id: FlowId, causation_id: str | None) -> Sending:
        return begin_send(self._service, self._context, topic, event_id, flow_id, causation_id, self._lineage)
