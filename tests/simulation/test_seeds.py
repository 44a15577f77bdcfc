"""Some hundred seeds keep every promise; each bug put in by hand breaks one; the same seed takes the same steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from maypole.bus.testing import Odds, SimulationFailed, simulate
from maypole.bus.testing.simulation.run import run_seed
from tests.simulation.agents import CASTS
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.seeds import verdict_of

_BLOCK = 12
_BLOCKS = 5


@pytest.mark.parametrize("block", range(_BLOCKS))
@pytest.mark.parametrize("cast", CASTS)
def test_every_promise_is_kept_whatever_goes_wrong(cast: str, block: int) -> None:
    chosen = CASTS[cast]
    seeds = range(block * _BLOCK, (block + 1) * _BLOCK)
    simulate(
        chosen.agents, chosen.scenario, seeds=seeds, odds=chosen.odds, witnessed=chosen.witnessed, expect=chosen.expect,
        coordinator=chosen.coordinator,
    )  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_put_in_by_hand_is_caught(mutant: Mutant) -> None:
    with mutant.put_in():
        for seed in range(mutant.within):
            kinds = {finding.partition(":")[0] for finding in verdict_of(mutant.cast, seed).findings}
            if not kinds.isdisjoint(mutant.found):
                return
    pytest.fail(f"{mutant.name}: not caught within {mutant.within} seeds")


@pytest.mark.parametrize(
    "mutant",
    [each for each in MUTANTS if each.cast not in ("retrying", "stumbling", "breaking", "undoing")],
    ids=lambda mutant: mutant.name,
)
def test_without_accidents_such_a_bug_goes_unnoticed(mutant: Mutant) -> None:
    cast = CASTS[mutant.cast]
    with mutant.put_in():
        verdict = run_seed(cast.agents, cast.scenario, 1, Odds.none(), [agent.name for agent in cast.witnessed])
    assert (verdict.findings, verdict.accidents) == ([], [])


@pytest.mark.parametrize("cast", CASTS)
def test_the_same_seed_takes_the_same_steps_twice(cast: str) -> None:
    first, second = verdict_of(cast, 7), verdict_of(cast, 7)
    assert first == second and first.accidents
    assert verdict_of(cast, 8).digest != first.digest


def test_the_same_seed_takes_the_same_steps_in_another_process_with_other_hashes() -> None:
    casts = ("acting", "retrying", "undoing", "overdue")
    program = f"from tests.simulation.seeds import verdict_of; print(*(verdict_of(c, 3).digest for c in {casts}))"
    digests = []
    for hashing in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": os.pathsep.join(sys.path)}
        answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        digests.append(answer.stdout.strip())
    assert digests[0] == digests[1] and " " in digests[0]


def test_a_failing_seed_is_told_with_the_few_accidents_that_it_takes() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "done before the effect")
    cast = CASTS[mutant.cast]
    with mutant.put_in(), pytest.raises(SimulationFailed) as failed:
        simulate(cast.agents, cast.scenario, odds=cast.odds, witnessed=cast.witnessed)
    text, seed = str(failed.value), failed.value.seed
    with mutant.put_in():
        before = run_seed(cast.agents, cast.scenario, seed, cast.odds, [agent.name for agent in cast.witnessed])
    told = re.match(rf"seed {seed} fails, with (\d+) accidents:", text)
    assert told is not None and 1 <= int(told[1]) <= 4 and len(before.accidents) > 8
    assert "dies, at its step" in text and f"seeds=[{seed}]" in text
