"""Handlers that do what nobody should: each is an attempt that failed, and costs its own event alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Self

import pytest
from pydantic import model_validator

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.schemas.identifiers import FlowId
from maypole.services.saga import State
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
