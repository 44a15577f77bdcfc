"""One flow in order where its steps wait on retry topics while instances lose their partitions all the time.

Seeds at which it once was not: a step waited elsewhere for its next attempt although the one before it was not recorded yet, and had
to begin again after a takeover; a step that was done was told although the one before it had begun to wait; or it followed one that
had ended on a retry topic, and of which nothing had left yet.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from unittest.mock import patch

import pytest

from maypole.bus import Agent, Retry
from maypole.bus.ledger.step import State, Step
from maypole.bus.publisher import Publisher
from maypole.bus.recording import Recording
from maypole.bus.testing import Odds
from maypole.bus.testing.simulation.run import run_seed
from tests.simulation.agents import Stumbled, Ticked, long_flows, spreading

SEEDS: Final = (6, 17, 19, 72, 73, 94, 96, 167)
_ODDS: Final = Odds(crash=0.2, expel=1, slow=0.6)

limping: Final = Agent("limping", concurrency=4)


@limping.on(Ticked, retry=Retry(attempts=20, delays=(0.3, 8)))
async def limp(ticked: Ticked) -> Stumbled:
    if random.random() < 0.4:
        raise ConnectionError("not yet")
    return Stumbled(number=ticked.number, answer=random.getrandbits(31))


async def _at_once(self: object, about: Any) -> bool:
    return self.__class__ is Publisher


BUGS: Final = {
    "it waits elsewhere before what comes before it is recorded": lambda: patch.object(Publisher, "in_turn", _at_once),
    "what is done is told at once": lambda: patch.object(Recording, "_told_later", _at_once),
    "who has ended is waited for no more": lambda: patch.object(Step, "waits", property(lambda step: step.state is State.STARTED)),
}


def reordered(seed: int, bug: AbstractContextManager[object]) -> list[str]:
    with bug:
        verdict = run_seed((spreading, limping), long_flows, seed, _ODDS, [], None)
    return [finding for finding in verdict.findings if finding.startswith("reordered")]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flow_stays_in_order_over_retry_topics(seed: int) -> None:
    assert reordered(seed, nullcontext()) == []


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_that_breaks_the_order_is_caught(bug: Any) -> None:
    assert any(reordered(seed, bug()) for seed in SEEDS)
