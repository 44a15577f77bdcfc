"""One seed of one of the casts."""

from __future__ import annotations

from maypole.bus.testing.simulation.run import run_seed
from maypole.bus.testing.simulation.verdict import Verdict
from tests.simulation.agents import CASTS


def verdict_of(cast: str, seed: int) -> Verdict:
    chosen = CASTS[cast]
    witnessed = [agent.name for agent in chosen.witnessed]
    return run_seed(chosen.agents, chosen.scenario, seed, chosen.odds, witnessed, chosen.expect, coordinator=chosen.coordinator)
