"""One service as OpenTelemetry sees it: its resource, its ids, its tracer provider. An agent is a service, a publisher is one."""

from __future__ import annotations

import socket
from typing import Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer

from maypole.bus.instance import instance_id
from maypole.tracing import attributes as name
from maypole.tracing.flow_ids import FlowIds

SCOPE: Final = "maypole"
"""Instrumentation scope of the runtime's own spans."""


class Service:
    """Several may live in one process, each with a provider of its own, because a provider has one resource."""

    def __init__(self, service: str, version: str, export: SpanProcessor) -> None:
        self.name = service
        self.instance = instance_id()
        self.ids = FlowIds()
        # The SDK would end an export that other services still use, so its own end of process is not wanted. The
        # sampler is read from OTEL_TRACES_SAMPLER by the SDK.
        self.provider = TracerProvider(resource=_resource(service, version, self.instance), id_generator=self.ids, shutdown_on_exit=False)
        self.provider.add_span_processor(export)
        self.tracer: Tracer = self.provider.get_tracer(SCOPE, version)
        self.open = True
        """Whether spans of it still go anywhere."""


def _resource(service: str, version: str, instance: str) -> Resource:
    """What OTEL_RESOURCE_ATTRIBUTES says wins, but for the name: a service is its agent, and several share one environment."""
    ours = {name.SERVICE_INSTANCE: instance, name.SERVICE_VERSION: version, name.HOST_NAME: socket.gethostname()}
    return _HashedOnce.of(Resource.create(ours).merge(OTELResourceDetector().detect()).merge(Resource({name.SERVICE_NAME: service})))


class _HashedOnce(Resource):
    """The encoder groups spans by resource and would serialise the resource for its hash once a span."""

    @classmethod
    def of(cls, resource: Resource) -> Resource:
        made = cls(resource.attributes, resource.schema_url)
        made._hash = Resource.__hash__(made)
        return made

    _hash: int

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)
