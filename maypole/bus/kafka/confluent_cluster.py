"""`Cluster` over librdkafka's admin client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import confluent_kafka as ck
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from maypole.bus.kafka.confluent_errors import ACTIVE_GROUP, FORBIDDEN, MOVING, UNREACHABLE, error_of
from maypole.bus.kafka.confluent_settings import ConfluentSettings, GroupProtocol
from maypole.bus.kafka.convert import native
from maypole.bus.kafka.embedded import is_embedded, local_cluster
from maypole.bus.kafka.embedded_answers import EmbeddedAnswers
from maypole.bus.ports import BrokerUnreachable, GroupActive, TopicPartition, TopicsForbidden, TopicSpec

T = TypeVar("T")

_OLDEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_END: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

_CONSUMER_PROTOCOL_SETTING = "group.consumer.session.timeout.ms"
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Zero, as librdkafka writes it: brokers before Kafka 2.8."""
_LEADER_SECONDS = 30.0
_LEADER_POLL = 0.02
_NEWS_SECONDS = 3.0
"""A topic that was created just now is known to the broker that tells where it lies before it is known to its leader."""


class ConfluentCluster:
    """Calls run on threads; each answers within `unreachable_seconds`, or says that no broker does.

    A broker that says itself that somebody is taking over is there: it is asked again for longer.
    """

    def __init__(self, settings: ConfluentSettings, unreachable_seconds: float) -> None:
        self._settings = settings
        self._seconds = unreachable_seconds
        self._reason = "no answer"
        self._pause = threading.Event()
        # One client for all calls: the futures of a client die with it.
        self._admin = settings.open(AdminClient, {**settings.common(), "error_cb": self._remember})
        self._answers = EmbeddedAnswers(settings)
        self._threads = ThreadPoolExecutor(4, "maypole-cluster")
        self._cluster_id: str | None = None

    async def cluster_id(self) -> str:
        if self._cluster_id is None:
            self._cluster_id = await self._run(lambda: str(self._metadata().cluster_id))
        return self._cluster_id

    async def topics(self) -> Mapping[str, int]:
        return await self._run(self._topics)

    async def topic_config(self, topic: str) -> Mapping[str, str]:
        if is_embedded(await self.cluster_id()):
            return {}
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)

        def describe() -> Mapping[str, str]:
            answers = self._admin.describe_configs([resource], request_timeout=self._seconds)
            entries = self._result(answers[resource])
            return {name: entry.value for name, entry in entries.items() if entry.value is not None}

        return await self._run(describe)

    async def create(self, topics: Collection[TopicSpec]) -> None:
        embedded = is_embedded(await self.cluster_id())
        await self._run(lambda: self._create(topics, embedded))

    async def watermarks(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        return await self._run(lambda: self._watermarks(partitions))

    async def offsets_at(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Mapping[TopicPartition, int]:
        if is_embedded(await self.cluster_id()):
            return await self._run(lambda: self._answers.offsets_at(self._watermarks(partitions), timestamp_ms))

        def ask() -> Mapping[TopicPartition, int]:
            found = self._offsets(partitions, OffsetSpec.for_timestamp(timestamp_ms))
            later = [p for p, offset in found.items() if offset < 0]
            return {**found, **self._offsets(later, _END)}

        return await self._run(ask)

    async def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        def ask() -> Mapping[TopicPartition, int]:
            if not partitions:
                return {}
            # Not the admin client's way of asking: in a client without a group, librdkafka dies of the answer that the
            # group's coordinator has moved (confluentinc/librdkafka#5315). This consumer asks, and joins nothing.
            consumer = self._settings.open(ck.Consumer, {**self._settings.reader(), "group.id": group, "error_cb": self._remember})
            try:
                offsets = consumer.committed(native(partitions), timeout=self._seconds)
            finally:
                consumer.close()
            _raise_first(offsets)
            return {TopicPartition(o.topic, o.partition): o.offset for o in offsets if o.offset >= 0}

        return await self._run(ask)

    async def seed(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        def ask() -> None:
            if not positions:
                return
            offsets = [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in positions.items()]
            request = ConsumerGroupTopicPartitions(group, offsets)
            answers = self._admin.alter_consumer_group_offsets([request], request_timeout=self._seconds)
            try:
                _raise_first(self._result(answers[group]).topic_partitions)
            except KafkaException as error:
                if error_of(error).code() not in ACTIVE_GROUP:
                    raise
                if not (embedded and self._answers.seed(group, positions)):
                    raise GroupActive(f"offsets of group {group} cannot be set while it has members") from error

        embedded = is_embedded(await self.cluster_id())
        await self._run(ask)

    async def topic_ids(self, topics: Collection[str]) -> Mapping[str, str]:
        """The identity of each of these topics that is there. None of them where the broker is too old to tell."""
        return await self._run(lambda: self._topic_ids(topics))

    async def group_protocol(self) -> GroupProtocol:
        """The one that the broker speaks; AUTO where it does not tell."""
        if is_embedded(await self.cluster_id()):
            return GroupProtocol.CONSUMER
        return await self._run(self._group_protocol)

    def close(self) -> None:
        self._pause.set()
        self._threads.shutdown(wait=False)

    # What follows runs on the threads.

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._guarded, call)

    def _guarded(self, call: Callable[[], T]) -> T:
        began = time.monotonic()
        while True:
            try:
                return call()
            except KafkaException as exception:
                error = error_of(exception)
                if time.monotonic() - began >= self._patience_seconds(error) or self._pause.wait(_LEADER_POLL):
                    self._raise(exception, error)
                self._look_anew()

    def _patience_seconds(self, error: KafkaError) -> float:
        """For how long it may pass by itself."""
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return _NEWS_SECONDS
        if error.code() not in MOVING:
            return 0.0
        # Codes below zero are librdkafka's own, and prove no broker.
        return _LEADER_SECONDS if error.code() > 0 else self._seconds

    def _raise(self, exception: KafkaException, error: KafkaError) -> NoReturn:
        if error.code() in UNREACHABLE | MOVING:
            self._admin.poll(0)
            raise BrokerUnreachable(
                f"no broker answered at {self._settings.bootstrap} within {self._seconds:g} s: {self._reason} ({error.str()})"
            ) from exception
        if error.code() in FORBIDDEN:
            raise PermissionError(f"the broker at {self._settings.bootstrap} refused: {error.str()}") from exception
        raise exception

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result(timeout=self._seconds + 1.0)
        except TimeoutError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error

    def _look_anew(self) -> None:
        """The client answers who leads from what it remembers, and keeps asking with an epoch that is over."""
        with suppress(KafkaException):
            self._metadata()

    def _remember(self, error: KafkaError) -> None:
        self._reason = error.str()

    def _metadata(self, topic: str | None = None) -> Any:
        return self._admin.list_topics(topic, timeout=self._seconds)

    def _group_protocol(self) -> GroupProtocol:
        # librdkafka does not say what a broker speaks, and a member that speaks what it does not waits for ever.
        broker = ConfigResource(ConfigResource.Type.BROKER, str(next(iter(self._metadata().brokers))))
        try:
            found = self._result(self._admin.describe_configs([broker], request_timeout=self._seconds)[broker])
        except KafkaException:
            return GroupProtocol.AUTO
        enabled = found.get("group.coordinator.rebalance.protocols")
        known = _CONSUMER_PROTOCOL_SETTING in found and (enabled is None or "consumer" in str(enabled.value))
        return GroupProtocol.CONSUMER if known else GroupProtocol.CLASSIC

    def _topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, future in self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=self._seconds).items():
            try:
                identity = str(self._result(future).topic_id)
            except KafkaException as exception:
                if error_of(exception).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
            else:
                if identity != _NO_ID:
                    found[name] = identity
        return found

    def _topics(self) -> dict[str, int]:
        found = self._metadata().topics
        return {name: len(topic.partitions) for name, topic in found.items() if not name.startswith("__")}

    def _offsets(self, partitions: Collection[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        asked = {ck.TopicPartition(p.topic, p.partition): spec for p in partitions}
        answers = self._admin.list_offsets(asked, request_timeout=self._seconds)
        return {TopicPartition(p.topic, p.partition): self._result(future).offset for p, future in answers.items()}

    def _watermarks(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        oldest = self._offsets(partitions, _OLDEST)
        end = self._offsets(partitions, _END)
        return {p: (oldest[p], end[p]) for p in partitions}

    def _create(self, specs: Collection[TopicSpec], embedded: bool) -> None:
        known = self._topics()
        missing = [spec for spec in specs if spec.name not in known]
        if embedded:
            local = local_cluster(self._settings.bootstrap)
            for spec in missing:
                if local is not None:
                    local.create_topic(spec.name, spec.partitions)
                else:
                    # The embedded broker knows no CreateTopics from outside its process; asking for a topic makes it.
                    self._metadata(spec.name)
        elif missing:
            self._request_topics(missing)
        self._wait_for_leaders({spec.name for spec in specs})

    def _request_topics(self, specs: list[TopicSpec]) -> None:
        wanted = [NewTopic(s.name, num_partitions=s.partitions, replication_factor=-1, config=dict(s.config)) for s in specs]
        forbidden = []
        for name, future in self._admin.create_topics(wanted, request_timeout=self._seconds).items():
            try:
                self._result(future)
            except KafkaException as exception:
                error = error_of(exception)
                if error.code() in FORBIDDEN:
                    forbidden.append(name)
                elif error.code() in UNREACHABLE:
                    raise
                elif error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise ValueError(f"the broker refused to create topic {name}: {error.str()}") from exception
        if forbidden:
            raise TopicsForbidden(forbidden)

    def _wait_for_leaders(self, names: set[str]) -> None:
        deadline = time.monotonic() + _LEADER_SECONDS
        while True:
            topics = self._metadata().topics
            waiting = sorted(n for n in names if n not in topics or not _led(topics[n]))
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise BrokerUnreachable(f"no leader within {_LEADER_SECONDS:g} s for: {', '.join(waiting)}")
            if self._pause.wait(_LEADER_POLL):
                return  # closed meanwhile: nobody waits for the answer


def _led(topic: Any) -> bool:
    return topic.error is None and bool(topic.partitions) and all(p.leader >= 0 for p in topic.partitions.values())


def _raise_first(offsets: list[ck.TopicPartition]) -> None:
    for offset in offsets:
        if offset.error is not None:
            raise KafkaException(offset.error)
