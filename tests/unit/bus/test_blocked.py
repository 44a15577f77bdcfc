"""A handler that keeps the event loop to itself is named, once; whoever lets others run is left alone."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from maypole.bus import Agent, Event, Reject
from maypole.bus.blocked import watching_for_blocks
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.testing import Choreography

SECONDS = 0.2


class Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()
        self.told: list[Mapping[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "loop.blocked":
            self.told.append(vars(record))
            self.heard.set()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    logger = logging.getLogger("maypole.bus.blocked")
    logger.addHandler(listener)
    yield listener
    logger.removeHandler(listener)


@contextmanager
def watched() -> Iterator[None]:
    with watching_for_blocks(lambda task: {"agent": "tests", "task": task.get_name()}, SECONDS):
        yield


async def test_who_blocks_the_loop_is_named_with_the_line_it_is_at_once_per_block(listener: Listener) -> None:
    with watched():
        asyncio.current_task().set_name("stuck")  # type: ignore[union-attr]
        for block in (1, 2):
            listener.heard.clear()
            assert listener.heard.wait(30)  # it blocks until it is told on
            threading.Event().wait(2 * SECONDS)
            assert len(listener.told) == block
            await asyncio.sleep(0)
    told = listener.told[0]
    assert told["task"] == "stuck" and told["agent"] == "tests" and told["seconds"] == pytest.approx(SECONDS)
    assert "test_blocked.py:" in told["at"] and "threading.py:" in told["within"]
    assert "plain `def`" in told["hint"]


async def turn() -> None:
    await asyncio.sleep(0)


async def test_a_loop_that_is_busy_or_idle_or_in_virtual_time_is_left_alone(listener: Listener) -> None:
    loop = asyncio.get_running_loop()
    with watched():
        until = loop.time() + 3 * SECONDS
        while loop.time() < until:
            await turn()  # one task all the time, in many short steps
        await asyncio.sleep(3 * SECONDS)
        async with virtual_time():
            await asyncio.sleep(24 * 3600)
    assert listener.told == []


class Asked(Event, type="blocked.asked"):
    number: int


class Booked(Event, type="blocked.booked"):
    number: int


async def test_tasks_that_a_handler_starts_and_undos_are_named_too(listener: Listener) -> None:
    booking, refusing = Agent("booking"), Agent("refusing")

    async def block() -> None:
        listener.heard.clear()
        assert listener.heard.wait(30)

    @booking.on(Asked)
    async def book(asked: Asked) -> Booked:
        await asyncio.gather(asyncio.create_task(block()))
        return Booked(number=asked.number)

    @book.undo
    async def cancel(asked: Asked) -> None:
        await block()

    @refusing.on(Booked)
    async def refuse(booked: Booked) -> None:
        raise Reject("no")

    async with Choreography([booking, refusing]) as world:
        flow = await world.publish(Asked(number=1))
        assert await flow.finished() == "compensated"
    # A machine that is busy with other work may hold up others for as long.
    handled, undone = (each for each in listener.told if "test_blocked.py:" in each["at"])
    assert handled["agent"] == undone["agent"] == "booking" and handled["flow_id"] == undone["flow_id"] == flow.flow_id
    assert handled["step_id"] == undone["step_id"] and handled["handler"].endswith("book") and undone["command"] == "Compensate"
