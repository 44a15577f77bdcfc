"""Two instances of an agent, each with a ledger that the other does not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maypole.bus.composition import open_platform
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.settings import Settings
from tests.support.asking import answering
from tests.support.world import eventually, running


async def test_an_instance_is_told_of_another_that_keeps_its_own_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def warned() -> list[str]:
        return [record.__dict__["its_ledger"] for record in caplog.records if record.getMessage() == "agent.ledger_elsewhere"]

    async with (
        virtual_time() as clock,
        MemoryTransport(MemoryBroker(clock.now)) as transport,
        open_platform(Settings(home=tmp_path / "one"), transport, clock.now) as one,
        open_platform(Settings(home=tmp_path / "two"), transport, clock.now) as two,
    ):
        name = answering().name

        async def heard() -> set[str]:
            await two.catalog.refresh()
            return two.catalog.view.alive(name, clock.now())

        async with running(one, answering(name)):
            assert await eventually(heard, bool) and not warned()
            async with running(replace(two, instance="elsewhere-1"), answering(name)):
                (where,) = warned()
    assert where.endswith(str(one.home))
