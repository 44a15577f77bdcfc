"""What users call: their choreography under bad luck, from many seeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from maypole.bus.agent import Agent
from maypole.bus.testing.errors import SimulationFailed
from maypole.bus.testing.repeated import Repeated
from maypole.bus.testing.simulation.chance import Accident
from maypole.bus.testing.simulation.odds import Odds
from maypole.bus.testing.simulation.run import Scenario, run_seed
from maypole.bus.testing.simulation.shrinking import shrunk
from maypole.bus.testing.simulation.verdict import Verdict
from maypole.bus.testing.simulation.world import World

_TRIES_MAX: Final = 150
_FINDINGS_MAX: Final = 8


def simulate(
    agents: Iterable[Agent],
    scenario: Scenario,
    *,
    seeds: Iterable[int] = range(100),
    odds: Odds = Odds(),  # noqa: B008 - a frozen value
    witnessed: Collection[Agent] = (),
    expect: Callable[[World], object] | None = None,
    coordinator: bool | None = None,
) -> None:
    """Run the agents through a scenario once for each seed, while processes die, stand still and come back, and everything else fails.

        async def two_orders(world: World) -> None:
            await world.publish(Ordered(item="tea"))
            await world.publish(Ordered(item="milk"))

        simulate([packing, sending], two_orders, seeds=range(200))

    The agents run as they do in production, each in one process or in two that share a ledger. When the scenario is over and
    nothing goes wrong any more, every flow must come to its end, and the history of the run is checked: nothing lost,
    doubled, skipped, reordered within a flow, committed without effect, or without input. `expect` is called then, and may
    assert more. Every completed step of the agents in `witnessed` must have called `witness(context)`, and every undo of one
    `take_back(context)`. The handlers of `pure=True` steps are called twice, and must emit the same.

    `coordinator`: whether coordinators run beside the agents, and die as they do; by default where one of the agents can undo
    something. Then a flow that fails must come to its end with nothing left of it, or wait for a person.

    Raises `SimulationFailed` for the first seed that fails, with the few accidents that it takes, and ValueError where
    nothing would be judged. Not to be called where a
    loop runs: it has one of its own, on which time is virtual and where only what handlers await of each other and of
    `asyncio` works, no sockets and subprocesses. Plain functions run at once. `random` is seeded; `uuid4` and clocks are not.
    """
    repeated = Repeated()
    cast, witnesses = tuple(map(repeated.of, agents)), tuple(agent.name for agent in witnessed)
    judged = False

    def run(seed: int, only: Collection[Accident] | None = None) -> Verdict:
        return run_seed(cast, scenario, seed, odds, witnesses, expect, only, coordinator)

    for seed in seeds:
        judged = True
        verdict = run(seed)
        if repeated.broken:
            raise SimulationFailed(seed, f"seed {seed} fails:\n  {repeated.broken[0]}")
        if verdict.findings:
            raise SimulationFailed(seed, explained(smallest(verdict, run)))
    if not judged:
        raise ValueError("expected at least one seed, found none: this would test nothing")


def smallest(verdict: Verdict, run: Callable[[int, Collection[Accident]], Verdict]) -> Verdict:
    """A run of the same seed that fails in the same way with as few accidents as could be found."""
    kinds = _kinds(verdict)
    found = verdict

    def fails(accidents: Sequence[Accident]) -> bool:
        nonlocal found
        tried = run(verdict.seed, frozenset(accidents))
        if kinds.isdisjoint(_kinds(tried)):
            return False
        found = tried
        return True

    shrunk(verdict.accidents, fails, _TRIES_MAX)
    return found


def explained(verdict: Verdict) -> str:
    left = len(verdict.findings) - _FINDINGS_MAX
    lines = [
        f"seed {verdict.seed} fails, with {len(verdict.accidents)} accidents:",
        *(f"  {finding}" for finding in verdict.findings[:_FINDINGS_MAX]),
        *([f"  and {left} more"] if left > 0 else []),
        "what happened, in virtual seconds:",
        *verdict.story,
        f"run it again with seeds=[{verdict.seed}]; the same seed takes the same steps",
    ]
    return "\n".join(lines)


def _kinds(verdict: Verdict) -> frozenset[str]:
    return frozenset(finding.partition(":")[0] for finding in verdict.findings)
