"""No attempt before its time where the instance that had the partition before fails one while its successor has the event in hand.

The seed once was early: the event had waited four seconds for a worker, and began by what its row had said before that.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from unittest.mock import patch

from maypole.bus import Agent, Context, Retry
from maypole.bus.recording import Recording
from maypole.bus.testing import Odds
from maypole.bus.testing.simulation.run import run_seed
from tests.simulation.agents import Stumbled, Ticked, _work, long_flows, spreading

_SEED: Final = 109
_ODDS: Final = Odds(crash=0.2, expel=1, slow=0.6)

stumbler: Final = Agent("stumbler", concurrency=4)


@stumbler.on(Ticked, retry=Retry(attempts=20, delays=(0.3, 8)))
async def stumble(ticked: Ticked, context: Context) -> Stumbled:
    await _work()
    if random.random() < 0.4:
        raise ConnectionError("not yet")
    return Stumbled(number=ticked.number, answer=random.getrandbits(31))


def _it_holds(self: Recording, work: Any) -> bool:
    return False


def findings(bug: AbstractContextManager[object]) -> list[str]:
    with bug:
        return list(run_seed((spreading, stumbler), long_flows, _SEED, _ODDS, [], None).findings)


def test_what_waited_for_a_worker_is_looked_up_again_before_it_begins() -> None:
    assert findings(nullcontext()) == []


def test_to_begin_by_what_was_looked_up_long_ago_is_caught() -> None:
    assert any(each.startswith("tried early") for each in findings(patch.object(Recording, "looked_long_ago", _it_holds)))
