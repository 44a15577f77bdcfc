"""The spans of one piece of work, one for each attempt at it: siblings, each linked to the attempt before.

The first begins when the work is taken up, the last ends with it.
"""

from __future__ import annotations

import time
import traceback
from contextlib import AbstractContextManager
from contextvars import Token
from types import TracebackType
from typing import Final

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, set_span_in_context

from maypole.bus.hook import Outcome, Sending
from maypole.schemas.identifiers import EventId, FlowId
from maypole.tracing import attributes as name
from maypole.tracing.send import begin_send
from maypole.tracing.service import Service
from maypole.tracing.text import shortened
from maypole.tracing.trace_context import write_traceparent, write_tracestate
from maypole.tracing.user_spans import SERVICE
from maypole.tracing.watch import Watch

_LINKED_BEFORE: Final = {name.LINK: name.LINK_ATTEMPT}


class AttemptSpans:
    """Also the context manager around its handler, and what the watch notices: one object a delivery, made in a hot place."""

    __slots__ = (
        "_about",
        "_attempt",
        "_before",
        "_context",
        "_kind",
        "_lineage",
        "_links",
        "_moves",
        "_named",
        "_parent",
        "_service",
        "_span",
        "_token",
        "_watch",
        "traceparent",
        "tracestate",
    )

    def __init__(
        self,
        service: Service,
        watch: Watch,
        parent: Context,
        named: str,
        kind: SpanKind,
        about: dict[str, str | int],
        lineage: dict[str, str | int],
        links: tuple[Link, ...] = (),
    ) -> None:
        """`about` must tell flow and step; `lineage` is for what it sends."""
        self._service = service
        self._watch = watch
        self._parent = parent
        self._named = named
        self._kind = kind
        self._about = about
        self._lineage = lineage
        self._links = links
        self._before: SpanContext | None = None
        self._token: Token[Context] | None = None
        self._moves: list[dict[str, str]] = []
        """What became of breakers between two attempts."""

    def begin(self, attempt: int, extra: dict[str, int]) -> None:
        self._attempt = attempt
        links = self._links if self._before is None else (*self._links, Link(self._before, _LINKED_BEFORE))
        about = {**self._about, name.DELIVERY_ATTEMPT: attempt, **extra}
        span = self._service.tracer.start_span(self._named, self._parent, self._kind, about, links)
        self._span: Span | None = span
        while self._moves:
            self._moved(span, self._moves.pop(0))
        self._context = set_span_in_context(span, _in_service(self._service))
        context = span.get_span_context()
        self.traceparent = write_traceparent(context)
        self.tracestate = write_tracestate(context)

    def sending(self, topic: str, event_id: EventId, flow_id: FlowId, causation_id: str | None) -> Sending:
        return begin_send(self._service, self._context, topic, event_id, flow_id, causation_id, self._lineage)

    # -- around the handler -------------------------------------------------------------------------------------

    def handling(self) -> AbstractContextManager[None]:
        if self._span is None and self._before is not None:
            self.begin(self._attempt + 1, {})
        return self

    def __enter__(self) -> None:
        self._token = contexts.attach(self._context)
        self._watch.began(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._watch.ended(self)
        if self._token is not None:
            contexts.detach(self._token)
            self._token = None

    def noticed(self) -> None:
        """The handler takes long: leave a sign of it that is exported now, whatever becomes of this process."""
        now = time.time_ns()
        about = {name.INSTANCE: self._service.instance, name.FLOW_ID: self._about[name.FLOW_ID], name.STEP_ID: self._about[name.STEP_ID]}
        self._service.tracer.start_span(name.IN_PROGRESS, self._context, attributes=about, start_time=now).end(now)

    # -- ends ---------------------------------------------------------------------------------------------------

    def attempt_failed(self, attempt: int, error: BaseException, *, last: bool) -> None:
        span = self._span
        if span is None:
            return
        kind = type(error)
        message = shortened(str(error))
        if span.is_recording():
            # Not the SDK's `record_exception`: text that cannot be encoded would cost the whole batch.
            trace_of_it = shortened("".join(traceback.format_exception(error)))
            about = {
                name.EXCEPTION_TYPE: f"{kind.__module__}.{kind.__qualname__}",
                name.EXCEPTION_MESSAGE: message,
                name.EXCEPTION_STACKTRACE: trace_of_it,
            }
            span.add_event(name.EXCEPTION, about)
        span.set_attribute(name.ERROR_TYPE, kind.__qualname__)
        span.set_status(StatusCode.ERROR, f"{kind.__qualname__}: {message}")
        if not last:
            span.add_event(name.RETRY_SCHEDULED, {name.DELIVERY_ATTEMPT: attempt})
            span.set_attribute(name.OUTCOME, name.OUTCOME_RETRY)
            span.end()
            self._attempt = attempt
            self._before = span.get_span_context()
            self._span = None

    def held(self, because: str) -> None:
        span = self._span
        if span is not None:
            span.set_attributes({name.OUTCOME: name.OUTCOME_RETRY, name.OUTCOME_DETAIL: shortened(because)})
            span.end()
            self._attempt -= 1
            self._before = span.get_span_context()
            self._span = None

    def breaker_moved(self, state: str, breaker: str, because: str) -> None:
        about = {name.BREAKER: breaker, name.BREAKER_STATE: state, name.BREAKER_BECAUSE: shortened(because)}
        if self._span is None:
            self._moves.append(about)
        else:
            self._moved(self._span, about)

    def _moved(self, span: Span, about: dict[str, str]) -> None:
        span.add_event(name.BREAKER_EVENT + about[name.BREAKER_STATE], dict(about))
        span.set_attributes(dict(about))

    def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None:
        span = self._span
        if span is None:
            return  # given up while it waited for its next attempt, or already ended
        self._span = None
        span.set_attribute(name.OUTCOME, outcome)
        if detail is not None:
            span.set_attribute(name.OUTCOME_DETAIL, shortened(detail))
        if outcome == "dead_letter":
            span.add_event(name.DEAD_LETTERED, {name.OUTCOME_DETAIL: shortened(detail or "")})
            span.set_status(StatusCode.ERROR, shortened(detail or outcome))
        span.end()


def _in_service(service: Service) -> Context:
    return Context({SERVICE: service})
