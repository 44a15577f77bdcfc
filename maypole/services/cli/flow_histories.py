"""What the journal says up to now: of one flow everything, of all flows where they stand. Read anew for each command."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from typing import Final

from maypole.bus.choreography import Choreography
from maypole.bus.composition import Platform
from maypole.bus.partition_counts import partition_counts
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, TopicPartition
from maypole.schemas.envelope import degraded_of, flow_of, read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import FlowEnded, FlowStarted
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.dead_letters import read_ranges
from maypole.services.cli.flow_story import FlowStory
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command
from maypole.services.coordinator.naming import COORDINATOR
from maypole.services.following import Journaled, journaled
from maypole.services.saga import FlowState, Saga, UnknownPin, fold, step

log = logging.getLogger("maypole.services.cli.flow_histories")

_DEAD_LETTERS: Final = command("dlq", "list", COORDINATOR)


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
    known: dict[str, Choreography] = {}
    unknown: set[str] = set()
    if not places:
        return stories
    async for told in _journal(platform, places):
        flow = told.envelope.flow_id
        if flow not in flows:
            continue
        await _learn(platform, told, known, unknown)
        story = stories.setdefault(flow, FlowStory())
        try:
            state = fold(story.state or FlowState(flow), told.record, known, told.at_ms)
        except UnknownPin as error:
            parked = _parked(error, told)
            why = f"{error}: it is parked, and its coordinator goes on with it once it is recorded again"
            raise Problem(why, ExitCode.FAILED, parked.next) from None
        story.see(replace(told, state=state))
    return stories


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A flow that is pinned to a choreography which the catalog does not hold. Its coordinator waits until it does."""

    flow_id: FlowId
    choreography: str
    """Its hash."""
    root: str
    """The type of event that started it."""
    started_ms: int

    @property
    def next(self) -> str:
        """What to type."""
        again = command("publish", self.root)
        return f"{again}   (with its agents running as they were declared then: it records the choreography again)"


@dataclass(frozen=True, slots=True)
class AllFlows:
    """Every flow of which the journal still tells, but for those that ended and cannot be read any more."""

    sagas: dict[FlowId, Saga]
    unreadable: dict[FlowId, Unreadable]


async def all_flows(platform: Platform) -> AllFlows:
    """Where every flow stands."""
    partitions = (await partition_counts(platform.transport.cluster, [JOURNAL]))[JOURNAL]
    sagas: dict[FlowId, Saga] = {}
    unreadable: dict[FlowId, Unreadable | None] = {}
    known: dict[str, Choreography] = {}
    unknown: set[str] = set()
    async for told in _journal(platform, [TopicPartition(JOURNAL, partition) for partition in range(partitions)]):
        flow, record = told.envelope.flow_id, told.record
        if flow in unreadable:
            # All that can be told of it is that it came to an end.
            unreadable[flow] = None if isinstance(record, FlowEnded) else unreadable[flow]
            continue
        await _learn(platform, told, known, unknown)
        try:
            sagas[flow], _ = step(sagas.get(flow) or Saga(flow), record, told.at_ms, known)
        except UnknownPin as error:
            sagas.pop(flow, None)  # of what came before its start nothing can be told, either
            unreadable[flow] = _parked(error, told)
    return AllFlows(sagas, {flow: each for flow, each in unreadable.items() if each is not None})


def _parked(error: UnknownPin, told: Journaled) -> Unreadable:
    assert isinstance(told.record, FlowStarted)
    return Unreadable(told.envelope.flow_id, error.choreography, told.record.roots[0].type, told.at_ms)


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
        flow = flow_of(record.headers)
        log.warning("flow_histories.record_unreadable", extra={**position, "flow_id": flow, "error": str(error), "then": _DEAD_LETTERS})
        return None
    return Journaled(body, envelope, record.timestamp_ms, FlowState(envelope.flow_id), degraded_of(record.headers))


async def _learn(platform: Platform, told: Journaled, known: dict[str, Choreography], unknown: set[str]) -> None:
    """Each is asked for once: flows that wait for one nobody knows may be many."""
    if isinstance(told.record, FlowStarted) and told.record.choreography not in known.keys() | unknown:
        found = await platform.catalog.choreography(told.record.choreography)
        if found is None:
            unknown.add(told.record.choreography)
        else:
            known[told.record.choreography] = found
