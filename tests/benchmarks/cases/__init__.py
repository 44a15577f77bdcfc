"""The cases: each measures some subjects and says which floors they must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.benchmarks.bench import Bench
from tests.benchmarks.cases import commands, coordinator, full_ledger, ledger, memory, one_hop, three_hops, undoing
from tests.benchmarks.rows import Floor, Row

Case = Callable[[Bench], tuple[list[Row], list[Floor]]]

CASES: Final[Mapping[str, Case]] = {
    one_hop.NAME: one_hop.run,
    three_hops.NAME: three_hops.run,
    commands.NAME: commands.run,
    ledger.NAME: ledger.run,
    full_ledger.NAME: full_ledger.run,
    memory.NAME: memory.run,
    coordinator.NAME: coordinator.run,
    undoing.NAME: undoing.run,
}
