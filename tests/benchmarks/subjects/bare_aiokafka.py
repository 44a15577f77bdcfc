"""A bare aiokafka loop on the same terms as the bare confluent-kafka loop: acknowledged by all, one commit a batch of 500."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.benchmarks.events import counted, decode, encode
from tests.benchmarks.order import Meter, end_on_sigterm, leave, read_order

BATCH = 500
KEPT = ("ce_id", "ce_correlationid", "traceparent")


async def main() -> None:
    order = read_order()
    end_on_sigterm()
    consumer = AIOKafkaConsumer(
        order.source, bootstrap_servers=order.kafka, group_id=order.group, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=order.kafka, enable_idempotence=True, acks="all", linger_ms=5 if order.events else 0, max_batch_size=256 * 1024
    )
    await consumer.start()
    await producer.start()
    meter = Meter(order)
    while True:
        batches = await consumer.getmany(timeout_ms=200, max_records=BATCH)
        messages = [message for batch in batches.values() for message in batch]
        if not messages:
            continue
        meter.begin()
        acknowledged = []
        for message in messages:
            headers = dict(message.headers)
            value = encode(counted(decode(message.value)))
            acknowledged.append(await producer.send(order.target, value, message.key, headers=[(name, headers[name]) for name in KEPT]))
        await asyncio.gather(*acknowledged)
        await consumer.commit()
        if meter.committed(len(messages)):
            leave()


if __name__ == "__main__":
    asyncio.run(main())
