"""The measure of everything: a bare confluent-kafka loop.

Batches of 500, idempotent producer, `acks=all`, Avro, pydantic, three headers, one flush and one commit a batch.
No journal, no derived ids, no order within flows, nothing that survives a poison record.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, Message, Producer

from tests.benchmarks.events import counted, decode, encode
from tests.benchmarks.order import Meter, Order, end_on_sigterm, leave, read_order

BATCH = 500
KEPT = ("ce_id", "ce_correlationid", "traceparent")


def main() -> None:
    order = read_order()
    end_on_sigterm()
    consumer = Consumer(
        {"bootstrap.servers": order.kafka, "group.id": order.group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([order.source])
    # Under load the linger fills batches; a lone record must not wait for company.
    linger_ms = 5 if order.events else 0
    producer = Producer(
        {
            "bootstrap.servers": order.kafka,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "partitioner": "murmur2_random",
        }
    )
    meter = Meter(order)
    fetch = _full_batches if order.events else _at_once
    while True:
        messages = fetch(consumer)
        if not messages:
            continue
        meter.begin()
        _handle(order, producer, messages)
        producer.flush()
        consumer.commit(asynchronous=False)
        if meter.committed(len(messages)):
            leave()


def _full_batches(consumer: Consumer) -> list[Message]:
    return consumer.consume(BATCH, 0.2)


def _at_once(consumer: Consumer) -> list[Message]:
    first = consumer.poll(0.2)
    return [] if first is None else [first, *consumer.consume(BATCH - 1, 0)]


def _handle(order: Order, producer: Producer, messages: list[Message]) -> None:
    for message in messages:
        headers: dict[str, Any] = dict(message.headers() or ())
        value = encode(counted(decode(message.value() or b"")))
        producer.produce(order.target, value, message.key(), headers=[(name, headers[name]) for name in KEPT])


if __name__ == "__main__":
    main()
