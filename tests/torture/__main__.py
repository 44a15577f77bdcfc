"""`python -m tests.torture`: agents and peers under kills, the fuzzed border, the table; what `make torture` runs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault
from deploy.local.kafka import KafkaCluster, KafkaPorts
from tests.torture import compared, maypole
from tests.torture.run import Ground, Orders, say
from tests.torture.verdict import Verdict, notes, table
from tests.torture.witness import witness

PEERS_SHARE: Final = 0.1
"""Of the bounds of the agents' run, for each peer: what they do is plain after a hundred kills."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Long fault runs, and the table of what they found.")
    parser.add_argument("--seconds-max", type=float, default=2400, help="length of the run of the agents (default %(default)s)")
    parser.add_argument("--kills", type=int, default=1000, help="kills after which it ends (default %(default)s)")
    parser.add_argument("--seed", default="1", help="what the faults are drawn from (default %(default)s)")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3, help="Kafka nodes (default %(default)s)")
    parser.add_argument("--only", choices=("maypole", "peers"), default=None)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when every promise was kept, 1 when not, or when there is no Kafka to run on."""
    chosen = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="maypole-torture-") as name:
        folder = Path(name)
        # What the clients have to say while brokers die is not progress.
        logging.basicConfig(filename=folder / "torture.log", level=logging.WARNING)
        kafka = KafkaCluster(folder / "kafka", KafkaPorts.chosen(chosen.nodes), folder / "logs")
        try:
            kafka.start()
        except LocalFault as fault:
            say(f"no Kafka to torture on: {fault}")
            return 1
        try:
            verdicts = asyncio.run(_torture(chosen, kafka, folder))
        finally:
            kafka.kill()
    print(table(verdicts))
    for verdict in verdicts:
        print(f"\n{notes(verdict)}")
    broken = [line for verdict in verdicts if verdict.subject == "maypole" for line in maypole.broken_promises(verdict)]
    for line in broken[:20]:
        say(f"BROKEN: {line}")
    return 1 if broken else 0


async def _torture(chosen: argparse.Namespace, kafka: KafkaCluster, folder: Path) -> list[Verdict]:
    orders = Orders(chosen.seconds_max, chosen.kills, chosen.seed, broker_pause=45 if chosen.nodes > 1 else 0, stop_pause=30)
    verdicts = []
    if chosen.only in (None, "maypole"):
        with witness(folder / "maypole") as address:
            say(f"maypole: {orders.kills_max} kills, or {orders.seconds_max:g} s")
            ground = Ground(kafka, address, folder / "maypole")
            verdicts.append(await maypole.torture(ground, orders, flows_per_second=4, static=("tocking", "spreading")))
    if chosen.only in (None, "peers"):
        shorter = replace(orders, seconds_max=orders.seconds_max * PEERS_SHARE, kills_max=max(1, round(orders.kills_max * PEERS_SHARE)))
        for peer in compared.PEERS:
            with witness(folder / peer.name) as address:
                say(f"{peer.name}: {shorter.kills_max} kills, or {shorter.seconds_max:g} s")
                verdicts.append(await compared.torture(peer, Ground(kafka, address, folder / peer.name), shorter, flows_per_second=4))
    return verdicts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
