"""What a subject is told to do, and what it tells about it: one JSON object each way."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Order:
    """`events` 0: serve until SIGTERM, each record at once; otherwise drain that many and report."""

    kafka: str
    source: str
    target: str
    group: str
    events: int
    variant: str = ""
    tracing: Literal["off", "sdk"] = "off"
    otlp: str = ""
    home: str = ""
    store: str = "sqlite"

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))


def read_order() -> Order:
    if len(sys.argv) != 2:
        raise SystemExit("expected one argument, an order as JSON; subjects are started by `python -m tests.benchmarks`")
    return Order(**json.loads(sys.argv[1]))


@dataclass(frozen=True, slots=True)
class Report:
    """From the first event to the last commit. Seconds of processor time cover all threads. Memory is resident, in MiB."""

    events: int
    seconds: float
    cpu_seconds: float
    early_mib: float
    late_mib: float
    peak_mib: float

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_micros_per_event(self) -> float:
        return self.cpu_seconds / self.events * 1e6


class Meter:
    """Counts a subject's events; `last` prints the report."""

    def __init__(self, order: Order) -> None:
        self._events = order.events
        self._early_at = max(1, order.events // 10)
        self._seen = 0
        self._early_mib = 0.0
        self._began: tuple[float, float] | None = None

    @property
    def running(self) -> bool:
        return self._began is not None

    def begin(self) -> None:
        """The first record is in hand. Later calls change nothing."""
        if self._began is None:
            self._began = (time.perf_counter(), time.process_time())

    def committed(self, records: int) -> bool:
        """So many more are committed; true once, when that was the last one."""
        before, self._seen = self._seen, self._seen + records
        if before < self._early_at <= self._seen:
            self._early_mib = resident_mib()
        if not before < self._events <= self._seen:
            return False
        self._print()
        return True

    def _print(self) -> None:
        assert self._began is not None, "records are committed after the first one came"
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
        report = Report(self._events, wall, cpu, self._early_mib, resident_mib(), peak)
        print(json.dumps(asdict(report)), flush=True)


def resident_mib() -> float:
    """Memory of this process that is resident now; 0 where the system does not tell it cheaply."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / 1024 / 1024


def leave() -> None:
    """End at once: what follows a measurement (leaving groups, flushing) is not measured, and nobody waits for it."""
    sys.stdout.flush()
    os._exit(0)


def end_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: leave())
