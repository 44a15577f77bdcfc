"""Following one flow as it happens: its partition of the journal is read and folded, and its events beside it.

Everything of a flow has its id as key, so one partition of each topic holds all there is to see.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from maypole.bus.choreography import Choreography, derive_choreography
from maypole.bus.composition import Platform
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, TopicPartition
from maypole.schemas.codec import schema_id_of
from maypole.schemas.envelope import Envelope, degraded_of, flow_of, read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, flow_id_of
from maypole.schemas.journal import RECORDS, FlowStarted
from maypole.schemas.topics import JOURNAL, dead_letter_topic
from maypole.services.saga import FlowState, fold

log = logging.getLogger("maypole.services.following")

_READ_SECONDS: Final = 0.5
_JOURNALED: Final = {record.event_type: record for record in RECORDS}


@dataclass(frozen=True, slots=True)
class Journaled:
    """A record of the flow's journal, and the state that it leads to. `at_ms` is the broker's time since the epoch.

    `degraded` lies beside the record, not in it: what was done instead of calling the step's handler, or `inherited`.
    """

    record: Event
    envelope: Envelope
    at_ms: int
    state: FlowState
    degraded: str | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event of the flow on its topic. `data` is None where it cannot be decoded here, and `error` says why."""

    envelope: Envelope
    at_ms: int
    data: Mapping[str, Any] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter of the flow, where it lies, and why."""

    agent: str
    event_id: str
    """Of the event that could not be handled; empty where its headers do not tell."""
    partition: int
    offset: int
    reason: str
    error: str

    @property
    def place(self) -> str:
        """What `maypole dlq show` takes."""
        return f"{self.agent}/{self.partition}/{self.offset}"


Seen: TypeAlias = Journaled | Arrived | Buried


@dataclass(frozen=True, slots=True)
class Vantage:
    """Where to begin reading so that nothing of a flow is missed: taken before the flow is published."""

    positions: Mapping[TopicPartition, int]
    partitions: Mapping[str, int]

    def of(self, flow: FlowId) -> Mapping[TopicPartition, int]:
        """The flow's partition of each topic."""
        places = (TopicPartition(topic, partition_of(flow.encode(), count)) for topic, count in self.partitions.items())
        return {at: self.positions[at] for at in places}


async def take_vantage(platform: Platform, root_type: str, idempotency_key: str | None = None) -> Vantage:
    """The ends of the topics that a flow of this root will touch; their beginnings when the key has already started it."""
    choreography = derive_choreography(root_type, platform.catalog.view.active())
    watermarks, partitions = await _watermarks(platform, choreography)
    # Asked after the ends were taken: whatever starts the flow from now on lies behind them.
    known = idempotency_key is not None and await platform.starts.first(flow_id_of(root_type, idempotency_key)) is not None
    return Vantage({at: oldest if known else end for at, (oldest, end) in watermarks.items()}, partitions)


async def vantage_from_start(platform: Platform, choreography: Choreography) -> Vantage:
    """The beginnings of the topics that a flow of this choreography touches: for one that has started already."""
    watermarks, partitions = await _watermarks(platform, choreography)
    return Vantage({at: oldest for at, (oldest, _) in watermarks.items()}, partitions)


async def _watermarks(platform: Platform, choreography: Choreography) -> tuple[Mapping[TopicPartition, tuple[int, int]], Mapping[str, int]]:
    there = await platform.transport.cluster.topics()
    partitions = {topic: there[topic] for topic in (JOURNAL, *_topics(choreography)) if topic in there}
    places = [TopicPartition(topic, partition) for topic, count in partitions.items() for partition in range(count)]
    return await platform.transport.cluster.watermarks(places), partitions


async def follow(platform: Platform, flow: FlowId, vantage: Vantage) -> AsyncIterator[Seen]:
    """Everything that happens in the flow from the vantage on, without end: the caller knows when it has seen enough.

    Records of one topic come in their order; those of different topics in any. A record that nobody can read is left out
    of the fold: its agent's dead letter tells of it.
    """
    state = FlowState(flow)
    choreographies: dict[str, Choreography] = {}
    async with platform.transport.reader(vantage.of(flow)) as reader:
        while True:
            for record in await reader.read(_READ_SECONDS):
                if flow_of(record.headers) != flow:
                    continue
                seen = await _seen(platform, record, state, choreographies)
                if seen is None:
                    continue
                if isinstance(seen, Journaled):
                    state = seen.state
                yield seen


async def _seen(platform: Platform, record: Delivery, state: FlowState, choreographies: dict[str, Choreography]) -> Seen | None:
    headers = dict(record.headers)
    if "dlq-reason" in headers:
        names = ("dlq-agent", "ce_id", "dlq-reason", "dlq-error")
        agent, event_id, reason, error = ((headers.get(name) or b"").decode(errors="replace") for name in names)
        return Buried(agent, event_id, record.partition, record.offset, reason, error)
    try:
        envelope = read_envelope(record.headers)
        if record.topic != JOURNAL:
            return await _arrived(platform, record, envelope)
        body = await journaled(platform, record, envelope)
    except (Undecodable, ContractRefused) as error:
        position = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        log.warning("following.record_unreadable", extra={**position, "flow_id": state.flow_id, "error": str(error)})
        return None
    if isinstance(body, FlowStarted):
        choreography = await platform.catalog.choreography(body.choreography)
        if choreography is not None:
            choreographies[body.choreography] = choreography
    after = fold(state, body, choreographies, record.timestamp_ms)
    return Journaled(body, envelope, record.timestamp_ms, after, degraded_of(record.headers))


async def journaled(platform: Platform, record: Delivery, envelope: Envelope) -> Event:
    """What a record of the journal says. Raises `Undecodable` or `ContractRefused`."""
    event_class = _JOURNALED.get(envelope.type)
    if event_class is None or record.value is None:
        raise Undecodable(f"expected a journal record, found {envelope.type}")
    reader = await platform.contracts.reader(event_class, schema_id_of(record.value))
    body: Event = reader.decode(record.value)
    return body


async def _arrived(platform: Platform, record: Delivery, envelope: Envelope) -> Arrived:
    try:
        if record.value is None:
            raise Undecodable("expected a value, found none")
        reader = await platform.contracts.reader(None, schema_id_of(record.value))
        return Arrived(envelope, record.timestamp_ms, reader.decode(record.value))
    except Undecodable as error:
        return Arrived(envelope, record.timestamp_ms, None, str(error))


def _topics(choreography: Choreography) -> set[str]:
    events = {event for reaction in choreography.reactions for event in (*reaction.on, *reaction.emits)}
    return {choreography.root, *events, *(dead_letter_topic(reaction.agent) for reaction in choreography.reactions)}
