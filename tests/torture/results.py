"""The report of a run: the table, with what its columns mean. It grows with the run, so a run that is ended has told what it found.

Every run leaves it in the home folder. `RESULTS.md` beside this file is that of the last long run: a short one proves less.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.torture.fuzz import Fuzzed
from tests.torture.verdict import Verdict, points_of, table

PATH: Final = Path(__file__).parent / "RESULTS.md"
KILLS_MIN: Final = 1000

_TEXT: Final = """\
# What torture found

Written by `make torture`, {date}. {machine} Kafka: {nodes} nodes, replication {nodes}, on the same machine: counts mean
something here, times do not. Seed `{seed}`. Asked for: at least {kills:,} kills of Maypole's agents; found: {killed:,}.

{table}

- **kills**: `kill -9` of processes at named points of a delivery, and anywhere; each comes back. **broker kills**: `kill -9` of one
  Kafka node, which is started again. **database restarts**: of the PostgreSQL that keeps the ledgers of Maypole's
  `spreading`, `tocking` and `acting`, of several instances each, without asking its sessions. (`alone`, one instance that acts on the
  outside like `acting`, keeps its ledger in SQLite.)
  **stops**: SIGSTOP for longer than the session, then SIGCONT. *Without Kafka*: every node at once is gone for so
  long, and no agent is killed.
- **records**: what lies on the topics in the end, with the journal. **calls**: what the outside witness was asked to do.
- **lost**, **skipped**, **reordered**, **contradicted**, **multiplied**, **no effect**, **no input**: findings of
  `maypole.bus.testing.history`; **doubled effects**: two keys for one cause, or a call after the step was done.
  For those without a journal a step is done with its first output.
- **blocked**: inputs that nobody gets past, a minute after the last fault (peers: a third of it). Every subject meets poison: Maypole's
  `tocking` refuses one event in {poison}, the peers meet one record that is not JSON.
- **ended by itself**: processes that ended without having been killed or told to. (Those that end by design, to be started again, are
  not counted: at their start no broker or no database answers. Nor are static members to which Kafka has refused their
  `group.instance.id` twice in a row within half a minute of a broker's death or return: {fenced}.)

Where they were killed:

{points}

The decode border: {fuzzed}.
"""


@dataclass(slots=True)
class Report:
    """What a run has found so far. `poison`: Maypole refuses one event in so many."""

    nodes: int
    seed: str
    poison: int
    verdicts: list[Verdict] = field(default_factory=list)
    fuzzed: Fuzzed | None = None

    @property
    def killed(self) -> int:
        return sum(verdict.toll.killed for verdict in self.verdicts if verdict.subject == "maypole")

    @property
    def is_long(self) -> bool:
        return self.killed >= KILLS_MIN

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}."
        text = _TEXT.format(
            date=datetime.now(UTC).date().isoformat(),
            kills=KILLS_MIN,
            killed=self.killed,
            machine=machine,
            nodes=self.nodes,
            seed=self.seed,
            table=table(self.verdicts),
            poison=self.poison,
            fenced=sum(verdict.toll.fenced for verdict in self.verdicts),
            points="\n".join(f"- {verdict.subject}: {_killed(verdict)}" for verdict in self.verdicts),
            fuzzed=self.fuzzed or "not reached",
        )
        path.write_text(with_sections_of(text, path.read_text() if path.exists() else ""))


def with_sections_of(text: str, other: str) -> str:
    """The report's own text before the sections of the other one, each of which is measured by itself."""
    return "\n\n".join([_parts(text)[0], *_parts(other)[1:]]) + "\n"


def with_section(text: str, section: str) -> str:
    """The section, which begins with its heading, in the place of the one of that heading; at the end where there is none."""
    heading, parts = section.partition("\n")[0], _parts(text)
    at = next((index for index, part in enumerate(parts) if part.partition("\n")[0] == heading), len(parts))
    return "\n\n".join(part for part in (*parts[:at], section.strip(), *parts[at + 1 :]) if part) + "\n"


def _parts(text: str) -> list[str]:
    """What comes before the first section, and the sections."""
    return [part.strip() for part in re.split(r"^(?=## )", text, flags=re.MULTILINE)]


def _killed(verdict: Verdict) -> str:
    repeated = f"{verdict.repeated_calls:,} calls and {verdict.repeated_outputs:,} records were repeated under the same id"
    agents = sorted((name.rpartition("-")[0], count) for name, count in verdict.toll.kills_of.items())
    each = f" ({', '.join(f'{name} {count:,}' for name, count in agents)})" if len(agents) > 1 else ""
    return f"{points_of(verdict.toll)}{each}; {repeated}"
