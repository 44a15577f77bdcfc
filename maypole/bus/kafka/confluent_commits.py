"""Commits of one group member: those asked for between two polls are merged into one.

Only the member's thread uses it. The commits are synchronous, though they hold the thread up for a round trip:
librdkafka puts the answer of an asynchronous one at the end of the queue of prefetched records, so under load it
would come after thousands of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

from maypole.bus.kafka.confluent_errors import FORBIDDEN, UNREACHABLE, error_of
from maypole.bus.kafka.thread_bridge import ThreadBridge
from maypole.bus.ports import TopicPartition

_log = logging.getLogger("maypole.bus.kafka")

_BACKOFF_MIN = 0.02
_BACKOFF_MAX = 0.5
_SETTLE_ATTEMPTS = 4

Positions = dict[TopicPartition, int]
Waiters = list["asyncio.Future[None]"]


class Commits:
    def __init__(self, bridge: ThreadBridge) -> None:
        self._bridge = bridge
        self._wanted: Positions = {}
        self._waiting: Waiters = []
        self._backoff = _BACKOFF_MIN
        self._not_before = 0.0

    @property
    def wanted(self) -> bool:
        return bool(self._waiting)

    def ask(self, positions: Mapping[TopicPartition, int], done: asyncio.Future[None]) -> None:
        self._wanted.update(positions)
        self._waiting.append(done)

    def send(self, consumer: ck.Consumer, ours: Collection[TopicPartition]) -> None:
        """Commit what is wanted; what fails in a way that may pass stays wanted and is tried again later."""
        if not self._waiting or time.monotonic() < self._not_before:
            return
        # Partitions that are no longer ours are left out: their next owner repeats the work.
        positions = {p: offset for p, offset in self._wanted.items() if p in ours}
        error = _commit(consumer, positions)
        if error is None:
            self._backoff = _BACKOFF_MIN
            self._answer(None)
        elif error.code() in FORBIDDEN:
            self._answer(PermissionError(f"the broker does not let us commit {positions}: {error.str()}"))
        elif error.fatal():
            self._answer(KafkaException(error))
        else:
            self._not_before = time.monotonic() + self._backoff
            self._backoff = min(_BACKOFF_MAX, self._backoff * 2)

    def settle(self, consumer: ck.Consumer, ours: Collection[TopicPartition], last: Mapping[TopicPartition, int]) -> None:
        """Commit everything wanted and `last`, now or never: partitions are about to change hands."""
        positions = {p: offset for p, offset in {**self._wanted, **last}.items() if p in ours}
        for attempt in range(_SETTLE_ATTEMPTS):
            error = _commit(consumer, positions)
            if error is None:
                break
            hopeless = error.fatal() or error.code() in FORBIDDEN or error.code() in UNREACHABLE
            if hopeless or attempt + 1 == _SETTLE_ATTEMPTS:
                _log.warning("bus.positions_uncommitted positions=%s error=%s", positions, error.str())
                break
            time.sleep(_BACKOFF_MIN)
        self._answer(None)

    def abandon(self) -> None:
        """The member is gone: nobody commits these any more."""
        self._answer(None)

    def _answer(self, error: Exception | None) -> None:
        waiters, self._wanted, self._waiting = self._waiting, {}, []
        if waiters:
            self._bridge.post(_complete, waiters, error)


def _complete(waiters: Waiters, error: Exception | None) -> None:
    for waiter in waiters:
        if not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _commit(consumer: ck.Consumer, positions: Positions) -> KafkaError | None:
    if not positions:
        return None
    offsets = [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in positions.items()]
    try:
        answers = consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        return error_of(error)
    return next((a.error for a in answers if a.error is not None), None)
