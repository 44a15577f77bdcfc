"""Choreographies under bad luck: the real runtime on a simulated broker, from one seed that decides everything."""

from maypole.bus.testing.simulation.odds import Odds
from maypole.bus.testing.simulation.probes import take_back, witness
from maypole.bus.testing.simulation.simulate import simulate
from maypole.bus.testing.simulation.world import World

__all__ = ["Odds", "World", "simulate", "take_back", "witness"]
