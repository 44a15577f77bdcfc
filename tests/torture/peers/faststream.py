"""FastStream as its documentation has it. The variant is its `ack_policy`, which by default commits before it handles."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

from maypole.schemas.envelope import CORRELATION_ID, ID
from tests.torture.peers.order import child_headers, read_order
from tests.torture.witness import call


def main() -> None:
    order = read_order()
    failpoint = order.failpoint
    session: Any = {"session.timeout.ms": 6000}
    broker = KafkaBroker(
        order.kafka, acks="all", enable_idempotence=True, logger=None, log_level=logging.ERROR, allow_auto_create_topics=False,
        config=session,
    )  # fmt: skip
    policy = AckPolicy[order.variant or "ACK_FIRST"]

    @broker.subscriber(order.source, group_id=order.group, auto_offset_reset="earliest", ack_policy=policy)
    async def handle(event: dict[str, int], message: KafkaMessage) -> None:
        failpoint.passing("handling")
        headers = message.headers
        await call(order.witness, order.group, headers[ID], headers[ID])
        failpoint.passing("effected")
        made = child_headers(order.group, headers[CORRELATION_ID], headers[ID])
        await broker.publish({"number": event["number"]}, order.target, key=headers[CORRELATION_ID].encode(), headers=made)
        failpoint.passing("published")

    asyncio.run(FastStream(broker, logger=None).run())


if __name__ == "__main__":
    main()
