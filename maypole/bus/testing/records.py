"""Reading what lies on the topics of a broker in memory: at once, without waiting for anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from maypole.bus.agent import Agent
from maypole.bus.catalog import View
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, Headers, TopicPartition
from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.codec import Reader, schema_id_of
from maypole.schemas.envelope import DEGRADED, flow_of
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import RECORDS
from maypole.schemas.topics import CATALOG, PLATFORM, dead_letter_topic

_JOURNALED: Final = {schema_of(record).derived_id: Reader(schema_of(record), record) for record in RECORDS}
_AGENTS: Final = "/agents/"
_LETTERS: Final = dead_letter_topic("")
_RETRIES: Final = ".retry."


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """An event of a flow, as it lies on its topic.

    `event` is an instance of the class that an agent declares for the type, and a read-only mapping where no agent of
    the test does. `producer` is an agent's name, or `/publishers/<name>` for who started the flow. `parents` are the ids
    of the events that it was made from; `version` is 1 for a root and one more than its parents' highest otherwise.
    `degraded` says what was done instead of calling a handler (`skip`, `cached`, `default`, `alert`; `inherited` where that
    was further up), None where all were called.
    """

    type: str
    event: Event | Mapping[str, Any]
    event_id: str
    producer: str
    parents: tuple[str, ...]
    version: int
    topic: str
    partition: int
    offset: int
    degraded: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that an agent gave up. `reason` is one of the `dlq-reason`s, `error` the text for people.

    `key`, `value` and `headers` are the original's, unchanged; `topic`, `partition` and `offset` say where that one lies.
    """

    agent: str
    reason: str
    error: str
    attempts: int
    event_type: str
    event_id: str
    flow_id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Topics:
    """Everything on the broker, decoded with the schemas that the catalog tells and the classes that the agents declare."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._view = View()
        self._read: dict[TopicPartition, int] = {}
        self._flows: dict[tuple[str, FlowId], list[Delivery]] = {}
        self._places: dict[tuple[str, FlowId], TopicPartition] = {}
        self._classes: dict[str, dict[str, type[Event]]] = {}

    def declare(self, agent: Agent) -> None:
        self._classes[agent.name] = agent.event_classes()

    def declare_root(self, event_class: type[Event]) -> None:
        self._classes.setdefault("", {})[event_class.event_type] = event_class

    def of_flow(self, topic: str, flow: FlowId) -> list[Delivery]:
        """The flow's records on a topic, in their order."""
        at = self._places.get((topic, flow))
        if at is None:
            if topic not in self._broker.topics():
                return []
            at = self._places[topic, flow] = self.partition(topic, flow)
        for record in self._new(at):
            found = flow_of(record.headers)
            if found is not None:
                self._flows.setdefault((topic, found), []).append(record)
        return self._flows.get((topic, flow), [])

    def events(self) -> list[str]:
        """The topics of domain events."""
        # An event that waits on a retry topic lies on its own as well.
        platform = {topic.name for topic in PLATFORM}
        return [
            topic for topic in self._broker.topics() if topic not in platform and not topic.endswith(_LETTERS) and _RETRIES not in topic
        ]

    def since(self, at: TopicPartition, start: int) -> list[Delivery]:
        """Also what retention has deleted: it was there."""
        return self._broker.log(at).ever(start)

    def partition(self, topic: str, flow: FlowId) -> TopicPartition:
        return TopicPartition(topic, partition_of(flow.encode(), self._broker.topics()[topic]))

    def journaled(self, record: Delivery) -> Event | None:
        """None for what is no journal record of any kind that is known."""
        try:
            reader = _JOURNALED.get(schema_id_of(record.value))
            return None if reader is None or record.value is None else reader.decode(record.value)
        except (Undecodable, ContractRefused):
            return None

    def catalog(self) -> View:
        """The catalog as it is now."""
        for partition in range(self._broker.topics().get(CATALOG, 0)):
            for record in self._new(TopicPartition(CATALOG, partition)):
                self._view.apply(record)
        return self._view

    def event(self, record: Delivery, parents: Iterable[str]) -> FlowEvent:
        """Raises `Undecodable` when nobody can tell the schema, or the bytes are not what it says."""
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        event_type, source = headers.get("ce_type", ""), headers.get("ce_source", "/publishers/unknown")
        producer = source.removeprefix(_AGENTS)
        version = headers.get("ce_stateversion", "1")
        return FlowEvent(
            type=event_type,
            event=self._decoded(record, event_type, producer),
            event_id=headers.get("ce_id", ""),
            producer=producer,
            parents=tuple(parents),
            version=int(version) if version.isdigit() else 1,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            degraded=headers.get(DEGRADED),
        )

    def dead_letters(self, agent: str) -> list[DeadLetter]:
        """All of an agent's, by partition and offset."""
        topic = dead_letter_topic(agent)
        partitions = [TopicPartition(topic, partition) for partition in range(self._broker.topics().get(topic, 0))]
        return [_dead_letter(record) for at in partitions for record in self.since(at, 0)]

    def buried(self, flow: FlowId) -> list[DeadLetter]:
        """Those of one flow, by agent."""
        topics = [topic for topic in self._broker.topics() if topic.endswith(_LETTERS)]
        return [_dead_letter(record) for topic in topics for record in self.of_flow(topic, flow)]

    def _new(self, at: TopicPartition) -> list[Delivery]:
        """What has come since this was asked last."""
        records = self.since(at, self._read.get(at, 0))
        if records:
            self._read[at] = records[-1].offset + 1
        return records

    def _decoded(self, record: Delivery, event_type: str, producer: str) -> Event | Mapping[str, Any]:
        schema_id = schema_id_of(record.value)
        assert record.value is not None
        text = self.catalog().schemas.get(schema_id)
        event_class = self._class_of(event_type, producer)
        if text is None and event_class is not None and schema_of(event_class).derived_id == schema_id:
            schema = schema_of(event_class)
        elif text is None:
            raise Undecodable(f"expected a schema that an agent announced, found the unknown id {schema_id} on {record.topic}")
        else:
            schema = Schema.parse(text)
        if event_class is not None:
            try:
                event: Event = Reader(schema, event_class).decode(record.value)
            except (Undecodable, ContractRefused):
                # Written under rules that the class does not share; it is shown as it lies there.
                pass
            else:
                return event
        return Reader(schema, None).decode(record.value)

    def _class_of(self, event_type: str, producer: str) -> type[Event] | None:
        """The producer's own, where it has one: two agents may each declare a class for one topic."""
        mine = self._classes.get(producer, {}).get(event_type)
        others = (classes[event_type] for classes in self._classes.values() if event_type in classes)
        return mine or next(others, None)


def _dead_letter(record: Delivery) -> DeadLetter:
    added = {name: (value or b"").decode(errors="replace") for name, value in record.headers if name.startswith("dlq-")}
    headers = [(name, value) for name, value in record.headers if not name.startswith("dlq-")]
    original = {name: (value or b"").decode(errors="replace") for name, value in headers}
    return DeadLetter(
        agent=added["dlq-agent"],
        reason=added["dlq-reason"],
        error=added["dlq-error"],
        attempts=int(added["dlq-attempts"]),
        event_type=original.get("ce_type", ""),
        event_id=original.get("ce_id", ""),
        flow_id=original.get("ce_correlationid", ""),
        topic=added["dlq-topic"],
        partition=int(added["dlq-partition"]),
        offset=int(added["dlq-offset"]),
        key=record.key,
        value=record.value,
        headers=headers,
    )
