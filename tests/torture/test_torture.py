"""The fault run, short: what is promised of agents, shown by killing them. `make torture` does it a thousand times."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.kafka import KafkaCluster
from deploy.local.postgres import Postgres
from tests.torture.maypole import PARTS, broken_promises, torture
from tests.torture.run import Ground, Orders
from tests.torture.verdict import notes
from tests.torture.witness import witness

KILLS = 60
SECONDS_MAX = 210.0


@pytest.mark.kafka3
@pytest.mark.slow
@pytest.mark.timeout(360)
async def test_agents_that_are_killed_sixty_times_lose_nothing_keep_the_order_and_repeat_their_ids(
    kafka3: KafkaCluster, postgres: Postgres, tmp_path: Path
) -> None:
    with witness(tmp_path) as address:
        orders = Orders(SECONDS_MAX, KILLS, "short", broker_pause=20, store_pause=25, stop_pause=8)
        verdict = await torture(Ground(kafka3, address, tmp_path, postgres), orders, flows_per_second=4, static=tuple(PARTS))
    told = notes(verdict)
    assert broken_promises(verdict) == [], told
    # It must have been torture.
    assert verdict.toll.killed >= KILLS, told
    assert verdict.calls > 100 and verdict.repeated_outputs, told
    assert any(name.startswith("alone") for name in verdict.toll.kills_of), "the agent with its ledger in SQLite"
    assert verdict.toll.broker_kills and verdict.toll.store_restarts and verdict.toll.stops, told
