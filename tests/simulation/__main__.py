"""`python -m tests.simulation`: many seeds of every cast; a part of `make torture`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from maypole.bus.testing.simulation.loop import Stalled
from maypole.bus.testing.simulation.simulate import explained
from tests.simulation.agents import CASTS
from tests.simulation.seeds import verdict_of


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when every seed kept every promise, 1 when not. Seeds are dealt to the casts in turn."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Choreographies under bad luck, from many seeds.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default %(default)s)")
    parser.add_argument("--seconds-max", type=float, default=float("inf"), help="no more seeds are begun after so long")
    parser.add_argument("--cast", choices=CASTS, default=None, help="one cast gets them all")
    chosen = parser.parse_args(arguments)
    casts = [chosen.cast] if chosen.cast else list(CASTS)
    began, done, accidents, virtual, bad = time.monotonic(), 0, 0, 0.0, 0
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        if time.monotonic() - began > chosen.seconds_max:
            break
        cast = casts[seed % len(casts)]
        try:
            verdict = verdict_of(cast, seed)
        except Stalled as error:
            bad += 1
            print(f"cast {cast}: seed {seed} is {error}", flush=True)
            continue
        done, accidents, virtual = done + 1, accidents + len(verdict.accidents), virtual + verdict.seconds
        if verdict.findings:
            bad += 1
            print(f"cast {cast}: {explained(verdict)}", flush=True)
        if done % 1000 == 0:
            print(f"  {done:,} seeds, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"simulation: {done:,} seeds, {accidents:,} accidents, {virtual / 3600:.0f} virtual hours, {seconds:.0f} s: {bad} seeds failed")
    return 1 if bad or not done else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
