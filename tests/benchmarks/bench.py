"""What the cases share: the broker of this run, how much to measure, and how a subject is run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.kafka import KafkaCluster, KafkaPorts
from tests.benchmarks.order import Order, Report

CHECKOUT: Final = Path(__file__).parents[2]
SUBJECT_SECONDS_MAX: Final = 600


class SubjectFailed(RuntimeError):
    """A subject ended without a report. Says what it printed last."""


@dataclass(frozen=True, slots=True)
class Bench:
    """`events` is for the fast subjects; `slow_events` for those that handle records one by one."""

    kafka: str
    otlp: str
    folder: Path
    events: int
    slow_events: int
    rounds: int
    latency_seconds: float
    memory_events: int


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def command(subject: str, order: Order) -> list[str]:
    return [sys.executable, "-m", f"tests.benchmarks.subjects.{subject}", order.text]


def measure(subject: str, order: Order) -> Report:
    """Run a subject to its end. Raises `SubjectFailed`."""
    try:
        ran = subprocess.run(
            command(subject, order), cwd=CHECKOUT, capture_output=True, text=True, timeout=SUBJECT_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise SubjectFailed(f"{subject} {order.variant}: expected a report within {SUBJECT_SECONDS_MAX} s, found none") from None
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode != 0 or not lines:
        ending = "\n".join(ran.stderr.splitlines()[-8:])
        raise SubjectFailed(f"{subject} {order.variant}: expected a report, found exit code {ran.returncode} and:\n{ending}")
    return Report(**json.loads(lines[-1]))


@contextmanager
def serving(subject: str, orders: list[Order], log: Path) -> Iterator[None]:
    """Several instances of a subject, each until it is ended here."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        running = [subprocess.Popen(command(subject, order), cwd=CHECKOUT, stdout=output, stderr=output) for order in orders]
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def one_node(folder: Path) -> Iterator[str]:
    """A real broker of one node, of this run alone."""
    kafka = KafkaCluster(folder / "kafka", KafkaPorts.chosen(1), folder / "logs")
    kafka.start()
    try:
        yield kafka.bootstrap
    finally:
        kafka.kill()
