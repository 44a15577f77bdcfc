"""The agents of the benchmarks: one hop of either kind, and a chain of three."""

from __future__ import annotations

from itertools import pairwise

from maypole.bus.agent import Agent
from maypole.schemas.event import Event
from tests.benchmarks.events import CHAIN, Answered, Asked

PURE = "bench-pure"
RECORDED = "bench-recorded"
HOPS = ("bench-hop-1", "bench-hop-2", "bench-hop-3")


def agent(name: str) -> Agent:
    """Raises KeyError for a name that is not one of these."""
    if name in (PURE, RECORDED):
        return _hop(name, Asked, Answered, pure=name == PURE)
    triggers = dict(zip(HOPS, pairwise(CHAIN), strict=True))
    return _hop(name, *triggers[name], pure=True)


def all_agents() -> list[Agent]:
    return [agent(name) for name in (PURE, RECORDED, *HOPS)]


def _hop(name: str, trigger: type[Event], output: type[Event], *, pure: bool) -> Agent:
    made = Agent(name)

    async def count(event: trigger) -> output:  # type: ignore[valid-type]
        values = dict(event.__dict__)  # type: ignore[attr-defined]
        values["count"] += 1
        return output(**values)

    # The annotations are variables of this function, which text cannot name.
    count.__annotations__ = {"event": trigger, "return": output}
    made.on(trigger, pure=pure)(count)
    return made
