"""Flows that fail on the way, under kills, short: each ends with all of its effects, with none, or with those that it lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.kafka import KafkaCluster
from deploy.local.postgres import Postgres
from maypole.services.saga import State
from tests.torture.failing_flows import Arrangement, notes, torture
from tests.torture.run import Ground, Orders, say
from tests.torture.witness import witness

FLOWS = 40
KILLS = 12
SECONDS_MAX = 90.0


@pytest.mark.kafka3
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_flows_that_fail_while_everything_is_killed_end_with_all_of_their_effects_or_none_or_say_what_is_left(
    kafka3: KafkaCluster, postgres: Postgres, tmp_path: Path
) -> None:
    arrangement = Arrangement("two coordinators", ["booking shipping", "charging packing"], instances=1, coordinators=2)
    orders = Orders(SECONDS_MAX, KILLS, "short", broker_pause=6, settle_seconds=90)
    with witness(tmp_path) as address:
        ends = await torture(Ground(kafka3, address, tmp_path, postgres), orders, arrangement, FLOWS, per_second=4)
    assert ends.broken == [], notes(ends)
    say(notes(ends))
    assert not ends.forgotten and ends.flows == FLOWS
    # It must have been torture, and every kind of end must have come about.
    assert ends.agent_kills and ends.coordinator_kills and ends.toll.broker_kills, ends
    assert set(ends.states) == {State.COMMITTED, State.COMPENSATED, State.STUCK}, ends
    assert ends.taken_back and ends.left_of_stuck, ends
