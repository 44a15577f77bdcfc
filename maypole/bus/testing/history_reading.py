"""Histories read back: from a broker in memory at once, from any cluster through its transport."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from maypole.bus.catalog import View
from maypole.bus.choreography import Reaction
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.moves import RETRY_DUE, HeaderUnreadable, time_in
from maypole.bus.ports import Delivery, Headers, TopicPartition, Transport
from maypole.bus.testing.history_entries import Began, Buried, Closed, Committed, Due, Ended, Entry, Outcome, Pinned, Started, Stored
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader, schema_id_of
from maypole.schemas.envelope import CAUSATION_ID, CHOREOGRAPHY, CORRELATION_ID, ID, OBSERVER, SOURCE, TIME
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.journal import (
    RECORDS,
    FlowEnded,
    FlowStarted,
    StepAbandoned,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
)  # fmt: skip
from maypole.schemas.topics import CATALOG, FLOW_ENDED, JOURNAL, dead_letter_topic

Positions = Mapping[str, Mapping[TopicPartition, int]]
"""Of each agent, an offset for each of its partitions."""

_LETTERS: Final = dead_letter_topic("")
_RETRIES: Final = ".retry."
_AGENTS: Final = "/agents/"
_READERS: Final = {schema_of(record).derived_id: Reader(schema_of(record), record) for record in RECORDS}
_READ_SECONDS: Final = 0.5


def history_of(broker: MemoryBroker, began: Positions | None = None) -> list[Entry]:
    """Everything that ever was on a broker in memory.

    `began`: where agents began to read, for those that did not begin at the oldest record.
    """
    records: list[Delivery] = []
    for topic, count in broker.topics().items():
        for partition in range(count):
            records += broker.log(TopicPartition(topic, partition)).ever(0)
    agents = _subscriptions(records)
    committed = {agent: broker.group(agent).committed for agent in agents}
    return [*entries_of(records), *_ranges(began or {}, committed)]


async def read_history(transport: Transport, began: Positions, topics: Collection[str]) -> list[Entry]:
    """What these agents did on these topics of events, up to now. `began` names the agents, and where each began to read.

    The cluster may hold other agents' work, which is left out. Raises `BrokerUnreachable`. Agents that still work make a
    history that has not come to rest.
    """
    counts = await transport.cluster.topics()
    wanted = {JOURNAL, CATALOG, *topics, *map(dead_letter_topic, began)} & counts.keys()
    records = await read_partitions(transport, [TopicPartition(topic, each) for topic in wanted for each in range(counts[topic])])
    committed = {agent: await transport.cluster.committed(agent, list(partitions)) for agent, partitions in began.items()}
    entries = [entry for entry in entries_of(records) if not isinstance(entry, Ended) or not entry.agent or entry.agent in began]
    return [*entries, *_ranges(began, committed)]


async def read_partitions(transport: Transport, partitions: Collection[TopicPartition]) -> list[Delivery]:
    """What lies on these partitions up to now, by partition and offset."""
    ends = await transport.cluster.watermarks(partitions)
    positions = {at: oldest for at, (oldest, end) in ends.items() if oldest < end}
    found: list[Delivery] = []
    if positions:
        async with transport.reader(dict(positions)) as reader:
            while any(positions[at] < ends[at][1] for at in positions):
                for record in await reader.read(_READ_SECONDS):
                    positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
                    found.append(record)
    return sorted(found, key=lambda record: (record.topic, record.partition, record.offset))


def entries_of(records: Iterable[Delivery]) -> Iterator[Entry]:
    """What records say by the topics they lie on. Journal records that cannot be read say nothing."""
    view = View()
    for record in records:
        if record.topic == JOURNAL:
            yield from _journaled(record)
        elif record.topic == CATALOG:
            view.apply(record)
        elif record.topic.endswith(_LETTERS):
            yield from _buried(record)
        elif _RETRIES in record.topic:
            yield from _put_off(record)
        elif record.topic != FLOW_ENDED:
            yield stored(record)
    for choreography in view.choreographies.values():
        agents = frozenset(each.agent for each in choreography.reactions)
        pure = _places(each for each in choreography.reactions if each.is_pure and not each.is_join)
        joins = _places(each for each in choreography.reactions if each.is_join)
        expiring = _places(each for each in choreography.reactions if each.within_ms is not None)
        yield Pinned(choreography.hash, agents, pure, joins, expiring)


def _places(reactions: Iterable[Reaction]) -> frozenset[tuple[str, str]]:
    return frozenset((each.agent, topic) for each in reactions for topic in each.on)


def stored(record: Delivery) -> Stored:
    headers = _texts(record.headers)
    source = headers.get(SOURCE, "")
    return Stored(
        at=TopicPartition(record.topic, record.partition),
        offset=record.offset,
        time_ms=record.timestamp_ms,
        flow=headers.get(CORRELATION_ID, ""),
        event_id=headers.get(ID, ""),
        parent=headers.get(CAUSATION_ID),
        maker=source.removeprefix(_AGENTS) if source.startswith(_AGENTS) else "",
        choreography=headers.get(CHOREOGRAPHY, ""),
        observed=OBSERVER in headers,
        digest=_digest(record),
    )


def _journaled(record: Delivery) -> Iterator[Entry]:
    headers = _texts(record.headers)
    flow, record_id = headers.get(CORRELATION_ID, ""), headers.get(ID, "")
    try:
        body = _READERS[schema_id_of(record.value)].decode(record.value or b"")
    except (KeyError, Undecodable, ContractRefused):
        return
    match body:
        case FlowStarted():
            yield Started(record.offset, flow, body.choreography)
        case FlowEnded():
            yield Closed(record.offset, flow, body.state)
        case StepCompleted():
            outputs = tuple((output.event_id, output.digest) for output in body.outputs)
            ended = (body.step_id, body.agent, tuple(body.parents), Outcome.COMPLETED, outputs)
            yield Ended(record.offset, record.timestamp_ms, record_id, flow, *ended)
        case StepFailed():
            yield Ended(record.offset, record.timestamp_ms, record_id, flow, body.step_id, body.agent, tuple(body.parents), Outcome.FAILED)
        case StepAbandoned() | StepFenced() | StepCompensated():
            outcome = {StepAbandoned: Outcome.ABANDONED, StepFenced: Outcome.FENCED, StepCompensated: Outcome.COMPENSATED}[type(body)]
            yield Ended(record.offset, record.timestamp_ms, record_id, flow, body.step_id, "", (), outcome)


def _buried(record: Delivery) -> Iterator[Buried]:
    headers = _texts(record.headers)
    try:
        at = TopicPartition(headers["dlq-topic"], int(headers["dlq-partition"]))
        yield Buried(headers["dlq-agent"], at, int(headers["dlq-offset"]), headers["dlq-reason"])
    except (KeyError, ValueError):
        return  # written by somebody else's program: it accounts for nothing


def _put_off(record: Delivery) -> Iterator[Due]:
    """A copy of what lies elsewhere: all that it adds is when it is due."""
    headers = dict(record.headers)
    try:
        due_ms = time_in(headers, RETRY_DUE)
    except HeaderUnreadable:
        return
    yield Due(record.topic.partition(_RETRIES)[0], _texts(record.headers).get(ID, ""), record.timestamp_ms, due_ms)


def _subscriptions(records: Iterable[Delivery]) -> set[str]:
    view = View()
    for record in records:
        if record.topic == CATALOG:
            view.apply(record)
    return set(view.agents)


def _ranges(began: Positions, committed: Positions) -> Iterator[Entry]:
    for agent, offsets in began.items():
        for at, offset in offsets.items():
            yield Began(agent, at, offset)
    for agent, positions in committed.items():
        for at, position in positions.items():
            if _RETRIES not in at.topic:
                yield Committed(agent, at, position)


def _texts(headers: Headers) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in headers if value is not None}


def _digest(record: Delivery) -> bytes:
    """Of what a repetition must repeat: key, value and `ce_` headers. Each with its length, so that nothing can move over.

    Without `ce_time`: a pure step's is its trigger's broker time, and a trigger that was written twice has two.
    """
    parts = [record.key, record.value]
    for name, value in sorted(record.headers, key=lambda header: header[0]):
        if name.startswith("ce_") and name != TIME:
            parts += [name.encode(), value]
    state = hashlib.sha256()
    for part in parts:
        state.update(b"-" if part is None else b"%d:" % len(part) + part)
    return state.digest()
