from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from maypole.bus import Agent, Context, Event, Reject, WrongDeclaration, at_least
from maypole.bus.composition import open_platform
from maypole.bus.hook import Untraced
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.no_return import NoWayBack
from maypole.bus.ports import PublishRefused
from maypole.bus.runner import run_agents
from maypole.bus.stores.memory import MemoryStores
from maypole.bus.testing import AgentCrashed, Choreography, Faults, NoSubscriber, NotFinished
from maypole.schemas.journal import FlowStarted, StepCompleted, StepFailed
from maypole.settings import Settings


class Ordered(Event, type="shop.ordered"):
    item: str
    amount: float = 1.0


class Packed(Event, type="shop.packed"):
    item: str


class Sent(Event, type="shop.sent"):
    item: str


def packing() -> Agent:
    agent = Agent("packing")

    @agent.on(Ordered, require=at_least("amount", 1.0))
    async def pack(ordered: Ordered) -> Packed:
        if ordered.item == "stone":
            raise Reject("stones are not packed")
        if ordered.item == "glass":
            raise ConnectionError("no bubble wrap")
        return Packed(item=ordered.item)

    return agent


def sending() -> Agent:
    agent = Agent("sending")

    @agent.on(Packed)
    def send(packed: Packed, context: Context) -> Sent:
        (context.home / "sent").write_text(packed.item)
        return Sent(item=packed.item.upper())

    return agent


async def test_a_flow_runs_through_its_agents_and_can_be_looked_at() -> None:
    async with Choreography([packing(), sending()]) as world:
        flow = await world.publish(Ordered(item="tea"), business_key="order-7", idempotency_key="7")
        assert await flow.finished() == "committed" == flow.state
    ordered, packed, sent = flow.events
    assert flow.types == ("shop.ordered", "shop.packed", "shop.sent")
    assert (ordered.event, packed.event, sent.event) == (Ordered(item="tea"), Packed(item="tea"), Sent(item="TEA"))
    assert (ordered.parents, packed.parents, sent.parents) == ((), (ordered.event_id,), (packed.event_id,))
    assert (ordered.producer, packed.producer, sent.producer) == ("/publishers/test", "packing", "sending")
    assert (ordered.version, packed.version, sent.version) == (1, 2, 3)
    assert flow.of(Sent) == (Sent(item="TEA"),) and flow.published.subscribers == ("packing",)
    assert [type(record) for record in flow.journal] == [FlowStarted, StepCompleted, StepCompleted]
    assert [(step.agent, step.state, step.trigger, step.outputs) for step in flow.steps] == [
        ("packing", "completed", ordered.event_id, (packed.event_id,)),
        ("sending", "completed", packed.event_id, (sent.event_id,)),
    ]
    assert flow.dead_letters == () == world.dead_letters("packing")


async def test_a_refused_event_ends_as_a_dead_letter_with_its_reason() -> None:
    async with Choreography([packing(), sending()]) as world:
        flow = await world.publish(Ordered(item="stone"))
        assert await flow.finished() == "compensated"
        other = await world.publish(Ordered(item="tea", amount=0.5))
        assert await other.finished() == "compensated"
        agent_letters = world.dead_letters("packing")
    (letter,) = flow.dead_letters
    (step,) = flow.steps
    assert (letter.agent, letter.reason, letter.error, letter.attempts) == ("packing", "rejected", "stones are not packed", 1)
    assert (letter.event_type, letter.event_id, letter.flow_id) == ("shop.ordered", flow.published.event_id, flow.flow_id)
    assert (step.state, step.reason, step.error, step.attempts) == ("failed", "rejected", "stones are not packed", 1)
    assert isinstance(flow.journal[-1], StepFailed) and flow.types == ("shop.ordered",)
    assert [letter.reason for letter in other.dead_letters] == ["contract_refused"] and "amount" in other.dead_letters[0].error
    assert len(agent_letters) == 2


async def test_attempts_and_pauses_between_them_take_no_time() -> None:
    begun = time.monotonic()
    async with Choreography([packing()]) as world:
        flow = await world.publish(Ordered(item="glass"))
        assert await flow.finished() == "compensated"
        assert [(letter.reason, letter.attempts) for letter in flow.dead_letters] == [("attempts_exhausted", 3)]
    assert time.monotonic() - begun < 10


async def test_an_hour_in_a_handler_passes_at_once() -> None:
    slow = Agent("slow")

    @slow.on(Ordered, timeout_seconds=7200)
    async def wait(ordered: Ordered) -> Packed:
        await asyncio.sleep(3600)
        return Packed(item=ordered.item)

    begun = time.monotonic()
    async with Choreography([slow]) as world:
        since = world.now()
        flow = await world.publish(Ordered(item="wine"))
        assert await flow.finished(timeout_seconds=4000) == "committed"
        assert 3600 <= world.now() - since < 3601
    assert time.monotonic() - begun < 20


async def test_a_handler_that_overstays_its_deadline_fails_at_once() -> None:
    hanging = Agent("hanging")

    @hanging.on(Ordered, timeout_seconds=5, attempts_max=2)
    async def hang(ordered: Ordered) -> None:
        await asyncio.Event().wait()

    async with Choreography([hanging]) as world:
        flow = await world.publish(Ordered(item="x"))
        assert await flow.finished() == "compensated"
        assert "longer than 5 s" in flow.dead_letters[0].error and flow.dead_letters[0].attempts == 2


async def test_a_flow_that_does_not_finish_says_who_owes_what() -> None:
    async with Choreography([packing(), sending()]) as world:
        await world.stop("sending")
        flow = await world.publish(Ordered(item="tea"))
        with pytest.raises(NotFinished) as late:
            await flow.finished(timeout_seconds=5)
        assert flow.state == "running"
        assert [(step.agent, step.state) for step in flow.steps] == [("packing", "completed"), ("sending", "owed")]
    for part in (
        flow.flow_id,
        "5 virtual seconds",
        "sending owes its step for shop.packed",
        "it was stopped",
        "so far: shop.ordered, shop.packed",
    ):
        assert part in str(late.value)


async def test_a_flow_that_nobody_subscribes_to_says_so() -> None:
    async with Choreography([sending()]) as world:
        flow = await world.publish(Ordered(item="tea"))
        with pytest.raises(NoSubscriber, match=r"no agent subscribed to shop\.ordered.*sending subscribes to shop\.packed"):
            await flow.finished()
        assert flow.types == ("shop.ordered",) and flow.steps == ()


async def test_an_agent_with_which_flows_could_be_left_half_done_is_refused_and_stops_nobody_else() -> None:
    hasty = Agent("hasty")

    @hasty.on(Packed, retriable=True)
    async def send(packed: Packed) -> None: ...

    async with Choreography([packing()]) as world:
        assert await (await world.publish(Ordered(item="coffee"))).finished() == "committed"
        with pytest.raises(NoWayBack, match=r"hasty on shop\.packed is retriable.*shop\.ordered -> packing on shop\.ordered -> hasty"):
            await world.start(hasty)
        assert await (await world.publish(Ordered(item="tea"))).finished() == "committed"


async def test_what_follows_a_pivot_may_come_before_it(caplog: pytest.LogCaptureFixture) -> None:
    pays, sends, sent = Agent("paying"), Agent("shipping"), []

    @pays.on(Ordered, pivot=True)
    async def pay(ordered: Ordered) -> Packed:
        return Packed(item=ordered.item)

    @sends.on(Packed, retriable=True)
    async def send(packed: Packed) -> None:
        sent.append(packed.item)

    async with Choreography([sends]) as world:
        (warning,) = (record for record in caplog.records if record.getMessage() == "agent.pivot_missing")
        assert "shipping on shop.packed is retriable" in warning.__dict__["why"]
        with pytest.raises(NoWayBack):
            await world.publish(Packed(item="tea"))
        await world.start(pays)
        assert await (await world.publish(Ordered(item="tea"))).finished() == "committed"
    assert sent == ["tea"]


async def test_a_pivot_that_starts_in_the_same_process_is_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pays, sends = Agent("paying"), Agent("shipping")

    @pays.on(Ordered, pivot=True)
    async def pay(ordered: Ordered) -> Packed:
        return Packed(item=ordered.item)

    @sends.on(Packed, retriable=True)
    async def send(packed: Packed) -> None: ...

    async with (
        virtual_time() as clock,
        MemoryTransport(MemoryBroker(clock.now)) as transport,
        open_platform(Settings(home=tmp_path), transport, clock.now, MemoryStores(clock.now).open) as platform,
    ):
        runners = [platform.runner(agent, Untraced()) for agent in (sends, pays)]
        task = asyncio.create_task(run_agents(runners))
        for runner in runners:
            await runner.ready.wait()
            runner.stop()
        await task
    assert "agent.pivot_missing" not in caplog.messages


async def test_a_stopped_agent_goes_on_where_it_stopped() -> None:
    sender = sending()
    async with Choreography([packing(), sender]) as world:
        await world.stop(sender)
        flow = await world.publish(Ordered(item="tea"))
        await asyncio.sleep(30)
        assert flow.state == "running"
        await world.start(sender)
        assert await flow.finished() == "committed"
        with pytest.raises(ValueError, match="running already"):
            await world.start(sender)


async def test_a_killed_agent_repeats_what_it_had_in_hand() -> None:
    agent, calls, begun = Agent("careful"), [], asyncio.Event()

    @agent.on(Ordered)
    async def act(ordered: Ordered, context: Context) -> Packed:
        calls.append(context.step_id)
        begun.set()
        await asyncio.sleep(1)
        return Packed(item=ordered.item)

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(item="tea"))
        await begun.wait()
        await world.kill(agent)
        with pytest.raises(NotFinished, match="it was killed"):
            await flow.finished(timeout_seconds=3)
        await world.start(agent)
        assert await flow.finished() == "committed"
    assert len(calls) == 2 and len(set(calls)) == 1, "both are one step"
    assert flow.types == ("shop.ordered", "shop.packed")


async def test_a_retired_agent_is_not_waited_for() -> None:
    async with Choreography([packing(), sending()]) as world:
        await world.retire("sending")
        flow = await world.publish(Ordered(item="tea"))
        assert await flow.finished() == "committed"
        assert {step.agent for step in flow.steps} == {"packing"}


async def test_an_agent_that_starts_later_takes_part_from_then_on_and_observes_what_was_before() -> None:
    async with Choreography([packing()]) as world:
        before = await world.publish(Ordered(item="tea"))
        await before.finished()
        await world.start(sending(), start="earliest")
        after = await world.publish(Ordered(item="jam"))
        assert await after.finished() == "committed"
        await asyncio.sleep(1)
        assert before.types == after.types == ("shop.ordered", "shop.packed", "shop.sent")
        assert {step.agent for step in before.steps} == {"packing"}, "an observer has no step in the flow"


async def test_events_without_a_class_are_read_only_mappings() -> None:
    audit = Agent("audit")

    @audit.on("shop.ordered")
    async def look(ordered: Any) -> None:
        seen.append(ordered)

    seen: list[Mapping[str, Any]] = []
    async with Choreography([audit, packing()]) as world:
        flow = await world.publish(Ordered(item="tea"))
        await flow.finished()
    assert seen == [{"item": "tea", "amount": 1.0}] and flow.of(Ordered) == (Ordered(item="tea"),)


async def test_the_same_idempotency_key_is_the_same_flow() -> None:
    async with Choreography([packing()]) as world:
        one = await world.publish(Ordered(item="tea"), idempotency_key="7")
        two = await world.publish(Ordered(item="tea"), idempotency_key="7")
        await two.finished()
        other = await world.publish(Ordered(item="tea"))
        await other.finished()
    assert one.flow_id == two.flow_id != other.flow_id
    assert one.types == ("shop.ordered", "shop.packed"), "each event once, however often it was written"


async def test_the_same_program_takes_the_same_steps() -> None:
    async def program() -> list[tuple[str, int, int, float]]:
        async with Choreography([packing(), sending()], seed=3) as world:
            flows = [await world.publish(Ordered(item=item)) for item in ("tea", "glass", "jam", "stone")]
            for flow in flows:
                await flow.finished()
            seen = [(event.event_id, event.partition, event.offset) for flow in flows for event in flow.events]
            return [(*place, world.now()) for place in seen]

    assert await program() == await program()


async def test_time_is_real_again_afterwards() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with Choreography([packing()]):
        await asyncio.sleep(1000)
    assert before <= loop.time() < before + 100


def refusing() -> Faults:
    """A broker that ends the agent which packs: delivery cannot survive a refusal for good."""
    return Faults(refuse=lambda record: "out of order" if record.topic == "shop.packed" else None)


async def test_an_agent_that_crashes_fails_the_test_that_waits_for_it() -> None:
    async with Choreography([packing()], faults=refusing()) as world:
        flow = await world.publish(Ordered(item="tea"))
        with pytest.raises(AgentCrashed, match=r"agent packing crashed: .* refused a record for shop\.packed: out of order") as crashed:
            await flow.finished()
    assert isinstance(crashed.value.__cause__, PublishRefused)


async def test_an_agent_that_crashes_fails_a_test_that_does_not_wait() -> None:
    async def careless() -> None:
        async with Choreography([packing()], faults=refusing()) as world:
            await world.publish(Ordered(item="tea"))
            await asyncio.sleep(1)

    with pytest.raises(AgentCrashed, match="out of order"):
        await careless()


async def test_an_agent_that_cannot_start_raises_its_reason() -> None:
    empty = Agent("empty")
    with pytest.raises(WrongDeclaration, match="subscribes to nothing"):
        async with Choreography([empty]):
            pytest.fail("it must not start")
    with pytest.raises(TypeError, match="expected an Agent"):
        Choreography(["research"])  # type: ignore[list-item]


async def test_faults_of_the_broker_are_survived() -> None:
    faults = Faults(append_twice=lambda record: True, acknowledge_after=lambda record: 2.0, arrive_after=lambda record: 1.0)
    async with Choreography([packing(), sending()], faults=faults) as world:
        flow = await world.publish(Ordered(item="tea"))
        assert await flow.finished() == "committed"
        await asyncio.sleep(30)
        assert flow.types == ("shop.ordered", "shop.packed", "shop.sent")


async def test_a_handler_in_a_thread_is_waited_for_and_time_stands_still_meanwhile() -> None:
    agent, proceed = Agent("threaded"), threading.Event()

    @agent.on(Ordered, timeout_seconds=1)
    def work(ordered: Ordered) -> Packed:
        proceed.wait(0.2)
        return Packed(item=ordered.item)

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(item="tea"))
        since = world.now()
        assert await flow.finished() == "committed"
        assert world.now() - since < 0.1


def test_state_of_agents_lies_in_the_home_that_was_given(tmp_path: Path) -> None:
    async def program() -> None:
        async with Choreography([packing(), sending()], home=tmp_path) as world:
            flow = await world.publish(Ordered(item="tea"))
            await flow.finished()

    asyncio.run(program())
    assert [path.read_text() for path in tmp_path.rglob("sent")] == ["tea"]
