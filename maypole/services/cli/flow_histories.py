"""What the journal says up to now: of one flow everything, of all flows where they stand. Read anew for each command."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from maypole.bus.choreography import Choreography
from maypole.bus.composition import Platform
from maypole.bus.partition_counts import partition_counts
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, TopicPartition
from maypole.schemas.envelope import degraded_of, read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import FlowStarted
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.dead_letters import read_ranges
from maypole.services.cli.flow_story import FlowStory
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.following import Journaled, journaled
from maypole.services.saga import FlowState, Saga, UnknownPin, fold, step

log = logging.getLogger("maypole.services.cli.flow_histories")


async def story_of(platform: Platform, flow_id: str) -> FlowStory:
    """Raises `Problem` where the journal says nothing of the flow, or nobody knows what it is pinned to."""
    flow = FlowId(flow_id)
    story = (await stories_of(platform, [flow])).get(flow)
    if story is None:
        raise Problem(
            f"expected a flow of which the journal tells, found nothing about {flow!r}",
            ExitCode.NOT_FOUND,
            "maypole flows stuck lists those that wait for somebody; `maypole publish` prints the id of each flow it starts",
        )
    return story


async def stories_of(platform: Platform, flows: Collection[FlowId]) -> dict[FlowId, FlowStory]:
    """Of those that the journal tells of, in its order. Raises `Problem` where nobody knows what one is pinned to."""
    partitions = (await partition_counts(platform.transport.cluster, [JOURNAL]))[JOURNAL]
    places = sorted({TopicPartition(JOURNAL, partition_of(flow.encode(), partitions)) for flow in flows})
    stories: dict[FlowId, FlowStory] = {}
    choreographies: dict[str, Choreography] = {}
    if not places:
        return stories
    async for told in _journal(platform, places):
        flow = told.envelope.flow_id
        if flow not in flows:
            continue
        await _learn(platform, told, choreographies)
        story = stories.setdefault(flow, FlowStory())
        state = fold(story.state or FlowState(flow), told.record, choreographies, told.at_ms)
        story.see(replace(told, state=state))
    return stories


async def all_sagas(platform: Platform) -> dict[FlowId, Saga]:
    """Where every flow stands of which the journal still tells. One that is pinned to what nobody knows is logged and left out."""
    partitions = (await partition_counts(platform.transport.cluster, [JOURNAL]))[JOURNAL]
    sagas: dict[FlowId, Saga] = {}
    choreographies: dict[str, Choreography] = {}
    async for told in _journal(platform, [TopicPartition(JOURNAL, partition) for partition in range(partitions)]):
        flow = told.envelope.flow_id
        await _learn(platform, told, choreographies)
        try:
            sagas[flow], _ = step(sagas.get(flow) or Saga(flow), told.record, told.at_ms, choreographies)
        except UnknownPin as error:
            log.warning("flow_histories.flow_unreadable", extra={"flow_id": flow, "error": str(error)})
    return sagas


async def _journal(platform: Platform, places: list[TopicPartition]) -> AsyncIterator[Journaled]:
    ranges = await platform.transport.cluster.watermarks(places)
    async for record in read_ranges(platform.transport, ranges):
        told = await _read(platform, record)
        if told is not None:
            yield told


async def _read(platform: Platform, record: Delivery) -> Journaled | None:
    try:
        envelope = read_envelope(record.headers)
        body = await journaled(platform, record, envelope)
    except (Undecodable, ContractRefused) as error:
        position = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        log.warning("flow_histories.record_unreadable", extra={**position, "error": str(error)})
        return None
    return Journaled(body, envelope, record.timestamp_ms, FlowState(envelope.flow_id), degraded_of(record.headers))


async def _learn(platform: Platform, told: Journaled, choreographies: dict[str, Choreography]) -> None:
    if isinstance(told.record, FlowStarted) and told.record.choreography not in choreographies:
        found = await platform.catalog.choreography(told.record.choreography)
        if found is not None:
            choreographies[told.record.choreography] = found
