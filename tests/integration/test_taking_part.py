"""Who takes part in a flow: roots of foreign clients, observers, agents that come and go, one key for one event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from maypole.bus import Agent, Context, IdempotencyConflict, Reject
from maypole.bus.composition import Platform
from maypole.bus.hook import Outcome, Processing, Untraced
from maypole.bus.no_return import NoWayBack
from maypole.bus.ports import Delivery
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from maypole.schemas.envelope import Envelope
from maypole.schemas.identifiers import EventId, FlowId, output_event_id, step_id_of
from maypole.schemas.journal import FlowEnded, FlowStarted, StepCompleted
from maypole.schemas.topics import JOURNAL, event_topic
from maypole.services.cli.coordinating import coordinating
from maypole.services.saga import State
from tests.support.asking import Answered, Asked, Told, answering, foreign
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, headers_of, ids, journal_of, letters, read_topic, running, state_of


async def test_a_flow_that_could_be_left_half_done_is_neither_started_nor_adopted(platform: Platform) -> None:
    """Two agents that were announced side by side, each before it saw the other, are found when a flow is pinned."""
    agent, name = answering(), unique_agent("hasty")
    hasty = {"name": name, "subscriptions": [{"on": "delivery.asked", "emits": [], "kind": "retriable"}]}
    why = f"{name} on delivery.asked is retriable, but may act before any pivot"
    flow = FlowId(f"hopeless-{agent.name}")
    async with running(platform, agent):
        await platform.catalog.announce(hasty, {})
        before = len(await read_topic(platform, JOURNAL)), len(await read_topic(platform, "delivery.asked"))
        with pytest.raises(NoWayBack, match=why):
            await platform.bus("tests", Untraced()).publish(Asked(text="hello"))
        assert (len(await read_topic(platform, JOURNAL)), len(await read_topic(platform, "delivery.asked"))) == before
        await platform.sink.publish([foreign(Asked(text="hello"), flow)])
        ((_, said),) = await letters(platform, agent.name, 1)
        assert said["dlq-reason"] == "unknown_flow"
        assert "a flow of delivery.asked cannot be adopted" in said["dlq-error"] and why in said["dlq-error"]
        assert await journal_of(platform, flow) == []
        await platform.catalog.retire(name)
        published = await platform.bus("tests", Untraced()).publish(Asked(text="again"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED, "and it was that agent alone"


async def test_a_foreign_root_that_names_an_unknown_choreography_pins_its_flow_to_nothing(platform: Platform) -> None:
    agent = answering()
    flow = FlowId(f"lost-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, "e1", ("ce_choreography", b"f" * 64))])
        ((_, why),) = await letters(platform, agent.name, 1)
        assert why["dlq-reason"] == "unknown_flow"
        assert await journal_of(platform, flow) == []


async def test_whoever_subscribes_to_the_ends_of_flows_observes(platform: Platform) -> None:
    agent, seen = Agent(unique_agent("watcher")), []

    @agent.on("maypole.flow.ended")
    async def watch(end: Any) -> None:
        seen.append(end["state"])

    flow = FlowId(f"ended-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(FlowEnded(state="committed", reason=""), flow)])

        async def states() -> list[str]:
            return list(seen)

        assert await eventually(states, bool) == ["committed"]
    assert await journal_of(platform, flow) == []
    assert await read_topic(platform, f"{agent.name}.dlq") == []


async def test_an_agent_reacts_to_the_end_that_a_coordinator_publishes(platform: Platform) -> None:
    """Of a flow that went well, and of one that is undone; what it makes of them is nobody's flow."""
    answers, refuses, watches, undone = answering(), Agent(unique_agent("refusing")), Agent(unique_agent("watching")), []

    @refuses.on(Asked)
    async def prepare(asked: Asked) -> None: ...

    @prepare.undo
    async def put_away(asked: Asked) -> None:
        undone.append(asked.text)

    @refuses.on(Answered)
    async def refuse(answered: Answered) -> None:
        if answered.text == "NO":
            raise Reject("not this one", acted=False)

    @watches.on("maypole.flow.ended")
    async def watch(end: Any, context: Context) -> Told:
        return Told(text=f"{context.flow_id} {end['state']}: {end['reason']}")

    async def told() -> list[Delivery]:
        return [record for record in await read_topic(platform, "delivery.told") if record.key in flows]

    async with coordinating(platform) as (coordinator, _), running(platform, answers, refuses, watches):
        await coordinator.ready.wait()
        bus = platform.bus("tests", Untraced())
        well, badly = [(await bus.publish(Asked(text=text))).flow_id for text in ("yes", "no")]
        flows = {flow.encode() for flow in (well, badly)}
        reactions = await eventually(told, lambda found: len(found) == 2)
    assert {Reader(schema_of(Told), Told).decode(record.value or b"").text for record in reactions} == {
        f"{well} committed: every step that was expected has completed",
        f"{badly} compensated: the step of {refuses.name} on delivery.answered failed; nothing is left of it",
    }
    assert undone == ["no"], "it is told once nothing is left"
    assert {headers_of(record)["ce_observer"] for record in reactions} == {b"true"}
    journaled = [record for flow in (well, badly) for _, record in await journal_of(platform, flow)]
    assert watches.name not in {record.agent for record in journaled if isinstance(record, StepCompleted)}
    assert await read_topic(platform, f"{watches.name}.dlq") == []


async def test_a_foreign_root_is_adopted_once_though_two_agents_get_it(platform: Platform) -> None:
    one, two = answering(), answering()
    flow = FlowId(f"foreign-{one.name}")
    async with running(platform, one, two):
        await platform.sink.publish([foreign(Asked(text="hello"), flow)])
        state = await ended(platform, flow)
    journal = await journal_of(platform, flow)
    started = [(envelope, record) for envelope, record in journal if isinstance(record, FlowStarted)]
    assert started and len({envelope.event_id for envelope, _ in started}) == 1, "whoever adopts writes the same record"
    assert state.state is State.COMMITTED and {one.name, two.name} <= {record.agent for record in state.completed.values()}
    answers = [record for record in await read_topic(platform, "delivery.answered") if record.key == flow.encode()]
    assert {headers_of(record)["ce_choreography"] for record in answers} == {started[0][1].choreography.encode()}
    assert len(answers) == 2


async def test_an_agent_outside_the_choreography_only_observes(platform: Platform) -> None:
    inside = answering()
    async with running(platform, inside):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"))
        await ended(platform, published.flow_id)
    late, acting, acted = answering(), Agent(unique_agent("acting")), []

    @acting.on(Asked, pivot=True)
    async def act(asked: Asked, context: Context) -> None:
        acted.append(context.flow_id)

    outcomes: list[tuple[str, str]] = []

    class Observer(Untraced):
        """Takes down how each delivery of the flow ended."""

        def processing(
            self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float, beside: Sequence[str] = ()
        ) -> Processing:
            inner = super().processing(agent, delivery, envelope, step_id, queued_ms, beside)

            class Watched:
                def __getattr__(self, name: str) -> Any:
                    return getattr(inner, name)

                def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None:
                    if envelope.flow_id == published.flow_id:
                        outcomes.append((agent, outcome))

            return Watched()

    before = len(await journal_of(platform, published.flow_id))
    async with running(platform, late, acting, start="earliest", tracing=Observer()):
        follow_up = await platform.bus("tests", Untraced()).publish(Asked(text="now it takes part"))
        assert (await ended(platform, follow_up.flow_id)).state is State.COMMITTED
        flow = published.flow_id.encode()

        async def observed() -> list[Any]:
            return [
                record
                for record in await read_topic(platform, "delivery.answered")
                if record.key == flow and headers_of(record)["ce_source"] == f"/agents/{late.name}".encode()
            ]

        async def ends() -> list[tuple[str, str]]:
            return sorted(outcomes)

        (output,) = await eventually(observed, bool)
        assert await eventually(ends, lambda found: len(found) == 2) == [(acting.name, "skipped"), (late.name, "ok")]
    assert headers_of(output)["ce_observer"] == b"true"
    assert len(await journal_of(platform, published.flow_id)) == before, "nothing of an observer is journaled"
    # From the start of the topic it gets the roots of other tests, too, of which it may adopt one that nobody could before.
    assert follow_up.flow_id in acted
    assert published.flow_id not in acted, "what acts on the outside skips a flow that it only observes"


async def test_a_retired_agent_is_not_waited_for(platform: Platform) -> None:
    stays, goes = answering(), answering()
    async with running(platform, stays):
        async with running(platform, goes):
            during = await platform.bus("tests", Untraced()).publish(Asked(text="both"))
            await ended(platform, during.flow_id)
        after = await platform.bus("tests", Untraced()).publish(Asked(text="one"))
        assert (await ended(platform, after.flow_id)).state is State.COMMITTED
    agents = {step.agent for step in (await state_of(platform, after.flow_id)).expected.values()}
    assert goes.name in {step.agent for step in (await state_of(platform, during.flow_id)).expected.values()}
    assert stays.name in agents and goes.name not in agents


async def test_a_new_agent_starts_at_the_end_and_takes_part_in_the_next_flow_only(platform: Platform) -> None:
    await platform.ensure([event_topic("delivery.asked")])
    bus = platform.bus("tests", Untraced())
    for number in range(50):
        await bus.publish(Asked(text=str(number)))
    agent, seen = Agent(unique_agent("new")), []

    @agent.on(Asked)
    async def look(asked: Asked) -> None:
        seen.append(asked.text)

    async with running(platform, agent):
        published = await bus.publish(Asked(text="next"))
        await ended(platform, published.flow_id)
    assert seen == ["next"]


async def test_an_event_id_is_a_plain_string_to_foreign_clients(platform: Platform) -> None:
    agent = answering()
    flow = FlowId(f"größe-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, "ein Ereignis")])
        state = await ended(platform, flow)
    assert step_id_of(flow, agent.name, "delivery.asked", EventId("ein Ereignis")) in state.completed


async def test_the_same_key_gives_the_same_ids_and_another_event_under_it_is_refused(platform: Platform) -> None:
    agent = answering()
    key = unique_agent("key")
    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        one = await bus.publish(Asked(text="once"), idempotency_key=key)
        two = await bus.publish(Asked(text="once"), idempotency_key=key)
        assert (one.flow_id, one.event_id, one.choreography) == (two.flow_id, two.event_id, two.choreography)
        with pytest.raises(IdempotencyConflict, match=key):
            await bus.publish(Asked(text="something else"), idempotency_key=key)
        assert (await ended(platform, one.flow_id)).state is State.COMMITTED
        # A client that does not ask first is stopped by the agent that gets its root.
        intruder = foreign(Asked(text="something else"), one.flow_id, one.event_id)
        await platform.sink.publish([intruder])
        ((letter, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == "idempotency_conflict" and letter.value == intruder.value
    answers = [record for record in await read_topic(platform, "delivery.answered") if record.key == one.flow_id.encode()]
    assert set(ids(answers)) == {
        output_event_id(step_id_of(one.flow_id, agent.name, "delivery.asked", one.event_id), "delivery.answered", 0)
    }
    assert (await state_of(platform, one.flow_id)).state is State.COMMITTED
