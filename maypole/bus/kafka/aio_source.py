"""`Source` over an aiokafka consumer: classic protocol, range assignment, all partitions revoked at each rebalance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.abc import ConsumerRebalanceListener

from maypole.bus.kafka.aio_errors import FORBIDDEN, stop_within
from maypole.bus.kafka.aio_settings import AioSettings
from maypole.bus.kafka.inbox import Inbox
from maypole.bus.ports import Assignment, BrokerUnreachable, Delivery, Expired, TopicPartition

_log = logging.getLogger("maypole.bus.kafka")

_SLICE_MS = 500
_RETRY_SECONDS = 0.1
_STOP_SECONDS = 5.0


class AioSource(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    def __init__(
        self,
        settings: AioSettings,
        group: str,
        topics: Collection[str],
        assignment: Assignment,
        *,
        batch_max: int,
        revoke_seconds: float,
        expired: Callable[[Expired], None],
    ) -> None:
        self._group = group
        self._topics = sorted(topics)
        self._assignment = assignment
        self._batch_max = batch_max
        self._revoke_seconds = revoke_seconds
        self._expired = expired
        self._consumer: Any = aiokafka.AIOKafkaConsumer(**settings.consumer(group))
        self._inbox = Inbox(batch_max, lambda: None)
        self._ours: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._settled = asyncio.Event()
        self._closed = False
        self._failure: BaseException | None = None
        self._sought: dict[TopicPartition, int] = {}
        """Where the owner wants to begin, of partitions that were assigned while a fetch was under way."""

    async def open(self) -> None:
        await self._consumer.start()
        self._consumer.subscribe(self._topics, listener=self)

    async def fetch(self) -> Sequence[Delivery]:
        while True:
            if self._failure is not None:
                raise self._failure
            await self._settled.wait()
            batch = self._inbox.ready()
            if batch:
                return batch
            await self._receive()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._inbox.pause(partitions)
        self._paused.update(partitions)
        self._consumer.pause(*(aiokafka.TopicPartition(*p) for p in partitions if p in self._ours))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._inbox.resume(partitions)
        self._paused.difference_update(partitions)
        self._consumer.resume(*(aiokafka.TopicPartition(*p) for p in partitions if p in self._ours))

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        while True:
            offsets = {aiokafka.TopicPartition(*p): offset for p, offset in positions.items() if p in self._ours}
            if not offsets or self._closed:
                return
            try:
                await self._consumer.commit(offsets)
                return
            except FORBIDDEN as error:
                raise PermissionError(f"group {self._group} may not commit: {error}") from error
            except (errors.CommitFailedError, errors.IllegalStateError):
                # A rebalance has begun. If the partitions stay ours, the next attempt is for the new generation.
                await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        # `stop` does not run the revoke callback.
        if self._ours:
            await self._give_back(sorted(self._ours))
        self._closed = True
        self._inbox.clear()
        self._fail(BrokerUnreachable(f"the source of group {self._group} is closed"))
        await stop_within(self._consumer.stop(), _STOP_SECONDS, f"consumer of group {self._group}")

    # aiokafka's side; what leaves these it would log and forget.

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        self._settled.clear()
        partitions = sorted(self._ours)
        if not partitions or self._closed:
            return
        try:
            # The generation is reset when the group has gone on without us; nothing public says so.
            if self._consumer._coordinator.generation < 0:
                self._forget(partitions)
                self._assignment.lost(partitions)
            else:
                await self._give_back(partitions)
        except Exception as error:  # noqa: BLE001 - raised from `fetch`
            self._fail(error)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        if self._closed:
            return
        partitions = sorted(TopicPartition(p.topic, p.partition) for p in assigned)
        try:
            await self._seek_fresh(partitions)
            self._ours.update(partitions)
            self._seek(await self._assignment.assigned(partitions) or {})
        except Exception as error:  # noqa: BLE001 - raised from `fetch`
            self._fail(error)
        self._settled.set()

    async def _give_back(self, partitions: list[TopicPartition]) -> None:
        self._inbox.drop(partitions)
        try:
            async with asyncio.timeout(self._revoke_seconds):
                positions = await self._assignment.revoked(partitions)
                offsets = {aiokafka.TopicPartition(*p): offset for p, offset in positions.items() if p in self._ours}
                if offsets:
                    await self._consumer.commit(offsets)
        except TimeoutError:
            _log.warning("bus.revoke_timed_out seconds=%s partitions=%s", self._revoke_seconds, partitions)
        except errors.KafkaError as error:
            _log.warning("bus.positions_uncommitted group=%s partitions=%s error=%r", self._group, partitions, error)
        finally:
            self._forget(partitions)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._inbox.drop(partitions)
        self._ours.difference_update(partitions)
        self._paused.difference_update(partitions)

    async def _seek_fresh(self, partitions: Collection[TopicPartition]) -> None:
        """A partition without a committed offset starts at its oldest record."""
        fresh = []
        for partition in partitions:
            native = aiokafka.TopicPartition(*partition)
            if await self._consumer.committed(native) is None:
                fresh.append(native)
        if fresh:
            await self._seek_to_oldest(fresh)

    def _seek(self, wanted: Mapping[TopicPartition, int]) -> None:
        self._inbox.drop(wanted)
        self._sought.update(wanted)
        for partition, offset in wanted.items():
            self._consumer.seek(aiokafka.TopicPartition(*partition), offset)

    async def _seek_to_oldest(self, partitions: Collection[Any]) -> dict[Any, int]:
        oldest: dict[Any, int] = await self._consumer.beginning_offsets(partitions)
        for partition, offset in oldest.items():
            self._consumer.seek(partition, offset)
        return oldest

    async def _receive(self) -> None:
        self._sought.clear()
        try:
            found = await self._consumer.getmany(timeout_ms=_SLICE_MS, max_records=self._batch_max)
        except errors.OffsetOutOfRangeError as error:
            await self._skip_expired(dict(error.args[0]))
            return
        except errors.NoOffsetForPartitionError:
            # Noticed by aiokafka before `on_partitions_assigned` had found the oldest record.
            return
        except FORBIDDEN as error:
            raise PermissionError(f"group {self._group} may not read {', '.join(self._topics)}: {error}") from error
        except (errors.ConsumerStoppedError, errors.IllegalStateError) as error:
            if self._closed:
                raise BrokerUnreachable(f"the source of group {self._group} is closed") from error
            raise
        batch = [
            Delivery(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for records in found.values() for r in records
        ]
        if self._sought:
            # Sought while this fetch was under way: what it brought may be from before, and nothing has been handed over since.
            batch = [delivery for delivery in batch if (delivery.topic, delivery.partition) not in self._sought]
            self._seek({at: offset for at, offset in self._sought.items() if at in self._ours})
        if not batch:
            return
        # Kept before anything is awaited, so that a cancelled `fetch` swallows nothing. What came before a rebalance
        # is dropped by it; what comes after waits here until the owner knows of its partitions.
        self._inbox.offer(batch)

    async def _skip_expired(self, wanted: dict[Any, int]) -> None:
        """The committed records are gone. Say so loudly, then go on with the oldest that is left."""
        oldest = await self._seek_to_oldest(list(wanted))
        for partition, offset in wanted.items():
            at = TopicPartition(partition.topic, partition.partition)
            self._expired(Expired(self._group, at, offset, oldest[partition]))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._settled.set()
