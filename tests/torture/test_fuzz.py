"""The decode border, short: `make torture` does the same a million times."""

from __future__ import annotations

from tests.torture.fuzz import fuzz

RECORDS = 10_000
GROWTH_MB_MAX = 64


def test_every_bent_record_is_handled_or_a_dead_letter_and_none_costs_memory() -> None:
    found = fuzz(RECORDS, "short", per_round=2_500)
    assert found.unaccounted == [], f"{len(found.unaccounted)} records vanished; the first: {found.unaccounted[0]}"
    assert found.handled + found.buried.total() == RECORDS
    assert found.grown_mb < GROWTH_MB_MAX
    # A fuzzer whose records all die at the same place proves nothing.
    assert found.handled > RECORDS // 10
    assert {"undecodable", "contract_refused", "idempotency_conflict", "unknown_flow"} <= found.buried.keys()
