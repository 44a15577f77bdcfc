"""Finding out what `topic_plan` decides on: the broker's topics and settings, the catalog, and the newest records' schema ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from maypole.bus.catalog import View, open_catalog
from maypole.bus.ports import TopicPartition, Transport
from maypole.bus.record_sizes import input_bytes_max, record_bytes_max
from maypole.bus.runner import topics_of
from maypole.bus.subscription import by_topic
from maypole.schemas.codec import schema_id_of
from maypole.schemas.errors import Undecodable
from maypole.schemas.topics import CATALOG, JOURNAL, PARTITIONS_DEFAULT
from maypole.services.cli.targets import load_agents
from maypole.services.cli.topic_plan import Declared, Finding, add_catalog, id_space_fault, kind_of, plan, read_by

_SAMPLE_RECORDS: Final = 5
"""Newest records of each partition that are looked at."""
_READ_SECONDS: Final = 0.5


async def find(transport: Transport, targets: Sequence[str], partitions: int | None, *, registry: bool) -> list[Finding]:
    """`registry`: whether schema ids are to be a registry's here. Changes nothing."""
    agents = load_agents(targets)
    there = await transport.cluster.topics()
    view = View()
    if CATALOG in there:
        async with transport.sink() as sink, open_catalog(transport, sink) as catalog:
            view = catalog.view
    inputs = {agent.name: set(by_topic(agent.subscriptions)) for agent in agents}
    read = {JOURNAL}.union(*inputs.values(), *map(read_by, view.active())) & there.keys()
    limits = await record_bytes_max(transport.cluster, read) if transport.features.topic_config else {}
    declared = Declared()
    for agent in agents:
        declared.add(agent.name, topics_of(agent, input_bytes_max(limits, inputs[agent.name])))
    add_catalog(declared, view, limits)
    present = [name for name in declared.topics if name in there]
    configs = {name: await transport.cluster.topic_config(name) for name in present} if transport.features.topic_config else {}
    samples = await _schema_ids(transport, {name: there[name] for name in present if kind_of(name) == "events"})
    faults = {name: fault for name, ids in samples.items() if (fault := id_space_fault(name, ids, registry)) is not None}
    return plan(declared, there, configs, faults, partitions or PARTITIONS_DEFAULT)


async def _schema_ids(transport: Transport, topics: Mapping[str, int]) -> dict[str, list[int]]:
    places = [TopicPartition(topic, partition) for topic, count in topics.items() for partition in range(count)]
    if not places:
        return {}
    watermarks = await transport.cluster.watermarks(places)
    start = {at: max(oldest, end - _SAMPLE_RECORDS) for at, (oldest, end) in watermarks.items() if end > oldest}
    found: dict[str, list[int]] = {}
    if not start:
        return found
    awaited = {at: watermarks[at][1] for at in start}
    async with transport.reader(start) as reader:
        while awaited:
            records = await reader.read(_READ_SECONDS)
            if not records:
                break  # the rest are transaction markers or were compacted away
            for record in records:
                at = TopicPartition(record.topic, record.partition)
                if record.offset + 1 >= awaited.get(at, 0):
                    awaited.pop(at, None)
                try:
                    found.setdefault(record.topic, []).append(schema_id_of(record.value))
                except Undecodable:
                    continue  # told by the agent that gets it, in its dead letter
    return found
