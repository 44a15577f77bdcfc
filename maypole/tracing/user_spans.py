"""Where spans go that a handler makes by itself, with `trace.get_tracer(__name__)`.

OpenTelemetry has one global tracer provider, set once per process, while several agents may share a process, each a
service of its own. So what is set as global is a small provider that decides at the start of each span: the service whose
delivery is being handled, else the one that was opened first, else nobody. A program that has set a provider of its
own keeps it; its spans are then children of ours by context alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.context import Context, create_key, get_value
from opentelemetry.trace import NoOpTracer, ProxyTracerProvider, Span, Tracer, TracerProvider
from opentelemetry.util._decorator import _agnosticcontextmanager
from opentelemetry.util.types import Attributes

from maypole.tracing.service import Service

SERVICE: Final = create_key("maypole-service")
"""Under this key a context holds the service whose delivery is being handled."""

_NOBODY: Final = NoOpTracer()


class UserSpans(TracerProvider):
    def __init__(self) -> None:
        self._open: list[Service] = []

    def opened(self, service: Service) -> None:
        self._open.append(service)
        if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            trace.set_tracer_provider(self)

    def closed(self, service: Service) -> None:
        self._open.remove(service)

    def chosen(self, context: Context | None) -> Service | None:
        service = get_value(SERVICE, context)
        if isinstance(service, Service) and service.open:
            return service
        return next(iter(self._open), None)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        return _UserTracer(self, (instrumenting_module_name, instrumenting_library_version, schema_url, attributes))


class _UserTracer(Tracer):
    def __init__(self, spans: UserSpans, scope: tuple[str, str | None, str | None, Attributes]) -> None:
        self._spans = spans
        self._scope = scope
        self._tracers: WeakKeyDictionary[Service, Tracer] = WeakKeyDictionary()

    def start_span(self, name: str, context: Context | None = None, *args: Any, **named: Any) -> Span:
        return self._of(context).start_span(name, context, *args, **named)

    @_agnosticcontextmanager
    def start_as_current_span(self, name: str, context: Context | None = None, *args: Any, **named: Any) -> Iterator[Span]:
        # A generator and not a plain delegation: used as a decorator, it must decide anew at each call.
        with self._of(context).start_as_current_span(name, context, *args, **named) as span:
            yield span

    def _of(self, context: Context | None) -> Tracer:
        service = self._spans.chosen(context)
        if service is None:
            return _NOBODY
        tracer = self._tracers.get(service)
        if tracer is None:
            tracer = self._tracers[service] = service.provider.get_tracer(*self._scope)
        return tracer


USER_SPANS: Final = UserSpans()
"""The process's own: OpenTelemetry lets a global provider be set once."""
