"""FastStream as its documentation has it: a handler per record, pydantic, publishing by decorator; Avro by a decoder of one's own.

`NACK_ON_ERROR` commits after the handler: its default commits before, which loses records. Variant `confluent` or `aiokafka`.
The count of an event ends when the next one begins, that is after its commit, so one record more than is counted must be there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from faststream import AckPolicy, FastStream

from tests.benchmarks.events import Plain, counted, encode, fields_of
from tests.benchmarks.order import Meter, Order, end_on_sigterm, leave, read_order


def main() -> None:
    order = read_order()
    end_on_sigterm()
    broker = _broker(order)
    meter = Meter(order)

    async def read(message: Any) -> dict[str, Any]:
        return fields_of(message.body)

    subscribe = broker.subscriber(
        order.source, group_id=order.group, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR, decoder=read
    )

    async def count(event: Plain) -> bytes:
        if order.events:
            if meter.running and meter.committed(1):
                leave()
            meter.begin()
        return encode(counted(event))

    subscribe(broker.publisher(order.target)(count))

    asyncio.run(FastStream(broker, logger=None).run())


def _broker(order: Order) -> Any:
    common: dict[str, Any] = {"acks": "all", "enable_idempotence": True, "logger": None, "log_level": logging.ERROR}
    middlewares: list[Any] = []
    if order.variant == "confluent":
        from faststream.confluent import KafkaBroker as Confluent
        from faststream.confluent.opentelemetry import KafkaTelemetryMiddleware as ConfluentTelemetry

        if order.tracing == "sdk":
            middlewares = [ConfluentTelemetry(tracer_provider=_provider(order))]
        # Its poll loop would wait for the default linger of 5 ms beside everything else.
        return Confluent(order.kafka, middlewares=middlewares, allow_auto_create_topics=False, linger_ms=0, **common)
    from faststream.kafka import KafkaBroker as Aiokafka
    from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware as AiokafkaTelemetry

    if order.tracing == "sdk":
        middlewares = [AiokafkaTelemetry(tracer_provider=_provider(order))]
    return Aiokafka(order.kafka, middlewares=middlewares, **common)


def _provider(order: Order) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": order.group}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{order.otlp}/v1/traces")))
    return provider


if __name__ == "__main__":
    main()
