"""A bare at-least-once loop over confluent-kafka: handle, publish, flush, commit; the input's id is the idempotency key."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, Producer

from maypole.schemas.envelope import CORRELATION_ID, ID
from tests.torture.peers.order import child_headers, decode, encode, read_order, texts
from tests.torture.witness import call_now

BATCH = 50
SESSION_MS = 6000


def main() -> None:
    order = read_order()
    failpoint = order.failpoint
    consumer = Consumer(
        {
            "bootstrap.servers": order.kafka,
            "group.id": order.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_MS,
        }
    )
    consumer.subscribe([order.source])
    producer = Producer({"bootstrap.servers": order.kafka, "enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"})
    while True:
        messages = [message for message in consumer.consume(BATCH, 0.2) if message.error() is None]
        if not messages:
            continue
        failpoint.passing("fetched")
        for message in messages:
            failpoint.passing("handling")
            received: dict[str, Any] = dict(message.headers() or ())
            headers = texts(received)
            number = decode(message.value() or b"")
            call_now(order.witness, order.group, headers[ID], headers[ID])
            failpoint.passing("effected")
            made = child_headers(order.group, headers[CORRELATION_ID], headers[ID])
            producer.produce(order.target, encode(number), message.key(), headers=list(made.items()))
        failpoint.passing("handled")
        producer.flush()
        failpoint.passing("published")
        consumer.commit(asynchronous=False)
        failpoint.passing("committed")


if __name__ == "__main__":
    main()
