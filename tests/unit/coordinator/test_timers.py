"""Time: it only ever appends `DeadlineFired`, and never before everything is read that may have come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import pytest

from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.cluster import MemoryCluster
from maypole.bus.ports import BrokerUnreachable, Record, TopicPartition
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from maypole.schemas.identifiers import FlowId, awaited_trigger, command_id_of, step_id_of
from maypole.schemas.journal import DeadlineFired, Decision, Effect, OperatorDecided
from maypole.schemas.topics import CATALOG, JOURNAL
from maypole.services.cli.flow_histories import all_flows
from maypole.services.coordinator import sending
from maypole.services.coordinator.reasons import described
from maypole.services.saga import unsettled
from tests.unit.coordinator.world import AGENTS, ROOT, World, declaration

_FIRED = Reader(schema_of(DeadlineFired), DeadlineFired)


def fired(world: World, flow: FlowId) -> list[str]:
    found = []
    for record in world.topic(JOURNAL):
        if record.key == flow.encode() and dict(record.headers)["ce_type"] == b"maypole.deadline.fired":
            body = _FIRED.decode(record.value or b"")
            assert body.due.timestamp() * 1000 <= record.timestamp_ms, "it was due when it was appended"
            found.append(body.scope)
    return found


async def test_a_flow_of_which_nobody_hears_again_ends_by_its_deadline(world: World) -> None:
    await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await flow.completes("flight")
    await world.settled(59)
    assert fired(world, flow.id) == []
    await world.settled(3)
    assert fired(world, flow.id) == [flow.id]
    await world.settled()
    assert world.asked(flow.id) == [("hotel", "fence")]
    await flow.fenced("hotel")
    await flow.undone("flight")
    await world.settled()
    [end] = world.ends(flow.id)
    assert (end.state, end.reason) == ("compensated", "its deadline passed; nothing is left of it")


async def test_a_deadline_that_passed_while_nobody_was_there_fires_afterwards(world: World) -> None:
    first = await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled()
    await first.kill()
    await world.settled(3600)
    await world.start()
    await world.settled(3)
    assert fired(world, flow.id) == [flow.id]


async def test_a_broker_that_does_not_say_where_the_journal_ends_is_asked_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, away = list[float](), [True]
    ask = MemoryCluster.watermarks

    async def answered(cluster: MemoryCluster, places: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        assert len(asked) < 1_000, "it asks without rest"
        asked.append(world.clock.now())
        if away:
            raise BrokerUnreachable("no answer")
        return await ask(cluster, places)

    await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled(59)
    monkeypatch.setattr(MemoryCluster, "watermarks", answered)
    await world.settled(30)
    assert 10 < len(asked) < 60 and fired(world, flow.id) == []
    away.clear()
    await world.settled(5)
    assert fired(world, flow.id) == [flow.id]


async def test_what_lay_unread_while_nobody_was_there_does_not_tell_what_time_it_is(world: World) -> None:
    """The last record of a backlog is old, and its reader knows what lay there before it came."""
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled(3600)
    await world.start()
    await world.settled(3)
    assert fired(world, flow.id) == [flow.id]
    await world.settled()
    assert world.asked(flow.id) == [("flight", "fence")]


async def test_a_coordinator_whose_clock_is_wrong_ends_no_flow_before_its_time(world: World) -> None:
    """It says so once, hears by its own record what time it is, and says it again when it is true."""
    first = await world.start()
    flow = await world.flow(deadline_seconds=600).starts()
    await world.settled()
    await first.stop()
    await world.start(now=lambda: world.clock.now() + 3600)
    await world.settled(590)
    early = [record for record in world.topic(JOURNAL) if dict(record.headers)["ce_type"] == b"maypole.deadline.fired"]
    assert len(early) == 1 and world.asked(flow.id) == []
    await world.settled(15)
    assert world.asked(flow.id) == [("flight", "fence")]


async def test_downtime_never_turns_a_journaled_success_into_a_timeout(world: World) -> None:
    """The success lies in the journal, unread, when the timer goes off."""
    first = await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled()
    await first.kill()
    await flow.completes("flight", "hotel", "car")
    await world.settled(3600)
    await world.start()
    await world.settled(10)
    assert fired(world, flow.id) == []
    assert [end.state for end in world.ends(flow.id)] == ["committed"]


async def test_a_coordinator_that_slept_reads_first_and_fires_then(world: World) -> None:
    """As one that was stopped for a while and goes on: its timers are due, and records wait that it has not seen."""
    process = await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled()
    world.broker.faults.arrive_after = lambda record: 600.0 if record.topic == JOURNAL else 0.0
    await flow.completes("flight", "hotel", "car")
    await world.settled(300)
    assert fired(world, flow.id) == [], "it knows where the journal ends, and has not got there"
    await world.settled(310)
    assert fired(world, flow.id) == []
    assert [end.state for end in world.ends(flow.id)] == ["committed"]
    await process.stop()


async def test_traffic_of_others_does_not_put_a_deadline_off(world: World) -> None:
    await world.start()
    flow = await world.flow(deadline_seconds=20).starts()
    partition = next(record.partition for record in world.topic(JOURNAL) if record.key == flow.id.encode())
    for _ in range(100):
        await (await world.flow().starts()).completes("flight")
        await world.settled(0.3)
    assert world.broker.log(TopicPartition(JOURNAL, partition)).end > 10
    assert fired(world, flow.id) == [flow.id]


async def test_an_agent_that_is_silent_makes_its_flow_stuck_within_the_patience_and_a_decision_ends_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start(patience=60)
    flow = await (await world.flow().starts()).completes("flight", "hotel")
    await flow.fails("car")
    await world.settled(65)
    command = command_id_of(flow.id, flow.step("hotel"), "compensate", 1)
    assert fired(world, flow.id) == [command]
    assert world.ends(flow.id) == [], "to be stuck is no end"
    [stuck] = [record for record in caplog.records if record.getMessage() == "coordinator.flow_stuck"]
    assert flow.step("hotel") in stuck.why  # type: ignore[attr-defined]
    [letter] = world.topic("maypole.coordinator.dlq")
    headers = dict(letter.headers)
    assert (headers["dlq-reason"], letter.key) == (b"compensation_failed", flow.id.encode())
    assert f"hotel on flight.booked (step {flow.step('hotel')}): its agent did not answer" in (headers["dlq-error"] or b"").decode()
    sent = len(world.commands(flow.id))
    await world.settled(300)
    assert len(world.commands(flow.id)) == sent, "nobody is asked any more: it is a person's turn"
    await flow.write(OperatorDecided(step_id=flow.step("hotel"), decision=Decision.RETRY, note="it is back", by="ada", generation=1))
    await world.settled()
    assert [command.generation for _, command in world.commands(flow.id)][-1] == 2
    await flow.undone("hotel")
    await flow.undone("flight")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["compensated"]


async def test_an_agent_whose_attempts_may_take_longer_is_waited_for_as_long(world: World) -> None:
    """Its undo waits for the lease of the attempt before it, and the agent is well."""
    on, emits = AGENTS["flight"]
    await world.announce(declaration("flight", on, emits, timeout_seconds=600.0))
    await world.start(patience=60)
    flow = await (await world.flow().starts()).fails("flight", Effect.UNKNOWN)
    await world.settled(600)
    assert fired(world, flow.id) == []
    await world.settled(15)
    assert fired(world, flow.id) == [command_id_of(flow.id, flow.step("flight"), "compensate", 1)]


async def test_each_step_that_gets_stuck_is_told_with_exactly_what_keeps_its_flow_from_an_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A flow that waits for a person already goes on where it can, and what comes to a halt there is news."""

    async def left() -> list[tuple[str, bool]]:
        saga = (await all_flows(world.platform)).sagas[flow.id]
        return [(described(each), each.waiting is not None) for each in unsettled(saga)]

    def told() -> list[str]:
        said = [dict(letter.headers)["dlq-error"] or b"" for letter in world.topic("maypole.coordinator.dlq")]
        logged = [vars(record)["why"] for record in caplog.records if record.getMessage() == "coordinator.flow_stuck"]
        assert logged == list(map(bytes.decode, said))
        return [each.decode().removeprefix("the flow is stuck and waits for a person: ") for each in said]

    await world.start(patience=60)
    flow = await (await world.flow().starts()).completes("flight")
    await flow.begins("hotel")
    await flow.abort()
    await world.settled(65)
    first = await left()
    assert [waits for _, waits in first] == [False, True], "flight waits for hotel, and hotel for a person"
    assert told() == ["; ".join(each for each, _ in first)]

    await flow.completes("hotel")  # too late, so now car must never run
    await world.settled(50)
    assert len(told()) == 1, "nobody else waits for a person yet"
    await world.settled(15)
    second = await left()
    assert [waits for _, waits in second] == [False, True, True]
    assert told() == ["; ".join(each for each, _ in found) for found in (first, second)]


async def test_nobody_has_to_decide_only_because_no_coordinator_was_there(world: World) -> None:
    """What failed meanwhile was never asked for, so its time begins when it is."""
    flow = await (await world.flow().starts()).completes("flight")
    await flow.fails("hotel")
    await world.settled(3600)
    await world.start(patience=600)
    other = await world.flow().starts()  # tells what time it is
    await world.settled(590)
    assert fired(world, flow.id) == []
    await flow.undone("flight")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["compensated"]
    assert world.ends(other.id) == []


async def test_what_was_never_asked_for_is_stuck_once_it_was_asked_for_long_enough(world: World) -> None:
    flow = await (await world.flow().starts()).completes("flight")
    await flow.fails("hotel")
    await world.settled(3600)
    await world.start(patience=600)
    await world.settled(605)
    assert fired(world, flow.id) == [command_id_of(flow.id, flow.step("flight"), "compensate", 1)]


async def test_after_an_outage_agents_get_a_while_for_what_they_were_asked_before(world: World) -> None:
    """It may have kept them away, too; but not for ever, however often a coordinator is taken over from."""
    first = await world.start(patience=600)
    answered, silent = [await (await world.flow().starts()).completes("flight") for _ in range(2)]
    for flow in (answered, silent):
        await flow.fails("hotel")
    late = await world.flow(deadline_seconds=1200).starts()
    await world.settled()
    await first.kill()
    await world.settled(3600)
    await world.start(patience=600)
    await world.settled(20)
    assert fired(world, late.id) == [late.id], "the time of a flow is over when it is over"
    assert fired(world, answered.id) == fired(world, silent.id) == []
    await answered.undone("flight")
    await world.settled(45)
    assert [end.state for end in world.ends(answered.id)] == ["compensated"]
    assert fired(world, silent.id) == [command_id_of(silent.id, silent.step("flight"), "compensate", 1)]


async def test_several_coordinators_that_fire_the_same_deadline_change_nothing(world: World) -> None:
    await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled(62)
    [first] = [record for record in world.topic(JOURNAL) if dict(record.headers)["ce_type"] == b"maypole.deadline.fired"]
    await world.append(Record(JOURNAL, first.key, first.value, first.headers), Record(JOURNAL, first.key, first.value, first.headers))
    await world.settled(5)
    assert world.asked(flow.id) == [("flight", "fence")]
    await flow.fenced("flight")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["compensated"]


async def test_a_join_that_waits_too_long_is_told_to_expire(world: World) -> None:
    pinned = await world.announce(
        declaration("flight", ROOT, "flight.booked"),
        declaration("taxi", ROOT, "taxi.booked"),
        {"name": "desk", "subscriptions": [{"on": ["flight.booked", "taxi.booked"], "emits": [], "kind": "events", "within_ms": 30_000}]},
    )  # fmt: skip
    await world.start()
    flow = await world.flow().starts(pinned)
    await flow.completes("flight")
    await world.settled(33)
    join = step_id_of(flow.id, "desk", "flight.booked+taxi.booked", awaited_trigger(0))
    assert fired(world, flow.id) == [join]
    assert ("desk", "expire") in world.asked(flow.id)


async def test_a_journal_stamped_by_a_broker_whose_clock_is_behind_is_timed_by_that_clock(world: World) -> None:
    """The coordinator's own clock is an hour ahead: what it reads right after it was appended tells it so."""
    ahead = world.platform.now
    await world.start(now=lambda: ahead() + 3600)
    flow = await world.flow(deadline_seconds=600).starts()
    await world.settled(300)
    assert fired(world, flow.id) == []
    await world.settled(310)
    assert fired(world, flow.id) == [flow.id]


def forget_the_catalog(broker: MemoryBroker) -> None:
    """As if its topic had been made anew: who starts from here on knows what is announced from here on."""
    for partition in range(broker.topics()[CATALOG]):
        at = TopicPartition(CATALOG, partition)
        broker.trim(at, broker.log(at).end)


async def announce_again(world: World, choreography: str) -> None:
    text = world.view().choreographies[choreography].text
    await world.append(Record(CATALOG, f"choreography/{choreography}".encode(), text.encode(), []))


async def test_deadlines_of_flows_whose_choreography_is_unknown_hold_up_nobody_and_fire_once_it_is_known(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_FLOWS_MAX", 2)
    first = await world.start()
    lost = [await world.flow(deadline_seconds=60).starts() for _ in range(20)]
    await world.settled()
    await first.stop()
    forget_the_catalog(world.broker)
    calls: Counter[str] = Counter()

    def count(call: str) -> bool:
        calls[call] += 1
        if calls["due"] > 500:
            raise AssertionError("it looks for what is due without rest")
        return False

    world.store.refuse = count
    process = await world.start()
    other = await world.announce(*(declaration(agent, on, emits, optional=agent == "car") for agent, (on, emits) in AGENTS.items()))
    others = [await world.flow(deadline_seconds=90).starts(other) for _ in range(8)]
    await world.settled(100)
    assert not process.task.done()
    assert [fired(world, flow.id) for flow in others] == [[flow.id] for flow in others]
    await world.settled(300)
    assert [fired(world, flow.id) for flow in lost] == [[] for _ in lost]
    unknown = [record for record in caplog.records if record.getMessage() == "coordinator.choreography_unknown"]
    assert len(unknown) == process.coordinator.counts.alarms == len(lost)
    await announce_again(world, world.hash)
    await world.settled(3)
    assert [fired(world, flow.id) for flow in lost] == [[flow.id] for flow in lost]
    assert all(world.asked(flow.id) == [("flight", "fence")] for flow in lost)


async def test_a_deadline_that_was_put_off_fires_although_its_choreography_was_learnt_while_nobody_was_there(world: World) -> None:
    first = await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled()
    await first.stop()
    forget_the_catalog(world.broker)
    second = await world.start()
    await world.settled(100)
    await second.stop()
    await announce_again(world, world.hash)
    await world.start()
    await world.settled(65)
    assert fired(world, flow.id) == [flow.id]


async def test_a_deadline_whose_choreography_is_learnt_while_it_is_being_put_off_fires_at_once(world: World) -> None:
    first = await world.start()
    flow = await world.flow(deadline_seconds=60).starts()
    await world.settled()
    await first.stop()
    forget_the_catalog(world.broker)
    process = await world.start()
    looked_for_what_is_due = False

    def learn(call: str) -> bool:
        nonlocal looked_for_what_is_due
        if looked_for_what_is_due and call == "next_due":  # it was put off, and that is not kept yet
            process.platform.catalog.view.choreographies.update(world.view().choreographies)
        looked_for_what_is_due |= call == "due"
        return False

    world.store.refuse = learn
    await world.settled(65)
    assert fired(world, flow.id) == [flow.id]


async def test_what_a_flow_owes_is_told_once_its_choreography_is_known_though_nothing_else_is_heard_of_it(world: World) -> None:
    first = await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await world.settled()
    world.broker.faults.refuse = lambda record: "away" if record.topic == "flight.commands" else None
    await flow.fails("hotel")
    await world.settled()
    await first.stop()
    world.broker.faults.refuse = lambda record: None
    forget_the_catalog(world.broker)
    await world.start()
    await world.settled(30)
    assert world.asked(flow.id) == []
    await announce_again(world, world.hash)
    await world.settled(2)
    assert world.asked(flow.id) == [("flight", "compensate")]
