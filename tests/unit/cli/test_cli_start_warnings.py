"""What is told of agents when they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maypole.bus import Agent, Event
from maypole.bus.catalog import View
from maypole.services.cli.start_warnings import warnings


class Ping(Event, type="ping.sent"):
    text: str


class Pong(Event, type="pong.sent"):
    text: str


def hearing(event_type: str) -> Agent:
    agent = Agent("hearing")

    @agent.on(event_type)
    async def hear(event: Mapping[str, Any]) -> None: ...

    return agent


def test_an_agent_that_emits_what_it_reacts_to_is_told_to_go_round_for_ever() -> None:
    loop, chain = Agent("loop"), Agent("chain")

    @loop.on(Ping)
    async def again(ping: Ping) -> Ping:
        return ping

    @chain.on(Ping)
    async def answer(ping: Ping) -> Pong:
        return Pong(text=ping.text)

    (warning,) = warnings([loop, chain], View(), ["ping.sent"])
    assert warning.startswith("loop emits ping.sent on ping.sent: ") and "for ever" in warning


def test_a_name_that_nobody_emits_is_told_with_those_that_come_near() -> None:
    (warning,) = warnings([hearing("research.complted")], View(), [])
    told = "hearing subscribes to research.complted, which no agent emits and which is no topic here; did you mean research.completed"
    assert warning.startswith(told)
    (warning,) = warnings([hearing("kettle.boiled")], View(), ["a.b"])
    assert "until somebody publishes it" in warning


def test_a_name_that_is_a_topic_or_that_somebody_emits_is_fine() -> None:
    emitting = Agent("emitting")

    @emitting.on(Ping)
    async def answer(ping: Ping) -> Pong:
        return Pong(text=ping.text)

    view = View()
    view.agents["far"] = {"name": "far", "subscriptions": [{"on": "a.b", "emits": ["far.made"], "kind": "events"}], "schemas": {}}
    for name, topics in (("order.placed", ["order.placed"]), ("pong.sent", []), ("far.made", []), ("research.requested", [])):
        assert list(warnings([hearing(name), emitting], view, [*topics, "ping.sent"])) == []


def test_an_undo_that_must_know_what_was_emitted_is_told_which_steps_it_cannot_undo() -> None:
    agents = [Agent("careless"), Agent("careful")]

    @agents[0].on(Ping)
    async def answer(ping: Ping) -> Pong:
        return Pong(text=ping.text)

    @answer.undo
    async def take_back(ping: Ping, pong: Pong) -> None: ...

    @agents[1].on(Ping)
    async def answer_too(ping: Ping) -> Pong:
        return Pong(text=ping.text)

    @answer_too.undo
    async def take_back_too(ping: Ping, pong: Pong | None) -> None: ...

    (warning,) = warnings(agents, View(), ["ping.sent"])
    assert warning.startswith("careless cannot undo a step of ping.sent that was cut off")
