"""Times that no store can hold: a record that says one is unreadable, and a declaration that says one harms nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from maypole.schemas.event import DEADLINE_SECONDS_MAX
from maypole.schemas.identifiers import output_event_id, root_event_id, step_id_of
from maypole.schemas.journal import Effect, FlowStarted, Produced, StepCompleted
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.flow_histories import all_flows, story_of
from maypole.services.cli.saga_views import saga_view
from maypole.services.coordinator.stores.port import Store
from maypole.services.coordinator.stores.sqlite import open_sqlite_store
from tests.unit.coordinator.world import DIGEST, ROOT, TestFlow, World, declaration

LONGEST_MS = DEADLINE_SECONDS_MAX * 1000
FOR_EVER = 2**63 - 1


def started(world: World, flow: TestFlow, deadline_ms: int) -> FlowStarted:
    """As anybody may write it."""
    root = Produced(event_id=root_event_id(flow.id, ROOT), type=ROOT, digest=DIGEST)
    return FlowStarted.model_construct(choreography=world.hash, deadline_ms=deadline_ms, roots=(root,))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite_store(tmp_path / "sagas.sqlite3") as store:
        yield store


@pytest.mark.parametrize("deadline_ms", [LONGEST_MS + 1, FOR_EVER])
async def test_a_start_with_a_deadline_that_no_publisher_may_say_is_buried_and_the_rest_goes_on(
    world: World, store: Store, deadline_ms: int
) -> None:
    process = await world.start(store)
    flow, other = world.flow(), await world.flow(DEADLINE_SECONDS_MAX).starts()
    await flow.write(started(world, flow, deadline_ms))
    await other.completes("flight", "hotel", "car")
    await world.settled()
    assert [end.state for end in world.ends(other.id)] == ["committed"]
    [letter] = world.topic("maypole.coordinator.dlq")
    headers = dict(letter.headers)
    assert (headers["dlq-reason"], letter.key) == (b"undecodable", flow.id.encode())
    assert f"deadline_ms: expected less than or equal to {LONGEST_MS}, found {deadline_ms}" in (headers["dlq-error"] or b"").decode()
    await process.stop()
    assert sum((await world.committed("maypole.coordinator")).values()) == len(world.topic(JOURNAL))


async def test_a_join_that_is_declared_to_wait_for_ever_is_kept_and_harms_nobody(world: World, store: Store) -> None:
    """Past a point of no return and past the flow's own deadline nothing else of it is due."""
    night = [
        declaration("dusk", "day.over", "night.fallen", kind="pivot"),
        declaration("sun", "night.fallen", "sun.risen", kind="retriable"),
        declaration("moon", "night.fallen", "moon.risen", kind="retriable"),
        {"name": "eclipse", "subscriptions": [{"on": ["moon.risen", "sun.risen"], "emits": [], "kind": "pure", "within_ms": FOR_EVER}]},
    ]
    await world.announce(*night)
    choreography = await world.platform.catalog.pin("day.over")
    process = await world.start(store)
    flow, other = world.flow(), await world.flow().starts()
    over = Produced(event_id=root_event_id(flow.id, "day.over"), type="day.over", digest=DIGEST)
    await flow.write(FlowStarted(choreography=choreography.hash, deadline_ms=10_000, roots=(over,)))
    trigger = over
    for agent, emits in (("dusk", "night.fallen"), ("sun", "sun.risen")):
        step = step_id_of(flow.id, agent, trigger.type, trigger.event_id)
        came = Produced(event_id=output_event_id(step, emits, 0), type=emits, digest=DIGEST)
        on = trigger.type
        done = StepCompleted(step_id=step, agent=agent, subscription=on, parents=(), effect=Effect.APPLIED, outputs=(came,))
        await flow.write(done)
        trigger = came
    await world.settled(20)
    assert process.coordinator.counts.deadlines == 1, "of the flow; its join is not due yet"
    await other.completes("flight", "hotel", "car")
    await world.settled()
    assert [end.state for end in world.ends(other.id)] == ["committed"]
    assert world.ends(flow.id) == []


async def test_an_agent_adopts_a_flow_whose_start_it_cannot_read(world: World, caplog: pytest.LogCaptureFixture) -> None:
    flow = world.flow()
    await flow.write(started(world, flow, FOR_EVER))
    assert await world.platform.starts.first(flow.id) is None
    [told] = [record for record in caplog.records if record.getMessage() == "flow_starts.record_unreadable"]
    assert told.flow_id == flow.id and f"less than or equal to {LONGEST_MS}" in told.error  # type: ignore[attr-defined]
    await flow.starts()
    start = await world.platform.starts.first(flow.id)
    assert start is not None and start.choreography == world.hash


async def test_whoever_asks_about_a_flow_whose_start_cannot_be_read_is_told_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    flow, other = world.flow(), await world.flow().starts()
    await flow.write(started(world, flow, FOR_EVER))
    await flow.completes("flight")
    found = await all_flows(world.platform)
    assert found.sagas[other.id].choreography is not None and found.sagas[flow.id].choreography is None
    [told] = [record for record in caplog.records if record.getMessage() == "flow_histories.record_unreadable"]
    assert (told.flow_id, told.then) == (flow.id, "maypole dlq list maypole.coordinator")  # type: ignore[attr-defined]
    assert f"deadline_ms: expected less than or equal to {LONGEST_MS}" in told.error  # type: ignore[attr-defined]
    view = saga_view(await story_of(world.platform, flow.id))
    assert (view["choreography"], view["deadline_at"], [step["agent"] for step in view["steps"]]) == (None, None, ["flight"])
