"""`python -m tests.benchmarks [CASE...]`: run the cases, print the table, write `bench.json`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from deploy.local.faults import LocalFault
from maypole.settings import WrongSetting, read_settings
from tests.benchmarks.bench import Bench, one_node, say
from tests.benchmarks.cases import CASES
from tests.benchmarks.collector import collector
from tests.benchmarks.rows import Floor, Row, table, verdict, write_json

NOTES = """\
Ratios are against the subject named under "of", round by round. Every subject: idempotent producer, acks=all, its own process.
Events of about 250 bytes; the same Avro bytes for everybody."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises `SystemExit` with code 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Benchmarks with ratios against a bare loop.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one or more of {', '.join(CASES)} (default: all)")
    parser.add_argument("--events", type=_positive, default=60_000, help="events for the fast subjects of one-hop (default %(default)s)")
    parser.add_argument("--slow-events", type=_positive, default=3_000, help="events for FastStream (default %(default)s)")
    parser.add_argument("--memory-events", type=_positive, default=200_000, help="events of the case memory (default %(default)s)")
    parser.add_argument("--latency-seconds", type=_positive, default=6, help="length of a round of three-hops (default %(default)s)")
    parser.add_argument("--rounds", type=_positive, default=3, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="an empty broker to use instead of one of this run's own")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a floor is not met")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.cases if name not in CASES]
    if unknown:
        parser.error(f"expected a case out of {', '.join(CASES)}, found {unknown[0]!r}")
    return chosen


def main(arguments: Sequence[str]) -> int:
    chosen = parse(arguments)
    try:
        home = read_settings(os.environ, Path.cwd()).home
    except WrongSetting as error:
        say(str(error))
        return 2
    rows: list[Row] = []
    floors: list[Floor] = []
    with tempfile.TemporaryDirectory(prefix="maypole-bench-") as name, collector() as otlp:
        folder = Path(name)
        try:
            for case in chosen.cases or CASES:
                # A broker for each case: what one leaves behind must not slow down the next.
                with nullcontext(chosen.kafka) if chosen.kafka else one_node(folder / case) as kafka:
                    bench = Bench(
                        kafka=kafka,
                        otlp=otlp,
                        folder=folder / case,
                        events=chosen.events,
                        slow_events=chosen.slow_events,
                        rounds=chosen.rounds,
                        latency_seconds=chosen.latency_seconds,
                        memory_events=chosen.memory_events,
                    )
                    measured, kept = CASES[case](bench)
                    rows += measured
                    floors += kept
        except LocalFault as error:
            say(f"no broker to measure on: {error}")
            return 1
    print(table(rows))
    print(f"\n{NOTES}\n{_machine()}\n")
    for floor in floors:
        print(floor)
    write_json(rows, home / "bench.json")
    say(f"the same rows as JSON: {home / 'bench.json'}")
    if floors:
        say(verdict(floors))
    return 1 if chosen.strict and not all(floor.met for floor in floors) else 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return value


def _machine() -> str:
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, {python}, one Kafka node on the same machine."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
