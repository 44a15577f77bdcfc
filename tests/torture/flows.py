"""`python -m tests.torture.flows`: flows that fail on the way while everything is killed, by the hundred, and the table of their ends."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault
from deploy.local.kafka import KafkaCluster, KafkaPorts
from deploy.local.postgres import Postgres
from maypole.services.saga import State
from tests.torture.failing_flows import Arrangement, Ends, notes, torture
from tests.torture.results import PATH, with_section
from tests.torture.run import Ground, Orders, say
from tests.torture.witness import witness

FAILING_MIN: Final = 500
"""Flows with a failure at a random step; a third of all goes well."""
KILLS_MIN: Final = 200
ALONE: Final = Arrangement("one coordinator, all on SQLite", ["booking", "charging", "packing", "shipping"], 1, 1)
SHARED: Final = Arrangement(
    "three coordinators, two instances of each agent, all on PostgreSQL", ["booking packing", "charging shipping"], 2, 3
)


def run(arrangement: Arrangement, chosen: argparse.Namespace, folder: Path) -> Ends:
    """On a cluster of its own: what one run left behind must not be counted in another."""
    with ExitStack() as stack:
        kafka = KafkaCluster(folder / "kafka", KafkaPorts.chosen(3), folder / "logs")
        stack.callback(kafka.kill)
        kafka.start()
        store = None
        if arrangement is SHARED:
            store = Postgres(folder / "logs")
            stack.callback(store.stop)
            store.start()
        ground = Ground(kafka, stack.enter_context(witness(folder)), folder, store)
        orders = Orders(
            chosen.seconds_max / 2, chosen.kills // 2, chosen.seed, broker_pause=30, store_pause=45, settle_seconds=120
        )  # fmt: skip
        return asyncio.run(torture(ground, orders, arrangement, chosen.flows // 2, per_second=1.5))


_TEXT: Final = """\
## Flows that fail under kills

Written by `python -m tests.torture.flows`, {date}. {cores} cores, three Kafka nodes, replication 3, on the same machine, busy with other
work. Seed `{seed}`. Four agents with effects (a step, two side by side, a join of both); of six flows two go well, two are refused
at a random step, two break at one after having acted, one of these with an undo that fails; one in ten is cancelled while it is under
way. Agents and coordinators get `kill -9` at any time, as do Kafka nodes, one at a time, and PostgreSQL.

| | {names} |
|---|{lines}
{rows}

- **out of step**: committed and not all effects are there, compensated and one is there, stuck and what is there is not what is listed,
  something made after it or what it rests on was taken back, something taken back before what rests on it.
- **forgotten**: flows that the journal does not know, or that came to no end.
- **ended by itself**: processes that ended without having been killed or told to.
"""


def told(runs: Sequence[Ends], seed: str) -> str:
    rows: dict[str, list[int]] = {
        "flows": [ends.flows for ends in runs],
        "of these, flows that fail at a step": [ends.failing for ends in runs],
        "seconds": [round(ends.seconds) for ends in runs],
        "kills of agents": [ends.agent_kills for ends in runs],
        "kills of coordinators": [ends.coordinator_kills for ends in runs],
        "kills of brokers": [ends.toll.broker_kills for ends in runs],
        "restarts of PostgreSQL": [ends.toll.store_restarts for ends in runs],
        **{str(state): [ends.states.get(state, 0) for ends in runs] for state in (State.COMMITTED, State.COMPENSATED, State.STUCK)},
        "effects made": [ends.made for ends in runs],
        "effects taken back": [ends.taken_back for ends in runs],
        "effects left of stuck flows, all listed": [ends.left_of_stuck for ends in runs],
        "forgotten": [len(ends.forgotten) for ends in runs],
        "out of step": [len(ends.broken) - len(ends.toll.failures) for ends in runs],
        "ended by itself": [len(ends.toll.failures) for ends in runs],
    }
    table = "\n".join(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |" for name, cells in rows.items())
    return _TEXT.format(
        date=datetime.now(UTC).date().isoformat(), cores=os.cpu_count(), seed=seed, names=" | ".join(ends.arrangement for ends in runs),
        lines="---|" * len(runs), rows=table,
    )  # fmt: skip


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.flows", description=__doc__)
    parser.add_argument("--flows", type=int, default=800, help="of both arrangements together (default %(default)s)")
    parser.add_argument("--kills", type=int, default=300, help="likewise (default %(default)s)")
    parser.add_argument("--seconds-max", type=float, default=3600, help="after which no more is killed (default %(default)s)")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--dry", action="store_true", help="print it; RESULTS.md stays as it is")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when every flow ended as it should, 1 when not, or when there is nothing to run on."""
    chosen = options().parse_args(arguments)
    runs: list[Ends] = []
    with tempfile.TemporaryDirectory(prefix="maypole-flows-") as name:
        # What the clients have to say while brokers die is not progress.
        logging.basicConfig(filename=Path(name) / "flows.log", level=logging.WARNING)
        try:
            for index, arrangement in enumerate((ALONE, SHARED)):
                say(arrangement.name)
                runs.append(run(arrangement, chosen, Path(name) / str(index)))
                say(notes(runs[-1]))
        except LocalFault as fault:
            say(f"nothing to torture on: {fault}")
            return 1
    print(text := told(runs, chosen.seed))
    enough = sum(ends.failing for ends in runs) >= FAILING_MIN and sum(ends.toll.killed for ends in runs) >= KILLS_MIN
    if enough and not chosen.dry:
        PATH.write_text(with_section(PATH.read_text() if PATH.exists() else "", text))
    return 1 if any(ends.broken for ends in runs) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
