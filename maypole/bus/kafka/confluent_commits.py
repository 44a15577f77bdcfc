"""Commits of one group member: one in flight, those asked for meanwhile merged into the next.

Only the member's thread uses it. Asynchronous commits keep the thread polling; librdkafka answers them through
`on_commit`, inside the next poll.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

from maypole.bus.kafka.confluent_errors import FORBIDDEN, error_of
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
        self._flying: Positions = {}
        self._flying_waiters: Waiters = []
        self._backoff = _BACKOFF_MIN
        self._not_before = 0.0

    @property
    def open(self) -> bool:
        """Somebody waits for an answer."""
        return bool(self._waiting or self._flying_waiters)

    def ask(self, positions: Mapping[TopicPartition, int], done: asyncio.Future[None]) -> None:
        self._wanted.update(positions)
        self._waiting.append(done)

    def send(self, consumer: ck.Consumer, ours: Collection[TopicPartition]) -> None:
        """Start the next commit, if one is wanted and none is in flight."""
        if not self._waiting or self._flying or time.monotonic() < self._not_before:
            return
        positions = {p: offset for p, offset in self._wanted.items() if p in ours}
        waiters, self._wanted, self._waiting = self._waiting, {}, []
        if not positions:
            # No longer ours: the next owner repeats the work.
            self._answer(waiters, None)
            return
        self._flying, self._flying_waiters = positions, waiters
        try:
            consumer.commit(offsets=_offsets(positions), asynchronous=True)
        except KafkaException as error:
            self._refused(error_of(error))

    def answered(self, error: KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        """librdkafka's `on_commit`."""
        if {TopicPartition(p.topic, p.partition): p.offset for p in partitions} != self._flying:
            # The late answer of a commit that `settle` has repeated since.
            return
        error = error or next((p.error for p in partitions if p.error is not None), None)
        if error is not None:
            self._refused(error)
            return
        waiters, self._flying, self._flying_waiters = self._flying_waiters, {}, []
        self._backoff = _BACKOFF_MIN
        self._answer(waiters, None)

    def settle(self, consumer: ck.Consumer, ours: Collection[TopicPartition], last: Mapping[TopicPartition, int]) -> None:
        """Commit at once everything wanted, in flight and `last`, before partitions change hands."""
        merged = {**self._flying, **self._wanted, **last}
        positions = {p: offset for p, offset in merged.items() if p in ours}
        waiters = self._flying_waiters + self._waiting
        self._flying, self._flying_waiters, self._wanted, self._waiting = {}, [], {}, []
        if positions:
            for attempt in range(_SETTLE_ATTEMPTS):
                error = _commit_now(consumer, positions)
                if error is None:
                    break
                if attempt + 1 == _SETTLE_ATTEMPTS or error.fatal() or error.code() in FORBIDDEN:
                    _log.warning("bus.positions_uncommitted positions=%s error=%s", positions, error)
                    break
                time.sleep(_BACKOFF_MIN)
        self._answer(waiters, None)

    def abandon(self) -> None:
        """The member is gone: nobody commits these any more."""
        self._answer(self._flying_waiters + self._waiting, None)
        self._flying, self._flying_waiters, self._wanted, self._waiting = {}, [], {}, []

    def _refused(self, error: KafkaError) -> None:
        positions, waiters, self._flying, self._flying_waiters = self._flying, self._flying_waiters, {}, []
        if error.code() in FORBIDDEN:
            self._answer(waiters, PermissionError(f"the broker does not let us commit {positions}: {error.str()}"))
            return
        if error.fatal():
            self._answer(waiters, KafkaException(error))
            return
        self._wanted = {**positions, **self._wanted}
        self._waiting = waiters + self._waiting
        self._not_before = time.monotonic() + self._backoff
        self._backoff = min(_BACKOFF_MAX, self._backoff * 2)

    def _answer(self, waiters: Waiters, error: Exception | None) -> None:
        if waiters:
            self._bridge.post(_complete, waiters, error)


def _complete(waiters: Waiters, error: Exception | None) -> None:
    for waiter in waiters:
        if not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _commit_now(consumer: ck.Consumer, positions: Positions) -> KafkaError | None:
    try:
        answers = consumer.commit(offsets=_offsets(positions), asynchronous=False)
    except KafkaException as error:
        return error_of(error)
    return next((p.error for p in answers if p.error is not None), None)


def _offsets(positions: Positions) -> list[ck.TopicPartition]:
    return [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in positions.items()]
