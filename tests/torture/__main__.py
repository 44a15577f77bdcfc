"""`python -m tests.torture`: agents and peers under kills, the fuzzed border, the table; what `make torture` runs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault
from deploy.local.kafka import KafkaCluster, KafkaPorts
from deploy.local.postgres import Postgres
from maypole.settings import WrongSetting, read_settings
from tests.torture import compared, maypole
from tests.torture.fuzz import fuzz
from tests.torture.results import KILLS_MIN, PATH, Report
from tests.torture.run import Ground, Orders, say
from tests.torture.verdict import Verdict, notes, table
from tests.torture.witness import witness

PARTS: Final = ("maypole", "outage", "peers", "fuzz")
OUTAGE_SECONDS: Final = 75.0
"""Longer than any session, and than what a client waits for by default: a minute."""
AGENTS_SHARE: Final = 0.5
PEER_SHARE: Final = 0.1
FUZZ_SHARE: Final = 0.2
"""Of the whole time, and for each peer of the kills: what they do is plain after a hundred."""

Found = Callable[[Verdict], None]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Long fault runs, and the table of what they found.")
    parser.add_argument("--seconds-max", type=float, default=7200, help="length of the whole (default %(default)s)")
    parser.add_argument("--kills", type=int, default=KILLS_MIN, help="kills after which the agents' run ends (default %(default)s)")
    parser.add_argument("--records", type=int, default=1_000_000, help="bent records at the decode border (default %(default)s)")
    parser.add_argument("--seed", default="1", help="what the faults are drawn from (default %(default)s)")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3, help="Kafka nodes (default %(default)s)")
    parser.add_argument("--only", choices=PARTS, default=None, help="one part of it; RESULTS.md stays as it is")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when every promise was kept, 1 when not, or when there is nothing to run on, 2 for wrong settings."""
    chosen = parse(arguments)
    try:
        path = read_settings(os.environ, Path.cwd()).home / "torture.md"
    except WrongSetting as error:
        say(str(error))
        return 2
    report, broken = Report(chosen.nodes, chosen.seed, maypole.POISONED_EVERY), list[str]()

    def found(verdict: Verdict) -> None:
        report.verdicts.append(verdict)
        report.write(path)
        say(notes(verdict))
        broken.extend(maypole.broken_promises(verdict) if verdict.subject.startswith(maypole.SUBJECT) else [])

    if chosen.only != "fuzz":
        try:
            _on_a_cluster(chosen, found)
        except LocalFault as fault:
            say(f"nothing to torture on: {fault}")
            return 1
    if chosen.only in (None, "fuzz"):
        say(f"the decode border: {chosen.records:,} records")
        report.fuzzed = fuzz(chosen.records, chosen.seed, seconds_max=chosen.seconds_max * FUZZ_SHARE)
        say(f"  {report.fuzzed}")
        broken += [f"vanished: {each}" for each in report.fuzzed.unaccounted]
    report.write(path)
    if chosen.only is None and report.is_long:
        report.write(PATH)
    print(table(report.verdicts))
    say(f"written: {PATH if chosen.only is None and report.is_long else path}")
    for line in broken[:20]:
        say(f"BROKEN: {line}")
    return 1 if broken else 0


def _on_a_cluster(chosen: argparse.Namespace, found: Found) -> None:
    with tempfile.TemporaryDirectory(prefix="maypole-torture-") as name:
        folder = Path(name)
        # What the clients have to say while brokers die is not progress.
        logging.basicConfig(filename=folder / "torture.log", level=logging.WARNING)
        kafka = KafkaCluster(folder / "kafka", KafkaPorts.chosen(chosen.nodes), folder / "logs")
        kafka.start()
        try:
            asyncio.run(_torture(chosen, kafka, folder, found))
        finally:
            kafka.kill()


async def _torture(chosen: argparse.Namespace, kafka: KafkaCluster, folder: Path, found: Found) -> None:
    seconds = chosen.seconds_max * AGENTS_SHARE
    # A single node that dies is an outage for everybody, which is another test.
    orders = Orders(seconds, chosen.kills, chosen.seed, broker_pause=45 if chosen.nodes > 1 else 0, store_pause=60, stop_pause=30)
    static = ("tocking", "spreading", "alone")
    if chosen.only in (None, "maypole"):
        say(f"maypole: {orders.kills_max} kills, or {orders.seconds_max:.0f} s")
        with _ground(kafka, folder / "maypole") as ground:
            found(await maypole.torture(ground, orders, flows_per_second=4, static=static))
    if chosen.only in (None, "outage"):
        say(f"maypole: {OUTAGE_SECONDS:.0f} s without Kafka")
        with _ground(kafka, folder / "outage") as ground:
            patient = replace(orders, kills_max=0)
            found(await maypole.without_kafka(ground, OUTAGE_SECONDS, patient, flows_per_second=4, static=static))
    if chosen.only in (None, "peers"):
        shorter = replace(orders, seconds_max=chosen.seconds_max * PEER_SHARE, kills_max=math.ceil(orders.kills_max * PEER_SHARE))
        for peer in compared.PEERS:
            with witness(folder / peer.name) as address:
                say(f"{peer.name}: {shorter.kills_max} kills, or {shorter.seconds_max:.0f} s")
                found(await compared.torture(peer, Ground(kafka, address, folder / peer.name), shorter, flows_per_second=4))


@contextmanager
def _ground(kafka: KafkaCluster, folder: Path) -> Iterator[Ground]:
    """With a witness, and a PostgreSQL that the agents share."""
    store = Postgres(folder / "logs")
    with witness(folder) as address:
        store.start()
        try:
            yield Ground(kafka, address, folder, store)
        finally:
            store.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
