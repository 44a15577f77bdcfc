"""`compensate {agent}`: an undo, from its first attempt until the step counts as undone, or nobody tries any more."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind

from maypole.schemas.envelope import Envelope
from maypole.tracing import attributes as name
from maypole.tracing.attempt_spans import AttemptSpans
from maypole.tracing.service import Service
from maypole.tracing.watch import Watch


def compensate_spans(
    service: Service, watch: Watch, parent: Context, agent: str, command: Envelope, step_id: str, undone: SpanContext | None
) -> AttemptSpans:
    """Children of the processing that the command names, linked to that of the step undone."""
    about: dict[str, str | int] = {
        name.AGENT: agent,
        name.COMMAND_ID: command.event_id,
        name.CONVERSATION_ID: command.flow_id,
        name.FLOW_ID: command.flow_id,
        name.STEP_ID: step_id,
    }
    if command.business_key is not None:
        about[name.BUSINESS_KEY] = command.business_key
    links = () if undone is None else (Link(undone, {name.LINK: name.LINK_UNDONE}),)
    spans = AttemptSpans(service, watch, parent, f"{name.COMPENSATE} {agent}", SpanKind.INTERNAL, about, {}, links)
    spans.begin(1, {})
    return spans
