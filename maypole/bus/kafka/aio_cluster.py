"""`Cluster` over aiokafka's admin client and a consumer that belongs to no group."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from maypole.bus.kafka.aio_errors import FORBIDDEN, reaching, stop_within
from maypole.bus.kafka.aio_settings import AioSettings
from maypole.bus.kafka.confluent_settings import ConfluentSettings, GroupProtocol
from maypole.bus.kafka.embedded import is_embedded, local_cluster
from maypole.bus.kafka.embedded_answers import EmbeddedAnswers
from maypole.bus.ports import BrokerUnreachable, GroupActive, TopicPartition, TopicsForbidden, TopicSpec

_LEADER_SECONDS = 30.0
_LEADER_POLL = 0.02
_STOP_SECONDS = 2.0


class AioCluster:
    def __init__(self, settings: AioSettings, unreachable_seconds: float) -> None:
        self._settings = settings
        self._seconds = unreachable_seconds
        self._admin: Any = AIOKafkaAdminClient(**settings.admin())
        self._consumer: Any = aiokafka.AIOKafkaConsumer(**settings.reader())
        self._id = ""

    async def open(self) -> None:
        try:
            async with reaching(self._settings.bootstrap, self._seconds):
                await self._admin.start()
                await self._consumer.start()
                self._id = str((await self._admin.describe_cluster())["cluster_id"])
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await stop_within(self._consumer.stop(), _STOP_SECONDS, "consumer")
        await stop_within(self._admin.close(), _STOP_SECONDS, "admin client")

    async def cluster_id(self) -> str:
        return self._id

    async def topics(self) -> Mapping[str, int]:
        async with reaching(self._settings.bootstrap, self._seconds):
            described = await self._admin.describe_topics()
        return {t["topic"]: len(t["partitions"]) for t in described if not t["topic"].startswith("__")}

    async def topic_config(self, topic: str) -> Mapping[str, str]:
        if is_embedded(self._id):
            return {}
        async with reaching(self._settings.bootstrap, self._seconds):
            [response] = await self._admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        [(code, message, _, _, entries)] = response.resources
        if code:
            raise LookupError(f"the broker told no settings of topic {topic}: {message}")
        return {entry[0]: entry[1] for entry in entries if entry[1] is not None}

    async def create(self, topics: Collection[TopicSpec]) -> None:
        known = await self.topics()
        missing = [spec for spec in topics if spec.name not in known]
        if is_embedded(self._id):
            local = local_cluster(self._settings.bootstrap)
            for spec in missing:
                if local is not None:
                    local.create_topic(spec.name, spec.partitions)
        elif missing:
            await self._request_topics(missing)
        # On the embedded broker of another process this question also makes the topics.
        await self._wait_for_leaders([spec.name for spec in topics])

    async def watermarks(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        if not partitions:
            return {}
        native = [aiokafka.TopicPartition(*p) for p in partitions]
        async with reaching(self._settings.bootstrap, self._seconds):
            oldest = await self._consumer.beginning_offsets(native)
            end = await self._consumer.end_offsets(native)
        return {TopicPartition(p.topic, p.partition): (oldest[p], end[p]) for p in native}

    async def offsets_at(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Mapping[TopicPartition, int]:
        marks = await self.watermarks(partitions)
        if is_embedded(self._id):
            answers = EmbeddedAnswers(ConfluentSettings(self._settings.bootstrap, {}, 0, GroupProtocol.CLASSIC))
            return await asyncio.to_thread(answers.offsets_at, marks, timestamp_ms)
        if not partitions:
            return {}
        async with reaching(self._settings.bootstrap, self._seconds):
            found = await self._consumer.offsets_for_times({aiokafka.TopicPartition(*p): timestamp_ms for p in partitions})
        return {p: marks[p][1] if found[p] is None else found[p].offset for p in partitions}

    async def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if not partitions:
            return {}
        async with reaching(self._settings.bootstrap, self._seconds):
            found = await self._admin.list_consumer_group_offsets(group, partitions=[aiokafka.TopicPartition(*p) for p in partitions])
        return {TopicPartition(p.topic, p.partition): o.offset for p, o in found.items() if o.offset >= 0}

    async def seed(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        if not positions:
            return
        consumer: Any = aiokafka.AIOKafkaConsumer(**self._settings.consumer(group))
        try:
            async with reaching(self._settings.bootstrap, self._seconds):
                await consumer.start()
                # Partitions taken by hand make no member: the group takes the offsets only while it has none.
                consumer.assign([aiokafka.TopicPartition(*p) for p in positions])
                await consumer.commit({aiokafka.TopicPartition(*p): offset for p, offset in positions.items()})
        except errors.CommitFailedError as error:
            # The embedded broker says so too of a group that had members once, and a look from inside would disturb them.
            raise GroupActive(f"offsets of group {group} cannot be set while it has members") from error
        finally:
            await stop_within(consumer.stop(), _STOP_SECONDS, f"consumer of group {group}")

    async def _request_topics(self, specs: list[TopicSpec]) -> None:
        wanted = [NewTopic(s.name, s.partitions, 1, topic_configs=dict(s.config)) for s in specs]
        for topic in wanted:
            # The broker's default; the constructor does not let it through.
            topic.replication_factor = -1
        async with reaching(self._settings.bootstrap, self._seconds):
            response = await self._admin.create_topics(wanted)
        forbidden = []
        for name, code, *message in response.topic_errors:
            error = errors.for_code(code)
            if error in FORBIDDEN:
                forbidden.append(name)
            elif error not in (errors.NoError, errors.TopicAlreadyExistsError):
                raise ValueError(f"the broker refused to create topic {name}: {message[0] if message else error.__name__}")
        if forbidden:
            raise TopicsForbidden(forbidden)

    async def _wait_for_leaders(self, names: list[str]) -> None:
        if not names:
            return
        try:
            async with asyncio.timeout(_LEADER_SECONDS):
                while not await self._all_led(names):  # noqa: ASYNC110 - a broker offers no event to wait on
                    await asyncio.sleep(_LEADER_POLL)
        except TimeoutError as error:
            raise BrokerUnreachable(f"no leader within {_LEADER_SECONDS:g} s for all of: {', '.join(sorted(names))}") from error

    async def _all_led(self, names: list[str]) -> bool:
        async with reaching(self._settings.bootstrap, self._seconds):
            described = await self._admin.describe_topics(names)
        return len(described) == len(names) and all(
            not topic["error_code"] and topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"]) for topic in described
        )
