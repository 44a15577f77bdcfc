"""W3C trace context as OpenTelemetry's values. Source: W3C Trace Context, level 2."""

from __future__ import annotations

import re
from typing import Final

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_FLAGS_KNOWN: Final = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID
_LENGTH_MAX: Final = 512


def read_trace_context(traceparent: str | None, tracestate: str | None = None) -> SpanContext | None:
    """The remote span that the header names; None where it names none that can be used, whatever it holds."""
    if not traceparent or len(traceparent) > _LENGTH_MAX:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    # A later version may have more fields, this one may not; ff is forbidden for good.
    if version == "ff" or (more is not None and version == "00"):
        return None
    context = SpanContext(
        int(trace, 16),
        int(span, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & _FLAGS_KNOWN),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )
    return context if context.is_valid else None


def write_traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def write_tracestate(context: SpanContext) -> str | None:
    return context.trace_state.to_header() if context.trace_state else None
