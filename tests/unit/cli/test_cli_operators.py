"""What people tell a flow carries what every record of the flow carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from maypole.bus.composition import Platform, open_platform
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import TopicPartition
from maypole.schemas.envelope import read_envelope
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import Decision
from maypole.services.operators import decide, request_abort
from maypole.services.saga import Saga
from maypole.settings import Settings

SAGA = Saga(FlowId("flow"))
Tell = Callable[[Platform, str | None], Awaitable[object]]
TELLS: tuple[Tell, ...] = (
    lambda platform, subject: request_abort(platform, SAGA, "ada", "ordered twice", subject=subject),
    lambda platform, subject: decide(platform, SAGA, StepId("step"), Decision.SKIP, "ada", "seen to", subject=subject),
)


@pytest.mark.parametrize("tell", TELLS, ids=["abort", "decision"])
@pytest.mark.parametrize("subject", ["ticket-7", None])
async def test_what_a_person_says_carries_the_business_key_of_its_flow(tmp_path: Path, tell: Tell, subject: str | None) -> None:
    async with (
        virtual_time() as clock,
        MemoryTransport(MemoryBroker(clock.now)) as transport,
        open_platform(Settings(home=tmp_path, tracing="off"), transport, clock.now) as platform,
    ):
        await tell(platform, subject)
        partitions = (await transport.cluster.topics())["maypole.journal"]
        start = {TopicPartition("maypole.journal", partition): 0 for partition in range(partitions)}
        async with transport.reader(start) as reader:
            (written,) = await reader.read(1)
    assert read_envelope(written.headers).business_key == subject
