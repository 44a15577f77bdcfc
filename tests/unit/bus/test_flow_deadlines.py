"""How long a flow may take: what its publisher says, else what its root's type declares, else an hour."""

from __future__ import annotations

import math

import pytest

from maypole.bus import Agent, Event
from maypole.bus.testing import Choreography
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.errors import ContractRefused, UnsafeSchema
from maypole.schemas.event import DEADLINE_SECONDS_MAX
from maypole.schemas.journal import FlowStarted
from maypole.schemas.topics import JOURNAL, PLATFORM
from tests.support.world import read_topic


class Hurried(Event, type="limits.hurried", deadline_seconds=90):
    number: int


class Patient(Event, type="limits.patient"):
    number: int


def reading() -> Agent:
    agent = Agent("reading")

    @agent.on(Hurried)
    async def hurry(event: Hurried) -> None: ...

    @agent.on(Patient)
    async def take_time(event: Patient) -> None: ...

    return agent


@pytest.mark.parametrize(
    ("event", "said", "seconds"),
    [(Hurried(number=1), None, 90), (Hurried(number=1), 5, 5), (Patient(number=1), None, 3600), (Patient(number=1), 7200, 7200)],
)
async def test_the_publisher_says_it_then_the_type_and_otherwise_it_is_an_hour(event: Event, said: float | None, seconds: float) -> None:
    async with Choreography([reading()]) as world:
        flow = await world.publish(event, deadline_seconds=said)
        (started,) = (record for record in flow.journal if isinstance(record, FlowStarted))
        assert started.deadline_ms == seconds * 1000


async def test_a_publisher_that_has_the_class_needs_no_agent_that_has_it_too() -> None:
    agent = Agent("reading")

    @agent.on("limits.hurried")
    async def hurry(event: object) -> None: ...

    async with Choreography([agent]) as world:
        flow = await world.publish(Hurried(number=1))
        assert world._platform.catalog.view.deadline_seconds("limits.hurried") is None
        (started,) = (record for record in flow.journal if isinstance(record, FlowStarted))
        assert started.deadline_ms == 90_000


async def test_whoever_knows_only_the_name_of_the_type_is_told_by_the_catalog() -> None:
    async with Choreography([reading()]) as world:
        platform, schema = world._platform, schema_of(Hurried)
        value = Writer(Hurried, schema.derived_id).encode(Hurried(number=1))
        await world._bus.publish_value("limits.hurried", value)
        assert platform.catalog.view.deadline_seconds("limits.hurried") == 90
        found = await read_topic(platform, "maypole.journal")
        (started,) = [record for record in found if dict(record.headers)["ce_type"] == b"maypole.flow.started"]
        reader = await platform.contracts.reader(FlowStarted, int.from_bytes((started.value or b"")[1:5], "big"))
        assert reader.decode(started.value or b"").deadline_ms == 90_000


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, 7 * 86_400 + 1])
def test_what_is_no_time_is_refused_where_it_is_declared(seconds: float) -> None:
    with pytest.raises(UnsafeSchema, match="expected deadline_seconds of more than 0"):

        class Never(Event, type="limits.never", deadline_seconds=seconds):
            number: int


@pytest.mark.parametrize("seconds", [7 * 86_400, 7 * 86_400 + 1])
async def test_a_flow_has_to_come_to_its_deadline_well_before_its_journal_is_forgotten(seconds: float) -> None:
    retention_seconds = next(topic.retention_ms for topic in PLATFORM if topic.name == JOURNAL) / 1000
    assert retention_seconds > 3 * DEADLINE_SECONDS_MAX
    async with Choreography([reading()]) as world:
        if seconds <= DEADLINE_SECONDS_MAX:
            await world.publish(Hurried(number=1), deadline_seconds=seconds)
            return
        with pytest.raises(ContractRefused, match="at most 604800 s, so that a flow which gets stuck can be decided about"):
            await world.publish(Hurried(number=1), deadline_seconds=seconds)
