"""The librdkafka properties of each client, with the reason for each that differs from the default."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from maypole.bus.kafka.confluent_errors import error_of
from maypole.bus.kafka.embedded import FETCH_WAIT_MS
from maypole.bus.ports import WrongProperty

C = TypeVar("C")

client_log = logging.getLogger("maypole.bus.kafka.librdkafka")
"""What librdkafka says by itself; without a logger of ours it would print to standard error."""


def _is_for_this_client(record: logging.LogRecord) -> bool:
    """One set of properties serves every client, as one file does with kcat: what is another one's is no warning."""
    return _FOR_ANOTHER not in record.getMessage()


_FOR_ANOTHER = "property and will be ignored by this"
client_log.addFilter(_is_for_this_client)

_BATCH_BYTES_MAX = 1_000_000
PRODUCED_BYTES_MAX = 40 * 1024 * 1024
"""Above the largest dead letter, and below `queue.buffering.max.kbytes`: a record that fits into no queue would wait for ever."""
_SESSION_MS = 45_000
_BULK_LINGER_MS = 3.0
"""Groups of many come under load, when each took longer than this to make."""

_CLASSIC_ONLY = frozenset({"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"})
_BETTER_CLASSIC = frozenset({"group.instance.id"})
"""In the consumer protocol the successor of a static member that was killed is refused until the session has ended."""
_ASSIGNMENTS = {"partition.assignment.strategy": "range", "group.remote.assignor": "range"}


class GroupProtocol(Enum):
    """How group members are coordinated.

    CONSUMER (Kafka 4.0 and the embedded broker) moves partitions one by one and gives first records at once.
    CLASSIC is every older broker's. AUTO asks the broker, and where it does not tell, tries CONSUMER and falls back.
    """

    AUTO = "auto"
    CONSUMER = "consumer"
    CLASSIC = "classic"


class ConfluentSettings:
    """The user's properties win over ours, except where ours carry a guarantee (`enable.auto.commit`, the partitioner), and the address."""

    def __init__(self, bootstrap: str, config: Mapping[str, str], linger_ms: float, protocol: GroupProtocol) -> None:
        self.bootstrap = bootstrap
        for name, expected in _ASSIGNMENTS.items():
            if config.get(name, expected) != expected:
                raise WrongProperty(
                    f"{name}: expected {expected}, found {config[name]}: a join needs the partitions of one number of all its topics on "
                    "one member, and only range assigns them so. For rebalances that move single partitions leave it out, and let brokers "
                    "from 4.0 on use group.protocol=consumer"
                )
        self._config = dict(config)
        self.instance_id = config.get("group.instance.id")
        self._linger_ms = linger_ms
        self.embedded = False
        """Set once the broker has said who it is."""
        if protocol is GroupProtocol.AUTO:
            # The consumer protocol refuses the classic one's settings: whoever sets them wants the classic one.
            chosen = config.get("group.protocol")
            if chosen is not None:
                protocol = GroupProtocol(chosen.lower())
            elif (_CLASSIC_ONLY | _BETTER_CLASSIC) & config.keys():
                protocol = GroupProtocol.CLASSIC
        self.protocol = protocol
        self.protocol_is_chosen_by_us = protocol is GroupProtocol.AUTO

    def open(self, client: Callable[[dict[str, Any]], C], properties: dict[str, Any]) -> C:
        """Make a client. Raises `WrongProperty`."""
        try:
            return client(properties)
        except KafkaException as error:
            raise WrongProperty(f"expected properties that librdkafka knows, found one that it refuses: {error_of(error).str()}") from error

    def _fetching(self) -> dict[str, Any]:
        return {
            # Prefetched bytes count against the memory of an agent process.
            "queued.max.messages.kbytes": 16384,
            "queued.min.messages": 20000,
            # The default lets a full queue run dry: it waits a second before it fetches again.
            "fetch.queue.backoff.ms": 20,
            "fetch.error.backoff.ms": 100,
            "fetch.wait.max.ms": FETCH_WAIT_MS if self.embedded else 500,
        }

    def common(self) -> dict[str, Any]:
        return {"client.id": "maypole", "logger": client_log, **self._config, "bootstrap.servers": self.bootstrap}

    @property
    def session_seconds(self) -> float:
        """After which a classic group gives up on a silent member; the client's own default where nobody has set it."""
        return int(self._config.get("session.timeout.ms", _SESSION_MS)) / 1000

    @property
    def batch_bytes_max(self) -> int:
        """What a producer begins with: the client's own default. Raises `WrongProperty`."""
        chosen = self._config.get("batch.size", str(_BATCH_BYTES_MAX))
        if not chosen.isdecimal():
            raise WrongProperty(f"batch.size: expected a number of bytes, found {chosen!r}")
        return int(chosen)

    def producer(self, batch_bytes_max: int, *, bulk: bool) -> dict[str, Any]:
        return {
            "linger.ms": max(self._linger_ms, _BULK_LINGER_MS) if bulk else self._linger_ms,
            "compression.type": "none",
            # A record waits through an outage for as long as it takes.
            "message.timeout.ms": 0,
            "queue.buffering.max.kbytes": 65536,
            # How long a topic may be unknown before a record for it is refused: it may have been made a moment ago.
            "topic.metadata.propagation.max.ms": 5000,
            # What is too large is for the broker to say: a dead letter is larger than the record it was.
            "message.max.bytes": PRODUCED_BYTES_MAX,
            "allow.auto.create.topics": False,
            **self.common(),
            "batch.size": batch_bytes_max,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "delivery.report.only.error": bulk,
        }

    def consumer(self, group: str, protocol: GroupProtocol) -> dict[str, Any]:
        settings: dict[str, Any] = {
            # A commit holds its thread up; with the broker gone for no longer than this. (The default is a minute.)
            "socket.timeout.ms": 10000,
            **self._fetching(),
            **self.common(),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # An offset that retention has passed must be noticed, never skipped in silence.
            "auto.offset.reset": "error",
        }
        # Joins need equal partitions of several topics on one member: both protocols use range.
        if protocol is GroupProtocol.CLASSIC:
            settings["group.protocol"] = "classic"
            settings.setdefault("partition.assignment.strategy", "range")
            if self.embedded:
                # There the next member waits for the session of the one before, even of one that left.
                settings.setdefault("session.timeout.ms", 3000)
        else:
            settings["group.protocol"] = "consumer"
            settings.setdefault("group.remote.assignor", "range")
        return settings

    def reader(self) -> dict[str, Any]:
        return {
            **self._fetching(),
            **self.common(),
            # No group is joined and nothing is committed; the binding demands a name.
            "group.id": "maypole-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
        }
