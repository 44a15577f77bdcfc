"""What an agent does when it is told to leave a step, or to take one back: the answer is in the journal, whatever else happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from maypole.bus import Agent, Breaker, Context, Event
from maypole.bus import Retry as RetryPolicy
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.testing import Choreography, Flow
from maypole.schemas.commands import Compensate, Expire, Fence, StepCommand
from maypole.schemas.journal import (
    CompensationFailed,
    Effect,
    FlowStarted,
    StepAbandoned,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
    StepStarted,
)
from maypole.schemas.topics import CATALOG, command_topic
from tests.support.commanding import Commands, command_record
from tests.support.world import eventually


class Ordered(Event, type="commands.ordered"):
    number: int


class Booked(Event, type="commands.booked"):
    room: str


@dataclass
class Hotel:
    """What is outside: it remembers what it was asked, and under which key."""

    rooms: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fails: list[BaseException] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    keeps: int = 0
    """How often it takes a room back without giving it free."""

    def __post_init__(self) -> None:
        self.open.set()

    async def book(self, key: str, number: int) -> str:
        self.asked.append(f"book {number}")
        await self.open.wait()
        self.rooms[key] = f"room {number}"
        return self.rooms[key]

    def cancel(self, key: str, emitted: Booked | None) -> None:
        self.asked.append(f"cancel {emitted.room if emitted else 'whatever there is'}")
        if self.fails:
            raise self.fails.pop(0)
        if self.keeps:
            self.keeps -= 1
        else:
            self.rooms.pop(key, None)


def booking(hotel: Hotel, *, verified: bool = False, plain: bool = False) -> Agent:
    agent = Agent("booking")

    @agent.on(Ordered)
    async def book(ordered: Ordered, context: Context) -> Booked:
        return Booked(room=await hotel.book(context.idempotency_key, ordered.number))

    if plain:

        @book.undo
        def cancel_in_a_thread(ordered: Ordered, booked: Booked | None, context: Context) -> None:
            hotel.cancel(context.idempotency_key, booked)
    else:

        @book.undo
        async def cancel(ordered: Ordered, booked: Booked | None, context: Context) -> None:
            hotel.cancel(context.idempotency_key, booked)

    if verified:

        @book.verify
        async def is_free(ordered: Ordered, context: Context) -> bool:
            hotel.asked.append("is it free?")
            return context.idempotency_key not in hotel.rooms

    return agent


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "plain function"])
async def test_a_done_step_is_undone_with_what_it_was_given_and_what_it_emitted_once(plain: bool) -> None:
    hotel = Hotel()
    async with Choreography([booking(hotel, plain=plain)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        for count in (1, 2):
            await commands.send(Compensate)
            undone = await commands.answer(StepCompensated, count)
            assert (undone.step_id, undone.command_id) == (commands.step, commands.id_of(Compensate))
    assert hotel.asked == ["book 7", "cancel room 7"] and not hotel.rooms


async def test_an_event_that_comes_again_once_its_step_was_undone_is_answered_so_and_feeds_nobody() -> None:
    hotel = Hotel()
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        first = await commands.answer(StepCompensated)
        await come_again(world, "commands.ordered")
        assert await commands.answer(StepCompensated, 2) == first
        assert len(commands.told(StepCompleted)) == 1 and len(written(world, "commands.booked")) == 1
        await asyncio.sleep(60)
        assert told_again(world, "booking") == {"compensated": 1}
    assert hotel.asked == ["book 7", "cancel room 7"]


async def test_a_dead_letter_that_a_crash_may_have_lost_is_written_again_also_once_its_step_was_undone() -> None:
    agent, undone = Agent("booking"), list[int]()

    @agent.on(Ordered, retry=RetryPolicy(attempts=1))
    async def book(ordered: Ordered) -> Booked:
        raise ConnectionError("booked, and nobody heard the answer")

    @book.undo
    async def cancel(ordered: Ordered) -> None:
        undone.append(ordered.number)

    async with Choreography([agent], coordinator=False) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        await commands.answer(StepCompensated)
        await come_again(world, "commands.ordered")
        await commands.answer(StepCompensated, 2)
        (one, other) = written(world, "booking.dlq")
        assert len(commands.told(StepFailed)) == 1 and (one.value, one.headers) == (other.value, other.headers)
    assert undone == [7]


async def come_again(world: Choreography, topic: str) -> None:
    """As after a crash: what was committed before it is read once more."""
    (record,) = written(world, topic)
    await world.broker.append([Record(topic, record.key, record.value, record.headers)], lambda: None)


def written(world: Choreography, topic: str) -> list[Delivery]:
    logs = [world.broker.log(TopicPartition(topic, partition)) for partition in range(world.broker.topics()[topic])]
    return [record for log in logs for record in log.read(log.oldest, 10_000, float("inf"))]


def told_again(world: Choreography, agent: str) -> dict[str, int]:
    found: dict[str, int] = beat_of(world, agent).get("told_again", {})
    return found


def beat_of(world: Choreography, agent: str) -> dict[str, Any]:
    """What the agent said last of itself."""
    beats = [record for record in written(world, CATALOG) if (record.key or b"").startswith(f"instance/{agent}/".encode())]
    told: dict[str, Any] = json.loads(beats[-1].value or b"{}")
    return told


async def test_a_step_that_never_began_never_will_and_its_delivery_ends_without_its_handler() -> None:
    hotel = Hotel()
    agent = booking(hotel)
    async with Choreography([agent]) as world:
        await world.stop(agent)
        flow = await world.publish(Ordered(number=7))
        commands = Commands(world, "booking", flow)
        await commands.send(Fence)
        await world.start(agent)
        await commands.answer(StepFenced)
        await commands.send(Compensate)
        await commands.answer(StepFenced, 2)
        refused = await commands.answer(CompensationFailed)
    assert hotel.asked == [] and {(record.step_id, record.attempts) for record in commands.told(StepFenced)} == {(commands.step, 0)}
    assert not refused.retryable and "was the ledger lost" in refused.detail, "who asks for an undo knows of something to undo"


async def test_a_fence_of_a_done_step_tells_the_whole_completion_again() -> None:
    hotel = Hotel()
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        (first,) = commands.told(StepCompleted)
        await commands.send(Fence)
        assert await commands.answer(StepCompleted, 2) == first and first.outputs
    assert hotel.rooms and not commands.told(StepFenced)


async def test_a_fence_cuts_off_what_runs_and_its_undo_need_not_wait_for_the_lease() -> None:
    hotel = Hotel()
    hotel.open.clear()
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        commands = Commands(world, "booking", flow)
        await commands.answer(StepStarted)
        began = world.now()
        await commands.send(Fence)
        await commands.answer(StepAbandoned)
        await commands.send(Compensate)
        await commands.answer(StepCompensated)
        assert world.now() - began < 5, "the lease runs for minutes"
        # Its delivery ends with what the row says, and what comes after it goes on.
        hotel.open.set()
        other = await world.publish(Ordered(number=8))
        assert await other.finished() == "committed"
    assert hotel.asked == ["book 7", "cancel whatever there is", "book 8"]
    assert len(hotel.rooms) == 1 and not commands.told(StepCompleted)


async def test_an_undo_that_fails_is_tried_again_and_its_attempts_are_its_own() -> None:
    hotel = Hotel(fails=[ConnectionError("away"), ConnectionError("still away")])
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        await commands.answer(StepCompensated)
    assert hotel.asked == ["book 7", *["cancel room 7"] * 3] and not hotel.rooms


async def test_the_breaker_of_what_an_undo_needs_is_as_visible_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, away, told = Agent("booking"), asyncio.Event(), list[tuple[str, str]]()
    monkeypatch.setattr("maypole.bus.hook._Untraced.breaker_moved", lambda observer, state, name, because: told.append((state, name)))

    @agent.on(Ordered)
    async def book(ordered: Ordered) -> Booked:
        return Booked(room=f"room {ordered.number}")

    @book.undo(retry=RetryPolicy(attempts=1000, delays=(5,)))
    async def cancel(ordered: Ordered, context: Context) -> None:
        async with context.dependency("hotel"):
            if not away.is_set():
                raise ConnectionError("nobody answers")

    async with Choreography([agent], coordinator=False) as world:
        flows = [await world.publish(Ordered(number=number)) for number in range(5)]
        commands = [Commands(world, "booking", flow) for flow in flows]
        for flow, each in zip(flows, commands, strict=True):
            await flow.finished()
            await each.send(Compensate)
        await asyncio.sleep(30)
        (standing,) = beat_of(world, "booking")["breakers"]
        assert (standing["breaker"], standing["name"], standing["state"]) == ("undo_dependency", "hotel", "open")
        away.set()
        for each in commands:
            await each.answer(StepCompensated)
        await asyncio.sleep(1)
        assert beat_of(world, "booking")["breakers"] == []
    assert told == [(state, "undo_dependency hotel") for state in ("opened", "half_open", "closed")]


async def test_an_undo_that_never_succeeds_says_so_and_is_a_dead_letter_until_it_is_asked_again() -> None:
    hotel = Hotel(fails=[ConnectionError("away")] * 8)
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        failed = await commands.answer(CompensationFailed)
        assert not failed.retryable and failed.command_id == commands.id_of(Compensate) and "away" in failed.detail

        async def letters() -> list[tuple[str, int, str]]:
            return [(letter.reason, letter.attempts, letter.topic) for letter in world.dead_letters("booking")]

        assert await eventually(letters, bool) == [("compensation_failed", 8, command_topic("booking"))]
        await commands.send(Compensate, 2)
        assert (await commands.answer(StepCompensated)).command_id == commands.id_of(Compensate, 2)
    assert not hotel.rooms


async def test_a_step_is_undone_only_when_the_outside_says_that_the_effect_is_gone() -> None:
    hotel = Hotel(keeps=2)
    async with Choreography([booking(hotel, verified=True)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        await commands.answer(StepCompensated)
    assert hotel.asked == ["book 7", *["cancel room 7", "is it free?"] * 3] and not hotel.rooms


async def test_commands_that_nobody_can_obey_are_dead_letters_and_those_behind_them_are_obeyed() -> None:
    hotel = Hotel()
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        (started,) = commands.told(FlowStarted)
        good, about = commands.record(Compensate), {"step_id": commands.step, "subscription": commands.subscription}

        def written(choreography: str, subscription: str) -> Record:
            body = Compensate(step_id=commands.step, subscription=subscription)
            return command_record("booking", flow.flow_id, choreography, body)

        strange = [
            good._replace(value=None),
            good._replace(value=(good.value or b"")[:-3]),
            good._replace(value=(good.value or b"").replace(commands.step.encode(), b"not the id of a step, but as long\0"[:36].ljust(36))),
            good._replace(headers=()),
            good._replace(headers=[(name, b"maypole.dance" if name == "ce_type" else value) for name, value in good.headers]),
            written(started.choreography, "commands.unheard"),
            written("0" * 64, about["subscription"]),
        ]
        await world.broker.append([*strange, good], lambda: None)
        await commands.answer(StepCompensated)

        async def reasons() -> list[str]:
            letters = sorted(world.dead_letters("booking"), key=lambda letter: letter.offset)
            assert all(letter.topic == command_topic("booking") for letter in letters)
            return [letter.reason for letter in letters]

        found = await eventually(reasons, lambda reasons: len(reasons) == len(strange))
    assert sorted(found) == sorted([*["undecodable"] * 3, *["contract_refused"] * 3, "unknown_flow"])


async def test_a_command_gets_through_while_every_worker_is_held_up() -> None:
    hotel = Hotel()
    agent = Agent("booking", concurrency=1)

    @agent.on(Ordered)
    async def book(ordered: Ordered, context: Context) -> Booked:
        return Booked(room=await hotel.book(context.idempotency_key, ordered.number))

    @book.undo
    async def cancel(ordered: Ordered, context: Context) -> None:
        hotel.cancel(context.idempotency_key, None)

    async with Choreography([agent]) as world:
        done = await world.publish(Ordered(number=1))
        await done.finished()
        hotel.open.clear()
        stuck = [await world.publish(Ordered(number=number)) for number in range(2, 5)]
        await Commands(world, "booking", stuck[0]).answer(StepStarted)
        commands = Commands(world, "booking", done)
        await commands.send(Compensate)
        await commands.answer(StepCompensated, seconds=5)
        for flow in stuck[1:]:
            waiting = Commands(world, "booking", flow)
            await waiting.send(Fence)
            await waiting.answer(StepFenced, seconds=5)
        hotel.open.set()
        assert await stuck[0].finished() == "committed"
    assert hotel.asked == ["book 1", "book 2", "cancel whatever there is"] and len(hotel.rooms) == 1


async def test_commands_are_obeyed_while_the_breaker_of_the_steps_that_they_are_about_is_open() -> None:
    hotel, agent, away = Hotel(), Agent("booking"), asyncio.Event()

    @agent.on(Ordered, breaker=Breaker(failures=2, open_seconds=3600))
    async def book(ordered: Ordered, context: Context) -> Booked:
        if away.is_set():
            raise ConnectionError("nobody answers")
        return Booked(room=await hotel.book(context.idempotency_key, ordered.number))

    @book.undo
    async def cancel(ordered: Ordered, context: Context) -> None:
        hotel.cancel(context.idempotency_key, None)

    async with Choreography([agent], coordinator=False) as world:
        done = await world.publish(Ordered(number=1))
        await done.finished()
        away.set()
        tried = [await world.publish(Ordered(number=number)) for number in range(2, 5)]
        await asyncio.sleep(60)
        untried = await world.publish(Ordered(number=5))
        await asyncio.sleep(60)
        orders: Sequence[tuple[Flow, type[StepCommand], type[Event]]] = [
            (done, Compensate, StepCompensated), (tried[0], Fence, StepAbandoned), (untried, Fence, StepFenced),
        ]  # fmt: skip
        for flow, command, answer in orders:
            commands = Commands(world, "booking", flow)
            await commands.send(command)
            await commands.answer(answer, seconds=5)
        assert hotel.asked == ["book 1", "cancel whatever there is"] and not hotel.rooms
        await asyncio.sleep(60)
        assert [(each["breaker"], each["state"]) for each in beat_of(world, "booking")["breakers"]] == [("subscription", "open")]
        away.clear()
        for flow in tried[1:]:
            assert await flow.finished(timeout_seconds=7200) == "committed"
    assert sorted(hotel.asked[2:]) == ["book 3", "book 4"], "what was fenced is not begun when the breaker closes"


async def test_an_undo_that_was_cut_off_by_a_crash_is_run_again_under_the_same_key() -> None:
    hotel, agent = Hotel(), Agent("booking")
    began, keys = asyncio.Event(), list[str]()

    @agent.on(Ordered)
    async def book(ordered: Ordered, context: Context) -> Booked:
        return Booked(room=await hotel.book(context.idempotency_key, ordered.number))

    @book.undo
    async def cancel(ordered: Ordered, context: Context) -> None:
        keys.append(context.idempotency_key)
        began.set()
        await hotel.open.wait()
        hotel.cancel(context.idempotency_key, None)

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        hotel.open.clear()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        await began.wait()
        await world.kill(agent)
        hotel.open.set()
        await world.start(agent)
        await commands.answer(StepCompensated)
    assert keys == [commands.step] * 2 and not hotel.rooms


async def test_an_undo_that_must_know_what_was_emitted_is_not_run_for_a_step_that_was_cut_off() -> None:
    hotel, agent = Hotel(), Agent("booking")
    hotel.open.clear()

    @agent.on(Ordered)
    async def book(ordered: Ordered, context: Context) -> Booked:
        return Booked(room=await hotel.book(context.idempotency_key, ordered.number))

    @book.undo
    async def cancel(ordered: Ordered, booked: Booked) -> None:
        hotel.asked.append("cancel")

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(number=7))
        commands = Commands(world, "booking", flow)
        await commands.answer(StepStarted)
        await commands.send(Fence)
        await commands.answer(StepAbandoned)
        await commands.send(Compensate)
        failed = await commands.answer(CompensationFailed)
    assert not failed.retryable and "declares Booked | None" in failed.detail and hotel.asked == ["book 7"]


async def test_an_undo_waits_for_the_lease_of_an_attempt_that_does_not_let_itself_be_stopped() -> None:
    agent, asked, never = Agent("booking"), list[str](), asyncio.Event()

    @agent.on(Ordered, timeout_seconds=30)
    async def book(ordered: Ordered) -> None:
        try:
            await never.wait()
        except asyncio.CancelledError:
            await never.wait()

    @book.undo
    async def cancel(ordered: Ordered) -> None:
        asked.append("cancel")

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(number=7))
        commands = Commands(world, "booking", flow)
        started = await commands.answer(StepStarted)
        await commands.send(Fence)
        await commands.send(Compensate)
        await commands.answer(StepAbandoned)
        await commands.answer(StepCompensated)
        assert world.now() >= started.lease_until.timestamp()
        never.set()
    assert asked == ["cancel"]


async def test_a_step_of_which_an_attempt_is_under_way_has_nothing_to_undo_yet() -> None:
    hotel = Hotel()
    hotel.open.clear()
    async with Choreography([booking(hotel)]) as world:
        flow = await world.publish(Ordered(number=7))
        commands = Commands(world, "booking", flow)
        await commands.answer(StepStarted)
        await commands.send(Compensate)
        failed = await commands.answer(CompensationFailed)
        assert failed.retryable and "not come to its end" in failed.detail
        hotel.open.set()
        assert await flow.finished() == "committed"
        await commands.send(Compensate)
        await commands.answer(StepCompensated)
    assert hotel.asked == ["book 7", "cancel room 7"] and not hotel.rooms


async def test_a_step_that_is_told_to_expire_before_it_began_has_failed_without_effect_and_never_begins() -> None:
    hotel = Hotel()
    agent = booking(hotel)
    async with Choreography([agent]) as world:
        await world.stop(agent)
        flow = await world.publish(Ordered(number=7))
        commands = Commands(world, "booking", flow)
        await commands.send(Expire)
        await world.start(agent)
        failed = await commands.answer(StepFailed)
        await commands.send(Expire)
        assert await commands.answer(StepFailed, 2) == failed
    assert (failed.reason, failed.effect, hotel.asked) == ("expired", Effect.NONE, [])


async def test_two_commands_about_one_step_are_obeyed_one_after_the_other() -> None:
    hotel, agent, running, most = Hotel(), Agent("booking"), 0, 0

    @agent.on(Ordered)
    async def book(ordered: Ordered, context: Context) -> Booked:
        return Booked(room=await hotel.book(context.idempotency_key, ordered.number))

    @book.undo
    async def cancel(ordered: Ordered, context: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(10)
        running -= 1
        hotel.cancel(context.idempotency_key, None)

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        for generation in (1, 1, 2):
            await commands.send(Compensate, generation)
        await commands.answer(StepCompensated, 2)
        await asyncio.sleep(60)
        told = [record.command_id for record in commands.told(StepCompensated)]
    assert most == 1 and hotel.asked == ["book 7", "cancel whatever there is"]
    assert told == [commands.id_of(Compensate), commands.id_of(Compensate, 2)], "sent again under way, it is answered once"


async def test_what_an_undo_remembers_is_not_what_its_step_remembered() -> None:
    asked, agent = list[str](), Agent("booking")

    @agent.on(Ordered)
    async def book(ordered: Ordered, context: Context) -> None:
        await context.once("call", lambda: asked.append("book"))

    @book.undo(retry=RetryPolicy(3))
    async def cancel(ordered: Ordered, context: Context) -> None:
        await context.once("call", lambda: asked.append("cancel"))
        if context.attempt == 1:
            raise ConnectionError("the answer never came")

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(number=7))
        await flow.finished()
        commands = Commands(world, "booking", flow)
        await commands.send(Compensate)
        await commands.answer(StepCompensated)
    assert asked == ["book", "cancel"]
