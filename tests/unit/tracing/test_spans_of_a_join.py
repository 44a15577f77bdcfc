"""The step of a join is a child of the send of its last part, and linked to those of the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opentelemetry.trace import SpanKind

from maypole.bus import Agent, Event, all_of
from maypole.bus.composition import open_platform
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.stores.memory import MemoryStores
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.world import ended, running
from tests.unit.tracing.recorder import Kept, attributes_of, hexadecimal, parent_of, recording


class Applied(Event, type="joined.applied"):
    number: int


class Score(Event, type="joined.score"):
    number: int


class Income(Event, type="joined.income"):
    number: int


async def test_a_joined_step_is_linked_to_its_other_part(tmp_path: Path) -> None:
    scoring, verification, decision = Agent("scoring"), Agent("verification"), Agent("decision")

    @scoring.on(Applied)
    async def score(applied: Applied) -> Score:
        return Score(number=applied.number)

    @verification.on(Applied)
    async def verify(applied: Applied) -> Income:
        await asyncio.sleep(1)  # so that the last part is known
        return Income(number=applied.number)

    @decision.on(all_of(Score, Income), within="5m")
    async def decide(score: Score, income: Income) -> None: ...

    kept = Kept()
    with recording(kept) as tracing:
        async with (
            virtual_time() as clock,
            MemoryTransport(MemoryBroker(clock.now)) as transport,
            open_platform(Settings(home=tmp_path), transport, clock.now, MemoryStores(clock.now).open) as platform,
            running(platform, scoring, verification, decision, tracing=tracing),
        ):
            flow = (await platform.bus("tests", tracing).publish(Applied(number=1))).flow_id
            assert (await ended(platform, flow)).state is State.COMMITTED
    joined = kept.named("process joined.income")
    other, last = kept.named("send joined.score"), kept.named("send joined.income")
    assert joined.kind is SpanKind.CONSUMER and parent_of(joined) == hexadecimal(last)[1]
    assert [f"{link.context.span_id:016x}" for link in joined.links] == [hexadecimal(other)[1]]
    assert [dict(link.attributes or {}) for link in joined.links] == [{"maypole.link": "part of the join"}]
    assert attributes_of(joined)["maypole.flow.id"] == flow
