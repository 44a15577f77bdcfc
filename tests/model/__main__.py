"""`python -m tests.model`: the bounded explorations; `--full`: those that take minutes; words choose scenarios by name."""

from __future__ import annotations

import argparse
import math
import sys
import time

from tests.model.explore import Explorer
from tests.model.scenarios import BOUNDED, FULL


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a scenario's name")
    parser.add_argument("--full", action="store_true", help="more faults: minutes, and up to 2 GB of memory")
    parser.add_argument("--states-max", type=int, default=5_000_000)
    parser.add_argument("--seconds-max", type=float, default=math.inf, help="after which no further scenario is begun")
    chosen = parser.parse_args()
    broken, began = False, time.monotonic()
    for scenario in FULL if chosen.full else BOUNDED:
        if not chosen.names or any(name in scenario.name for name in chosen.names):
            if time.monotonic() - began > chosen.seconds_max:
                print(f"{scenario.name}: not reached", flush=True)
                continue
            report = Explorer(scenario).explore(chosen.states_max)
            print(report, flush=True)
            for wrong in report.wrong.values():
                print(f"  {wrong}", flush=True)
            broken = broken or bool(report.wrong) or not report.whole
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
