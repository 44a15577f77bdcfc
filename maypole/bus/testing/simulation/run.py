"""One run from one seed."""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from typing import Final

from maypole.bus.agent import Agent
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.virtual_time import EPOCH
from maypole.bus.stores.memory import MemoryStores
from maypole.bus.testing.simulation.accidents import Network
from maypole.bus.testing.simulation.chance import Accident, Chance
from maypole.bus.testing.simulation.loop import SimulatedLoop
from maypole.bus.testing.simulation.odds import Odds
from maypole.bus.testing.simulation.probes import OUTSIDE, Outside
from maypole.bus.testing.simulation.stage import Stage
from maypole.bus.testing.simulation.story import Story
from maypole.bus.testing.simulation.verdict import Verdict
from maypole.bus.testing.simulation.world import World
from maypole.services.coordinator.stores.memory import MemoryStore

Scenario = Callable[[World], object]
"""A function or coroutine function; what it publishes is what is judged."""

_LOGS: Final = logging.getLogger("maypole")


def run_seed(
    agents: Sequence[Agent],
    scenario: Scenario,
    seed: int,
    odds: Odds,
    witnessed: Collection[str] = (),
    expect: Callable[[World], object] | None = None,
    only: Collection[Accident] | None = None,
    coordinator: bool | None = None,
) -> Verdict:
    """`witnessed`: the agents whose completed steps must have acted; `expect` may assert more once everything is quiet.

    `only`: of the accidents that the seed draws, those that may happen. `coordinator`: None: where an agent can undo something."""
    loop = SimulatedLoop()
    home = Path(tempfile.mkdtemp(prefix="maypole-simulation-"))
    chance = Chance(seed, odds, only)
    story = Story(loop.time)
    network = Network(loop, chance, story)
    shared = chance.stream("ledgers").random() < _SHARED

    def now() -> float:
        return EPOCH + loop.elapsed

    coordinated = any(each.undo for agent in agents for each in agent.subscriptions) if coordinator is None else coordinator
    counted: list[int] = []
    with _alone(seed):
        broker = MemoryBroker(now, network.broker_faults())
        stage = Stage(loop, broker, MemoryStores(now, network.ledger_faults(), shared=shared), chance, story, home, shared, Context())
        outside = Outside(now, network.seconds, story)
        stage.context.run(OUTSIDE.set, outside)

        async def live() -> list[str]:
            world = World(stage, agents, outside, MemoryStore(network.store_fails) if coordinated else None)
            found = await world.run(scenario, witnessed, expect)
            story.mark(str(world.steps))
            counted.append(world.steps)
            return found

        try:
            found = loop.run_until_complete(live())
        finally:
            shutil.rmtree(home, ignore_errors=True)
            loop.close()
    return Verdict(seed, found, chance.happened, story.lines, story.digest, loop.elapsed, counted[0])


_SHARED: Final = 0.5
"""Of the seeds; the others give each agent one instance, and a ledger of its own."""


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Nothing of the program around it decides anything here, and nothing here disturbs it."""
    state, level = random.getstate(), _LOGS.level
    random.seed(seed)
    _LOGS.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        random.setstate(state)
        _LOGS.setLevel(level)
