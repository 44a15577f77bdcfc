"""The port between the bus and a broker.

Everything above this file is the same on confluent-kafka, aiokafka and in memory; everything below it
knows one client library. One conformance suite (`tests/contract`) holds all transports to these contracts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes | None]]


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Record(NamedTuple):
    """Bytes bound for a topic. The transport picks the partition: murmur2 of the key, as Java does."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class Delivery(NamedTuple):
    """A record read back with its position. `timestamp_ms` is the broker's time of it, since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Receipt(NamedTuple):
    """Where an acknowledged record lies. `offset` is -1 where a broker does not tell it (a deduplicated resend).

    Both may be -1 on a bulk sink.
    """

    partition: int
    offset: int


class BrokerUnreachable(ConnectionError):
    """No broker answered within the time a call may take. Names the addresses tried and the last reason."""


class TopicsForbidden(PermissionError):
    """The broker did not let us create these topics: somebody else must."""

    def __init__(self, topics: Collection[str]) -> None:
        super().__init__(f"the broker did not let us create: {', '.join(sorted(topics))}")


class WrongProperty(ValueError):
    """A property of the Kafka client that somebody set and that the client does not take. Names it."""


class InstanceIdTaken(RuntimeError):
    """Another member of the group goes by this one's `group.instance.id`, and only one of them can be in the group. Says who is out."""


class PublishRefused(RuntimeError):
    """The broker will never take this record (too large, not authorised, no such topic): repeating is useless."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"the broker refused a record for {topic}: {reason}")
        self.topic = topic
        self.reason = reason


class RecordTooLarge(PublishRefused):
    """The record has more bytes than its topic takes (`max.message.bytes`)."""

    def __init__(self, record: Record, reason: str) -> None:
        super().__init__(record.topic, reason)
        self.record = record


class GroupActive(RuntimeError):
    """Offsets were to be set for a consumer group that has live members; those members own its offsets."""


class Expired(NamedTuple):
    """Records that retention deleted before a group read them: from `wanted` up to, not including, `oldest`.

    `oldest` below `wanted` means that the topic was cut short or made anew. Reading goes on at `oldest`.
    """

    group: str
    partition: TopicPartition
    wanted: int
    oldest: int


class Sink(Protocol):
    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        """Hand all records to the client in order, then wait until every one is acknowledged by all replicas.

        Order: two calls started one after the other keep that order on each partition.
        Waits through broker outages for as long as it takes (transient errors are retried inside, with the
        same bytes). Safe to repeat: a repeat appends the records again. Raises `PublishRefused` for the first
        record the broker will never take; the others may or may not have been written.
        On cancellation the records may still be written.
        """
        ...


class Assignment(Protocol):
    """What the owner of a source does when its partitions change. Called in order with the batches of `fetch`."""

    async def assigned(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        """These partitions are ours now, beside those we had; no record of them has been fetched yet.

        Called at least once, with nothing where nothing is left for this member. Answers with the next offset to read of
        each that does not begin at the offset committed by the group: an owner may keep its own beside what it made of them.
        """
        ...

    async def revoked(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """These partitions go to somebody else once this returns: finish quickly.

        Returns the next offset to read of each partition with progress; the source commits them before letting go.
        The transport bounds the wait (`revoke_seconds`) and then lets go without a commit.
        """
        ...

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions already belong to somebody else: stop at once and commit nothing."""
        ...


class Source(Protocol):
    """A member of a consumer group. Keeps itself alive in the group however long the owner works on a batch."""

    async def fetch(self) -> Sequence[Delivery]:
        """The next batch: at least one record, in offset order within a partition, as soon as one is there.

        Never more than `batch_max` records; never a record of a partition that was revoked, lost or paused.
        Safe to cancel: no record is swallowed. Raises `BrokerUnreachable` only when `close` has begun.
        """
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch no more from these until `resume`. What was already fetched and not yet returned is kept for later."""
        ...

    def resume(self, partitions: Collection[TopicPartition]) -> None: ...

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit the next offset to read of each partition; returns when the broker has it.

        Partitions that are no longer ours are left out in silence (their next owner repeats the work).
        """
        ...


class Reader(Protocol):
    """Reads partitions outside any group: the catalog, the journal, a dead-letter topic."""

    async def read(self, wait_seconds: float) -> Sequence[Delivery]:
        """What has arrived, waiting at most `wait_seconds` for the first record; may be empty. Safe to cancel.

        A start offset that retention has passed continues at the oldest record that is left.
        """
        ...


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """`config` holds the broker's own names (`retention.ms`, `cleanup.policy`)."""

    name: str
    partitions: int
    config: Mapping[str, str]


class Cluster(Protocol):
    """Questions about, and changes of, the cluster as a whole. Every call raises `BrokerUnreachable` in bounded time."""

    async def cluster_id(self) -> str: ...

    async def topics(self) -> Mapping[str, int]:
        """Every topic with its number of partitions, internal ones left out."""
        ...

    async def topic_config(self, topic: str) -> Mapping[str, str]:
        """The broker's settings of a topic; empty where the broker cannot tell (`Features.topic_config`)."""
        ...

    async def create(self, topics: Collection[TopicSpec]) -> None:
        """Create those that are missing and wait until each has a leader. Safe to repeat and to race.

        Raises `TopicsForbidden` naming those that the broker did not let us create.
        """
        ...

    async def watermarks(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """Oldest offset left and next offset to be written, of each partition."""
        ...

    async def offsets_at(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Mapping[TopicPartition, int]:
        """The first offset at or after a broker time, of each partition; the end where there is none."""
        ...

    async def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The committed offsets of a group; partitions without one are left out."""
        ...

    async def seed(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Commit offsets for a group that has no members. Raises `GroupActive` when it has."""
        ...


@dataclass(frozen=True, slots=True)
class Features:
    """What a transport on a broker supports; the conformance suite reads it, and nothing is skipped beyond it."""

    name: str
    creates_topics: bool
    """CreateTopics with a chosen number of partitions and settings."""
    several_members: bool
    """More than one member in a consumer group."""
    broker_time: bool
    """`timestamp_ms` is the broker's append time where the topic asks for it."""
    topic_config: bool
    """Settings of a topic can be read back."""
    refuses_seed_of_active_group: bool
    reseeds_group: bool
    """Offsets can be set for a group that has had members before; without it that is `GroupActive` too."""
    survives_restart: bool
    """The data outlives the broker's process."""


class Transport(Protocol):
    """One connection to one cluster. A context manager: leaving it closes what `sink`, `source`, `reader` opened."""

    @property
    def features(self) -> Features: ...

    @property
    def cluster(self) -> Cluster: ...

    @property
    def expired_records(self) -> Mapping[str, int]:
        """How many records retention deleted before a group read them, by group; each time it is logged as an error, too."""
        ...

    def sink(self, *, bulk: bool = False) -> AbstractAsyncContextManager[Sink]:
        """`bulk`: for groups of many records, one call after the other. Batches may fill for some milliseconds, calls may wait
        for those before them, and receipts need not tell anything: what telling of every record costs is saved.

        Leaving flushes: everything handed over is acknowledged, or the wait was cancelled.

        Records whose publishers were cancelled get some seconds for it, because their broker may never come back.
        """
        ...

    def source(
        self, group: str, topics: Collection[str], assignment: Assignment, *, batch_max: int = 500, revoke_seconds: float = 10.0
    ) -> AbstractAsyncContextManager[Source]:
        """Join a group. Leaving revokes (so `Assignment.revoked` runs and its positions are committed), then leaves the group.

        A partition without a committed offset starts at its oldest record: whoever wants the end seeds the group first.
        """
        ...

    def reader(self, start: Mapping[TopicPartition, int]) -> AbstractAsyncContextManager[Reader]: ...
