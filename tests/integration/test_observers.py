"""Events that an observer made, marked `ce_observer`, at the agents that are members of the flow (saga protocol, A5)."""

from __future__ import annotations

import logging

import pytest

from maypole.bus import Agent, Event, Reject
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Delivery
from maypole.schemas.identifiers import FlowId
from maypole.services.saga import State
from tests.support.asking import Answered, Asked, answering, foreign
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, headers_of, journal_of, letters, read_topic, running


class Retold(Event, type="observers.retold"):
    text: str


async def test_a_member_only_observes_what_an_observer_made(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    asked, member, acting, acted = answering(), Agent(unique_agent("member")), Agent(unique_agent("acting")), []

    @member.on(Answered)
    async def retell(answered: Answered) -> Retold:
        if answered.text == "refused":
            raise Reject("no")
        return Retold(text=answered.text)

    @acting.on(Answered, pivot=True)
    async def act(answered: Answered) -> None:
        acted.append(answered.text)

    async with running(platform, asked, member, acting):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
        flow = published.flow_id
        before = await journal_of(platform, flow)

        marks = [
            ("ce_causationid", published.event_id.encode()),
            ("ce_choreography", published.choreography.encode()),
            ("ce_observer", b"true"),
        ]

        async def retold() -> list[Delivery]:
            return [record for record in await read_topic(platform, "observers.retold") if record.key == flow.encode()]

        with caplog.at_level(logging.INFO, "maypole"):
            await platform.sink.publish([foreign(Answered(text=text), flow, f"observed-{text}", *marks) for text in ("refused", "handled")])
            told = await eventually(retold, lambda records: len(records) == 2)
            await letters(platform, member.name, 1)
            follow_up = await platform.bus("tests", Untraced()).publish(Asked(text="last"))
            assert (await ended(platform, follow_up.flow_id)).state is State.COMMITTED
    own, observed = sorted(told, key=lambda record: "ce_observer" in headers_of(record))
    assert "ce_observer" not in headers_of(own)
    assert headers_of(observed)["ce_observer"] == b"true", "what comes of it is marked too"
    assert headers_of(observed)["ce_causationid"] == b"observed-handled"
    assert await journal_of(platform, flow) == before, "neither its step nor its failure is journaled"
    assert acted == ["HELLO", "LAST"], "what acts on the outside skips it"
    assert any(record.getMessage().endswith("skipped") and acting.name in str(vars(record)) for record in caplog.records), "and says so"


async def test_what_an_observer_made_without_a_choreography_is_refused_and_not_adopted(platform: Platform) -> None:
    member = answering()
    flow = FlowId(f"observed-{member.name}")
    async with running(platform, member):
        await platform.sink.publish([foreign(Asked(text="hello"), flow, "observed-1", ("ce_observer", b"true"))])
        ((_, said),) = await letters(platform, member.name, 1)
    assert said["dlq-reason"] == "contract_refused" and "ce_choreography" in said["dlq-error"]
    assert await journal_of(platform, flow) == []
