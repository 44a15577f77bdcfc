"""What a coordinator makes of a journal: who is told what, in which order, and what is said in the end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from maypole.schemas.envelope import read_envelope
from maypole.schemas.identifiers import command_id_of, root_traceparent
from maypole.schemas.journal import FlowEnded, StepAbandoned
from maypole.services.coordinator.naming import COORDINATOR, coordinator_is_running
from tests.unit.coordinator.world import World


async def test_a_flow_that_fails_is_undone_in_reverse(world: World) -> None:
    await world.start()
    flow = await (await world.flow().starts()).completes("flight", "hotel")
    await flow.fails("car")
    await world.settled()
    assert world.asked(flow.id) == [("hotel", "compensate")]
    await flow.undone("hotel")
    await world.settled()
    assert world.asked(flow.id) == [("flight", "compensate"), ("hotel", "compensate")]
    assert world.ends(flow.id) == []
    await flow.undone("flight")
    await world.settled()
    assert world.ends(flow.id) == [FlowEnded(state="compensated", reason="the step of car on hotel.booked failed; nothing is left of it")]


async def test_a_flow_that_completes_is_told_as_committed_and_asks_nothing(world: World) -> None:
    await world.start()
    flow = await (await world.flow(business_key="order 7").starts()).completes("flight", "hotel", "car")
    await world.settled()
    assert world.commands() == []
    assert [end.state for end in world.ends(flow.id)] == ["committed"]
    [event] = world.topic("maypole.flow.ended")
    [journaled] = [record for record in world.topic("maypole.journal") if dict(record.headers)["ce_type"] == b"maypole.flow.ended"]
    assert (event.value, event.headers, event.key) == (journaled.value, journaled.headers, journaled.key)
    assert read_envelope(event.headers).business_key == "order 7"
    assert read_envelope(event.headers).choreography == world.hash


async def test_an_end_tells_what_led_to_it_and_not_what_was_met_on_the_way_back(world: World) -> None:
    """A fence stops what runs; that is no failure of its own."""
    await world.start(patience=3600)
    flows = {why: world.flow(deadline_seconds=60 if why == "late" else 3600) for why in ("cancelled", "late", "failed")}
    for why, flow in flows.items():
        await (await flow.starts()).completes("flight")
        await flow.begins("hotel")
        if why == "cancelled":
            await flow.abort()
        elif why == "failed":
            await flow.write(StepAbandoned(step_id=flow.step("hotel")))
    await world.settled(62)
    for flow in flows.values():
        await flow.write(StepAbandoned(step_id=flow.step("hotel")))
        await flow.undone("hotel")
        await flow.undone("flight")
    await world.settled()
    assert {why: [end.reason for end in world.ends(flow.id)] for why, flow in flows.items()} == {
        "cancelled": ["cancelled by somebody: no more; nothing is left of it"],
        "late": ["its deadline passed; nothing is left of it"],
        "failed": ["the step of hotel on flight.booked was stopped under way; nothing is left of it"],
    }


async def test_what_may_still_run_is_fenced_before_anything_is_undone(world: World) -> None:
    await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await flow.begins("hotel")
    await flow.abort()
    await world.settled()
    assert world.asked(flow.id) == [("hotel", "fence")]
    await flow.completes("hotel")  # too late to be fenced: its child must be fenced, then it is undone
    await world.settled()
    assert world.asked(flow.id) == [("car", "fence"), ("hotel", "fence")]
    await flow.fenced("car")
    await world.settled()
    assert world.asked(flow.id) == [("car", "fence"), ("hotel", "fence"), ("hotel", "compensate")]


async def test_a_command_has_the_envelope_that_agents_expect(world: World) -> None:
    await world.start()
    flow = await (await world.flow(business_key="order 7").starts()).completes("flight")
    await flow.fails("hotel")
    await world.settled()
    [record] = world.topic("flight.commands")
    envelope = read_envelope(record.headers)
    assert record.key == flow.id.encode()
    assert str(envelope.event_id) == command_id_of(flow.id, flow.step("flight"), "compensate", 1)
    assert (envelope.type, envelope.flow_id, envelope.choreography) == ("maypole.compensate", flow.id, world.hash)
    assert envelope.business_key == "order 7"
    span = flow.step("flight").replace("-", "")[:16]
    assert envelope.traceparent == f"{root_traceparent(flow.id)[:36]}{span}-01", "it belongs to the step that it is about"


async def test_a_command_about_a_step_that_was_never_heard_of_belongs_to_the_root_of_the_flow(world: World) -> None:
    await world.start()
    flow = await world.flow().starts()
    await flow.abort()
    await world.settled()
    [record] = world.topic("flight.commands")
    assert read_envelope(record.headers).traceparent == root_traceparent(flow.id)


async def test_a_command_is_sent_again_until_it_is_answered_and_then_no_more(world: World) -> None:
    await world.start(patience=3600)
    flow = await world.flow().starts()
    await flow.abort()
    await world.until(lambda: len(world.topic("flight.commands")) >= 4)
    records = world.topic("flight.commands")
    assert len({(record.value, tuple(record.headers)) for record in records}) == 1, "the same command, byte for byte"
    pauses = [later.timestamp_ms - earlier.timestamp_ms for earlier, later in pairwise(records)]
    assert pauses == sorted(pauses)
    await flow.fenced("flight")
    await world.settled()
    sent = len(world.topic("flight.commands"))
    await world.settled(600)
    assert len(world.topic("flight.commands")) == sent
    assert [end.state for end in world.ends(flow.id)] == ["compensated"]


async def test_an_agent_without_a_topic_gets_one(world: World) -> None:
    assert "flight.commands" not in world.broker.topics()
    await world.start()
    flow = await world.flow().starts()
    await flow.abort()
    await world.until(lambda: "flight.commands" in world.broker.topics())
    assert world.asked(flow.id) == [("flight", "fence")]


async def test_an_agent_that_does_not_exist_makes_its_flow_stuck_with_its_step_named(world: World) -> None:
    await world.platform.catalog.retire("flight")
    await world.start(patience=60)
    flow = await world.flow().starts()  # pinned to a choreography that still has it
    await flow.abort()
    await world.settled(65)
    assert world.asked(flow.id) == [("flight", "fence")], "its topic was made, and the command lies there"
    (letter,) = world.topic("maypole.coordinator.dlq")
    headers = dict(letter.headers)
    assert headers["dlq-reason"] == b"compensation_failed"
    assert f"flight on trip.asked (step {flow.step('flight')}): its agent did not answer" in (headers["dlq-error"] or b"").decode()
    assert world.ends(flow.id) == []


async def test_an_agent_that_cannot_be_told_does_not_keep_others_from_being_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.broker.faults.refuse = lambda record: "no room" if record.topic == "flight.commands" else None
    await world.start(patience=3600)
    one = await world.flow().starts()
    await one.abort()
    other = await (await world.flow().starts()).completes("flight")
    await other.abort()
    await world.settled(30)
    assert world.asked(other.id) == [("hotel", "fence")]
    assert [record.getMessage() for record in caplog.records].count("coordinator.agent_unreachable") == 1
    world.broker.faults.refuse = lambda record: None
    await world.until(lambda: world.asked(one.id) == [("flight", "fence")])


async def test_who_asks_can_tell_whether_a_coordinator_runs(world: World) -> None:
    assert not coordinator_is_running(world.view(), world.clock.now())
    process = await world.start()
    await world.platform.catalog.refresh()
    assert coordinator_is_running(world.view(), world.clock.now())
    await world.settled(120)
    await world.platform.catalog.refresh()
    assert coordinator_is_running(world.view(), world.clock.now())
    [facts] = [facts for (name, _), facts in world.view().instances.items() if name == COORDINATOR]
    assert facts["partitions"] == [0, 1, 2, 3]
    await process.stop()
    await world.platform.catalog.refresh()
    assert not coordinator_is_running(world.view(), world.clock.now())
