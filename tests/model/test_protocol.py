"""The saga protocol as it is built: explored, it breaks no invariant and strands nobody; got wrong in any known way, it does."""

from __future__ import annotations

import pytest

from tests.model.conftest import REPORTS
from tests.model.explore import Explorer
from tests.model.mutants import MUTANTS, Mutant
from tests.model.scenario import Scenario
from tests.model.scenarios import BOUNDED

MUTANT_STATES_MAX = 60_000


@pytest.mark.parametrize("scenario", BOUNDED, ids=lambda scenario: scenario.name)
def test_every_state_keeps_the_invariants_and_can_reach_an_end(scenario: Scenario, request: pytest.FixtureRequest) -> None:
    report = Explorer(scenario).explore()
    request.config.stash.setdefault(REPORTS, []).append(str(report))
    assert report.whole and not report.wrong, "\n".join(report.wrong.values())
    assert report.ends.get("committed") and len(report.ends) > 1, "an exploration that meets one end only explores too little"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_way_to_get_it_wrong_is_found(mutant: Mutant) -> None:
    with mutant.reducer():
        report = mutant.explorer(mutant.scenario, mutant.agents).explore(MUTANT_STATES_MAX, stop_at=mutant.breaks)
    assert mutant.breaks in report.wrong, f"{report}\n" + "\n".join(report.wrong.values())


def test_the_mutants_are_killed_by_what_they_change() -> None:
    """Their scenarios are sound without them: otherwise anything would look like a kill."""
    scenarios = {mutant.scenario.name: mutant.scenario for mutant in MUTANTS if mutant.scenario not in BOUNDED}
    assert [report.wrong for each in scenarios.values() if (report := Explorer(each).explore()).wrong] == []
