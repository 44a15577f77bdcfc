"""`RESULTS.md`: the table of a long run, with what its columns mean. A short run proves less than the last long one, and writes nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.torture.fuzz import Fuzzed
from tests.torture.verdict import Verdict, points_of, table

PATH: Final = Path(__file__).parent / "RESULTS.md"
KILLS_MIN: Final = 1000

_TEXT: Final = """\
# What torture found

Written by `make torture` at the end of a long run: at least {kills:,} kills of agents.
{machine} Kafka: {nodes} nodes, replication {nodes}, on the same machine. Seed `{seed}`.

{table}

- **kills**: `kill -9` of processes at named points of a delivery, and anywhere; each comes back. **broker kills**: `kill -9` of one
  Kafka node, which is started again. **stops**: SIGSTOP for longer than the session, then SIGCONT.
- **records**: what lies on the topics in the end, with the journal. **calls**: what the outside witness was asked to do.
- **lost**, **skipped**, **reordered**, **contradicted**, **multiplied**, **no effect**, **no input**: findings of
  `maypole.bus.testing.history`; **doubled effects**: two keys for one cause, or a call after the step was done.
  For those without a journal a step is done with its first output.
- **blocked**: inputs that nobody gets past, a minute after the last fault (peers: a third of it). Every subject meets poison: Maypole's
  `tocking` refuses one event in {poison}, the peers meet one record that is not JSON.
- **ended by itself**: processes that ended without having been killed or told to.

{notes}

The decode border: {fuzzed}.
"""


def is_long(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.subject == "maypole" and verdict.toll.killed >= KILLS_MIN for verdict in verdicts)


def write_results(verdicts: Sequence[Verdict], fuzzed: Fuzzed, *, nodes: int, seed: str, poison: int) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}."
    killed = [f"- {verdict.subject}: {_killed(verdict)}" for verdict in verdicts]
    text = _TEXT.format(
        kills=KILLS_MIN,
        machine=machine,
        nodes=nodes,
        seed=seed,
        table=table(verdicts),
        poison=poison,
        notes="Where they were killed:\n\n" + "\n".join(killed),
        fuzzed=fuzzed,
    )
    PATH.write_text(text)


def _killed(verdict: Verdict) -> str:
    repeated = f"{verdict.repeated_calls:,} calls and {verdict.repeated_outputs:,} records were repeated under the same id"
    return f"{points_of(verdict.toll)}; {repeated}"
