"""A flow in which a fallback served a step says so wherever people look at it: the marks lie beside its journal records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click
import pytest

from maypole.bus import Agent, Breaker, Default, Event, Skip
from maypole.bus.fallbacks import Fallback
from maypole.bus.testing import Choreography
from maypole.services.cli import connection
from maypole.services.cli.commands.publish import command as publish
from maypole.services.cli.commands.saga import show
from maypole.services.cli.session import Session


class Ordered(Event, type="degraded.ordered"):
    number: int


class Priced(Event, type="degraded.priced"):
    cents: int


class Billed(Event, type="degraded.billed"):
    cents: int


LISTED = Priced(cents=100)
SERVED = [(Default(LISTED), "default"), (Skip(LISTED), "skip")]


class Shop:
    """*pricing* needs a service that is away until `back`; *billing* goes on with what it says."""

    def __init__(self, fallback: Fallback) -> None:
        self.away = True
        self.pricing, self.billing = Agent("pricing"), Agent("billing")

        @self.pricing.on(Ordered, breaker=Breaker(failures=1, fallback=fallback))
        async def price(ordered: Ordered) -> Priced:
            if self.away:
                raise ConnectionError("nobody answers")
            return Priced(cents=ordered.number)

        @self.billing.on(Priced)
        async def bill(priced: Priced) -> Billed:
            return Billed(cents=priced.cents)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Choreography]:
        """With the breaker of *pricing* open."""
        async with Choreography([self.pricing, self.billing]) as world:
            await world.publish(Ordered(number=0))
            await asyncio.sleep(5)
            yield world


@pytest.mark.parametrize(("fallback", "how"), SERVED)
async def test_a_flow_tells_a_test_which_agents_were_served(fallback: Fallback, how: str) -> None:
    shop = Shop(fallback)
    async with shop.open() as world:
        flow = await world.publish(Ordered(number=1))
        assert await flow.finished() == "committed"
        assert flow.degraded == ("pricing",), "billing was called, with what a fallback had said"
        assert {step.agent: step.degraded for step in flow.steps} == {"pricing": how, "billing": "inherited"}
        shop.away = False
        await asyncio.sleep(120)
        real = await world.publish(Ordered(number=2))
        assert await real.finished() == "committed"
        assert real.degraded == ()
        assert {step.degraded for step in real.steps} == {None}


@asynccontextmanager
async def at_a_terminal(world: Choreography, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Session]:
    """Commands are run in the world's time, on its broker."""

    @asynccontextmanager
    async def connected(session: Session) -> AsyncIterator[Any]:
        await world._platform.catalog.refresh()
        yield world._platform

    monkeypatch.setattr(connection, "connected", connected)
    yield Session({"MAYPOLE_TRACING": "off"})


async def typed(command: click.Command, session: Session, **options: Any) -> int:
    code: int = await command.callback.__wrapped__(session, **options)  # type: ignore[union-attr]
    return code


def ordering(form: str, *, follow: bool = True) -> dict[str, Any]:
    words = {"event_type": "degraded.ordered", "data": '{"number": 1}', "key": None, "idempotency_key": None, "deadline": None}
    return {**words, "follow": follow, "timeout": 20.0, "form": form}


@pytest.mark.parametrize(("fallback", "how"), SERVED)
async def test_whoever_follows_a_flow_and_whoever_looks_later_read_who_was_served(
    fallback: Fallback, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(fallback)
    async with shop.open() as world, at_a_terminal(world, monkeypatch) as session:
        assert await typed(publish, session, **ordering("json")) == 0
        said = capsys.readouterr()
        followed = json.loads(said.out)
        (served,) = followed["degraded"]
        assert (served["agent"], served["on"], served["how"]) == ("pricing", "degraded.ordered", how)
        assert f" s; degraded: pricing on degraded.ordered ({how})\n" in click.unstyle(said.err)

        assert await typed(show, session, flow=followed["flow_id"], form="json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["degraded"] == followed["degraded"]
        assert {step["agent"]: step["degraded"] for step in shown["steps"]} == {"pricing": how, "billing": "inherited"}
        assert await typed(show, session, flow=followed["flow_id"], form="table") == 0
        lines = click.unstyle(capsys.readouterr().out).splitlines()
        assert f"degraded     pricing on degraded.ordered ({how})" in lines
        assert [line.split("  ")[-1] for line in lines if "degraded: " in line] == [f"degraded: {how}", "degraded: inherited"]


async def test_a_flow_whose_handlers_were_all_called_is_not_degraded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(Default(LISTED))
    shop.away = False
    async with shop.open() as world, at_a_terminal(world, monkeypatch) as session:
        assert await typed(publish, session, **ordering("json")) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["degraded"] == []
        assert "degraded:" not in click.unstyle(said.err)


async def test_the_ids_are_told_whatever_becomes_of_the_watching(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(*_: object) -> None:
        raise asyncio.CancelledError

    async with Shop(Default(LISTED)).open() as world, at_a_terminal(world, monkeypatch) as session:
        assert await typed(publish, session, **ordering("jsonl")) == 0
        first, second = map(json.loads, capsys.readouterr().out.splitlines())
        assert "degraded" not in first
        assert (second["flow_id"], [each["agent"] for each in second["degraded"]]) == (first["flow_id"], ["pricing"])
        assert await typed(publish, session, **ordering("json", follow=False)) == 0
        assert "degraded" not in json.loads(capsys.readouterr().out), "nobody looked"
        monkeypatch.setattr("maypole.services.cli.watching.watch", interrupted)
        with pytest.raises(asyncio.CancelledError):
            await typed(publish, session, **ordering("json"))
        told = json.loads(capsys.readouterr().out)
        assert told["flow_id"] and told["degraded"] is None
