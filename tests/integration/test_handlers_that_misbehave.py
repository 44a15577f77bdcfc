"""Handlers that do what nobody should: each is an attempt that failed, and costs its own event alone."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import pytest
from pydantic import model_validator

from maypole.bus import Agent, Context, Event
from maypole.bus.attempt import attempted
from maypole.bus.blocked import BLOCKED_SECONDS
from maypole.bus.composition import Platform, open_platform
from maypole.bus.deadlines import Deadlines, HandlerGuard
from maypole.bus.handler_threads import HandlerThreads, ThreadsExhausted
from maypole.bus.hook import Untraced
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.schemas.identifiers import FlowId, step_id_of
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.names import unique_agent
from tests.support.world import ended, letters, running


class Dared(Event, type="misbehave.dared"):
    harmful: bool = True


class Poisoned(Event, type="misbehave.poisoned"):
    harmful: bool = True

    @model_validator(mode="after")
    def leave(self) -> Self:
        if self.harmful and _armed:
            sys.exit("from a validator")
        return self


_armed: list[bool] = []


class Fatal(BaseException):
    """Something that a library made of its own."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this error has no words")


def leave() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def close() -> None:
    raise GeneratorExit


def fall() -> None:
    raise Fatal("as it likes")


def stop() -> None:
    raise StopIteration(7)


def cancel() -> None:
    raise asyncio.CancelledError("from inside")


def mumble() -> None:
    raise Unspeakable


DEEDS = pytest.mark.parametrize(
    ("deed", "told"),
    [
        (leave, "SystemExit"), (interrupt, "KeyboardInterrupt"), (close, "GeneratorExit"), (fall, "Fatal: as it likes"),
        (stop, "StopIteration"), (cancel, "CancelledError"), (mumble, "Unspeakable"),
    ],
    ids=lambda deed: getattr(deed, "__name__", ""),
)  # fmt: skip


@DEEDS
@pytest.mark.parametrize("threaded", [False, True], ids=["coroutine", "thread"])
async def test_whatever_a_handler_raises_is_an_attempt_that_failed(
    platform: Platform, deed: Callable[[], None], told: str, threaded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(unique_agent())
    if threaded:

        @agent.on(Dared, attempts_max=2)
        def dare(dared: Dared) -> None:
            if dared.harmful:
                deed()
    else:

        @agent.on(Dared, attempts_max=2)
        async def dare_awaited(dared: Dared) -> None:
            if dared.harmful:
                deed()

    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        harmful = await bus.publish(Dared())
        harmless = await bus.publish(Dared(harmful=False))
        await failed_as(platform, agent, harmful.flow_id, "attempts_exhausted", told)
        assert (await ended(platform, harmless.flow_id)).state is State.COMMITTED
    attempts = [record for record in caplog.records if record.message == "step.attempt_failed"]
    assert [(vars(each)["agent"], vars(each)["attempt"]) for each in attempts] == [(agent.name, 1), (agent.name, 2)]
    assert all("dare" in vars(each)["handler"] and told.partition(":")[0] in vars(each)["error"] for each in attempts)


@pytest.mark.parametrize("deed", [leave, interrupt], ids=lambda deed: deed.__name__)
async def test_what_a_task_of_a_handler_raises_fails_the_handler(platform: Platform, deed: Callable[[], None]) -> None:
    agent = Agent(unique_agent())

    async def child(dared: Dared) -> None:
        await asyncio.sleep(0)
        if dared.harmful:
            deed()

    async def grandchild(dared: Dared) -> None:
        await asyncio.create_task(child(dared))

    @agent.on(Dared, attempts_max=1)
    async def delegate(dared: Dared) -> None:
        asyncio.create_task(child(dared), name="cancelled before it began").cancel()
        await asyncio.gather(grandchild(dared), asyncio.sleep(0))

    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        harmful, harmless = await bus.publish(Dared()), await bus.publish(Dared(harmful=False))
        await failed_as(platform, agent, harmful.flow_id, "attempts_exhausted", "a task of the handler raised")
        assert (await ended(platform, harmless.flow_id)).state is State.COMMITTED


async def test_what_a_validator_raises_refuses_the_event(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Poisoned)
    async def read(poisoned: Poisoned) -> None: ...

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Poisoned())
        _armed.append(True)
        try:
            await failed_as(platform, agent, published.flow_id, "contract_refused", "from a validator")
        finally:
            _armed.clear()


async def failed_as(platform: Platform, agent: Agent, flow: FlowId, reason: str, told: str) -> None:
    state = await ended(platform, flow)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert failed.reason == reason and told in failed.detail
    ((_, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == reason and told in why["dlq-error"]


# -- handlers that keep what they were lent: the loop, a thread. In real time, which is what they take. -----------


@pytest.fixture
async def unhurried(tmp_path: Path) -> AsyncIterator[Platform]:
    async with MemoryTransport(MemoryBroker(time.time)) as transport, open_platform(Settings(home=tmp_path), transport) as platform:
        yield platform


class Alarm(logging.Handler):
    """Rings when an event is logged, on whichever thread."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self.rung = threading.Event()
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == self._event:
            self.rung.set()


async def test_a_coroutine_that_blocks_the_loop_is_named_and_is_over_its_time(
    unhurried: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    agent, alarm = Agent(unique_agent()), Alarm("loop.blocked")

    @agent.on(Dared, timeout_seconds=0.5, attempts_max=1)
    async def block(dared: Dared) -> None:
        if dared.harmful:
            assert alarm.rung.wait(30)

    logging.getLogger("maypole.bus.blocked").addHandler(alarm)
    try:
        async with running(unhurried, agent):
            bus = unhurried.bus("tests", Untraced())
            published = await bus.publish(Dared())
            await failed_as(unhurried, agent, published.flow_id, "attempts_exhausted", "longer than 0.5 s")
            harmless = await bus.publish(Dared(harmful=False))
            assert (await ended(unhurried, harmless.flow_id)).state is State.COMMITTED
    finally:
        logging.getLogger("maypole.bus.blocked").removeHandler(alarm)
    (told,) = [vars(record) for record in caplog.records if record.getMessage() == "loop.blocked"]
    step = step_id_of(published.flow_id, agent.name, "misbehave.dared", published.event_id)
    assert (told["agent"], told["flow_id"], told["step_id"], told["attempt"]) == (agent.name, published.flow_id, step, 1)
    assert told["handler"].startswith(f"{__name__}:") and told["handler"].endswith("block")
    assert "test_handlers_that_misbehave.py:" in told["at"] and told["seconds"] == BLOCKED_SECONDS


async def test_threads_that_never_return_are_replaced(unhurried: Platform, caplog: pytest.LogCaptureFixture) -> None:
    agent, release = Agent(unique_agent(), concurrency=2), threading.Event()

    @agent.on(Dared, timeout_seconds=0.05, attempts_max=1, breaker=None)
    def hang(dared: Dared) -> None:
        if dared.harmful:
            release.wait()

    hanging = 40
    try:
        async with running(unhurried, agent):
            bus = unhurried.bus("tests", Untraced())
            flows = [(await bus.publish(Dared())).flow_id for _ in range(hanging)]
            for flow in flows:
                assert (await ended(unhurried, flow)).failed
            harmless = await bus.publish(Dared(harmful=False))
            assert (await ended(unhurried, harmless.flow_id)).state is State.COMMITTED
    finally:
        release.set()
    told = [vars(record) for record in caplog.records if record.getMessage() == "handler.thread_abandoned"]
    assert [each["abandoned"] for each in told] == list(range(1, hanging + 1))
    assert {each["flow_id"] for each in told} == set(flows) and all(each["handler"].endswith("hang") for each in told)
    (left,) = [vars(record) for record in caplog.records if record.getMessage() == "agent.threads_abandoned"]
    assert (left["agent"], left["threads"]) == (agent.name, hanging)


async def test_calls_of_once_that_never_return_are_replaced_too(unhurried: Platform, caplog: pytest.LogCaptureFixture) -> None:
    """More than the pool of the standard library has threads."""
    hanging = 40
    agent, release = Agent(unique_agent(), concurrency=hanging), threading.Event()

    @agent.on(Dared, timeout_seconds=2, attempts_max=1, breaker=None, pivot=True)
    async def ask(dared: Dared, context: Context) -> None:
        await context.once("ask", release.wait if dared.harmful else bool)

    try:
        async with running(unhurried, agent):
            bus = unhurried.bus("tests", Untraced())
            flows = [(await bus.publish(Dared())).flow_id for _ in range(hanging)]
            for flow in flows:
                assert (await ended(unhurried, flow)).failed
            harmless = await bus.publish(Dared(harmful=False))
            assert (await ended(unhurried, harmless.flow_id)).state is State.COMMITTED
    finally:
        release.set()
    told = [vars(record) for record in caplog.records if record.getMessage() == "handler.thread_abandoned"]
    assert told and {each["flow_id"] for each in told} <= set(flows)


async def test_as_many_plain_functions_run_side_by_side_as_the_agent_allows(unhurried: Platform) -> None:
    """More than the pool of the standard library has threads."""
    together = 48
    agent, meeting = Agent(unique_agent(), concurrency=together), threading.Barrier(together)

    @agent.on(Dared, timeout_seconds=20, attempts_max=1)
    def meet(dared: Dared) -> None:
        meeting.wait()

    async with running(unhurried, agent):
        bus = unhurried.bus("tests", Untraced())
        flows = [(await bus.publish(Dared())).flow_id for _ in range(together)]
        for flow in flows:
            assert (await ended(unhurried, flow)).state is State.COMMITTED


async def test_an_agent_does_not_go_on_for_ever_with_threads_that_never_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maypole.bus.handler_threads.ABANDONED_MAX", 2)
    threads, release = HandlerThreads("tests"), threading.Event()
    for _ in range(2):
        threads.check()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(threads.call({}, release.wait), 0.05)
    with pytest.raises(ThreadsExhausted, match=r"agent tests: 2 calls of its handlers .*threading\.py:\d+"):
        threads.check()
    release.set()
    while threads.abandoned:
        await asyncio.to_thread(time.sleep, 0)
    threads.check()
    threads.close()


async def test_a_handler_that_answers_its_end_with_an_error_of_its_own_ends_all_the_same() -> None:
    """A worker that is told to stop stops, whatever its handler makes of that."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("not now") from None

    async def program() -> object:
        return await attempted(HandlerGuard(Deadlines()), 30, stubborn)

    task = asyncio.create_task(program())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_what_a_signal_raises_ends_the_process_and_not_the_attempt() -> None:
    """Python raises for a signal in the middle of whatever runs."""

    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        for _ in range(1000):
            pass

    def leave(number: int, frame: object) -> None:
        sys.exit(1)

    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, raised in ((signal.default_int_handler, KeyboardInterrupt), (leave, SystemExit)):
            signal.signal(signal.SIGINT, handler)
            with pytest.raises(raised):
                await attempted(HandlerGuard(Deadlines()), 30, interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
