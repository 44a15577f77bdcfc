"""Three hops in three processes at 50 events a second: how long from the first publish until the last event can be read."""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from confluent_kafka import Consumer, Producer, TopicPartition

from maypole.schemas.topics import PARTITIONS_DEFAULT
from tests.benchmarks.agents import HOPS
from tests.benchmarks.bench import Bench, SubjectFailed, say, serving
from tests.benchmarks.events import CHAIN, First, decode, encode, prefix_of, sample
from tests.benchmarks.order import Order
from tests.benchmarks.prepare import create_topics, new_flow, pin_choreography, root_headers
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "three-hops"
BARE: Final = "bare confluent-kafka"
PER_SECOND: Final = 50
_WARM_UP_EVENTS: Final = 50
_READY_SECONDS: Final = 60.0
_ARRIVAL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    module: str
    prefix: str
    variants: tuple[str, str, str] = ("", "", "")
    tracing: Literal["off", "sdk"] = "off"

    def topics(self, number: int) -> tuple[str, ...]:
        """Those of a round: what an earlier one left must not be drained first. Maypole's agents go on where they were."""
        if self.module == "maypole":
            return tuple(event.event_type for event in CHAIN)
        return tuple(f"bench.{self.prefix}.{number}.{hop}" for hop in range(4))


SUBJECTS: Final = (
    Subject(BARE, "bare_confluent", "bare"),
    Subject("bare aiokafka", "bare_aiokafka", "bare-aiokafka"),
    Subject("maypole pure", "maypole", "", HOPS),
    Subject("maypole pure, traced", "maypole", "", HOPS, "sdk"),
    Subject("faststream confluent", "faststream", "fs-confluent", ("confluent",) * 3),
    Subject("faststream aiokafka", "faststream", "fs-aiokafka", ("aiokafka",) * 3),
    Subject("faststream confluent, traced", "faststream", "fs-confluent-traced", ("confluent",) * 3, "sdk"),
    Subject("faststream aiokafka, traced", "faststream", "fs-aiokafka-traced", ("aiokafka",) * 3, "sdk"),
)


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    create_topics(
        bench.kafka, sorted({topic for subject in SUBJECTS for number in range(bench.rounds) for topic in subject.topics(number)})
    )
    choreography = pin_choreography(bench.kafka, bench.folder / "home", First)
    p50: dict[str, list[float]] = {subject.name: [] for subject in SUBJECTS}
    p95: dict[str, list[float]] = {subject.name: [] for subject in SUBJECTS}
    failed: set[str] = set()
    for number in range(bench.rounds):
        for subject in SUBJECTS:
            if subject.name in failed:
                continue
            try:
                latencies = _measure(bench, subject, number, choreography)
            except SubjectFailed as error:
                say(f"{NAME}: left out: {error}")
                failed.add(subject.name)
                continue
            cuts = statistics.quantiles(latencies, n=20)
            p50[subject.name].append(statistics.median(latencies))
            p95[subject.name].append(cuts[-1])
            say(f"{NAME} {number + 1}/{bench.rounds}: {subject.name}: p50 {p50[subject.name][-1]:.1f} ms, p95 {cuts[-1]:.1f} ms")
    rows = []
    for subject in SUBJECTS:
        if subject.name not in failed:
            rows.append(row(NAME, subject.name, "p50", "ms", p50[subject.name], BARE, p50[BARE]))
            rows.append(row(NAME, subject.name, "p95", "ms", p95[subject.name], BARE, p95[BARE]))
    return rows, []


def _measure(bench: Bench, subject: Subject, number: int, choreography: bytes) -> list[float]:
    """Milliseconds of every event after the warm-up."""
    groups = subject.variants if subject.module == "maypole" else tuple(f"bench-{uuid.uuid4()}" for _ in range(3))
    topics = subject.topics(number)
    home = str(bench.folder / "home")
    orders = [
        Order(bench.kafka, source, target, group, 0, variant, subject.tracing, bench.otlp, home)
        for source, target, group, variant in zip(topics, topics[1:], groups, subject.variants, strict=False)
    ]
    log = bench.folder / "logs" / f"{NAME}-{subject.name.replace(' ', '-')}.log"
    with serving(subject.module, orders, log), _observing(bench.kafka, topics[-1]) as arrivals:
        traffic = _Traffic(bench.kafka, subject, topics[0], choreography)
        traffic.until_one_arrives(arrivals, log)
        first = traffic.publish(_WARM_UP_EVENTS)
        measured = traffic.publish(int(bench.latency_seconds * PER_SECOND))
        traffic.flush()
        missing = arrivals.wait({*first, *measured}, _ARRIVAL_SECONDS)
        if missing:
            raise SubjectFailed(f"{subject.name}: {len(missing)} of {len(first) + len(measured)} events did not arrive; its log is {log}")
        return [(arrivals.at[each] - traffic.published[each]) * 1000 for each in measured]


class _Traffic:
    """Publishes on a schedule. Every event has a number that passes through the hops untouched."""

    def __init__(self, kafka: str, subject: Subject, topic: str, choreography: bytes) -> None:
        self._subject = subject
        self._topic = topic
        self._choreography = choreography
        self._producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0, "partitioner": "murmur2_random"})
        self._next = int(time.time() * 1000) * 1000
        self.published: dict[str, float] = {}

    def until_one_arrives(self, arrivals: _Arrivals, log: object) -> None:
        """The hops are there once an event came through all of them."""
        deadline = time.monotonic() + _READY_SECONDS
        while not arrivals.at:
            if time.monotonic() > deadline:
                raise SubjectFailed(f"{self._subject.name}: no event came through three hops in {_READY_SECONDS:g} s; its log is {log}")
            self.publish(5)

    def publish(self, count: int) -> list[str]:
        numbers = []
        due = time.perf_counter()
        for _ in range(count):
            time.sleep(max(0.0, due - time.perf_counter()))
            due += 1 / PER_SECOND
            numbers.append(self._publish_one())
        return numbers

    def flush(self) -> None:
        self._producer.flush()

    def _publish_one(self) -> str:
        self._next += 1
        event, flow = sample(self._next), new_flow()
        headers = root_headers(First, self._choreography, flow)
        value = encode(event, prefix_of(First))
        self.published[event.source] = time.perf_counter()
        self._producer.produce(self._topic, value, flow, headers=headers)
        self._producer.poll(0)
        return event.source


class _Arrivals:
    """When each event came out of the last topic, told by the thread that reads it."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._changed = threading.Condition()

    def arrived(self, number: str, at: float) -> None:
        with self._changed:
            self.at.setdefault(number, at)
            self._changed.notify_all()

    def wait(self, numbers: set[str], seconds: float) -> Sequence[str]:
        """Those that did not arrive in time."""
        with self._changed:
            self._changed.wait_for(lambda: numbers <= self.at.keys(), seconds)
            return sorted(numbers - self.at.keys())


@contextmanager
def _observing(kafka: str, topic: str) -> Iterator[_Arrivals]:
    arrivals, stopping = _Arrivals(), threading.Event()
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": f"bench-{uuid.uuid4()}", "enable.auto.commit": False})
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS_DEFAULT)]
    # From the end: earlier rounds lie in the same topic.
    consumer.assign([TopicPartition(p.topic, p.partition, consumer.get_watermark_offsets(p, timeout=10)[1]) for p in partitions])

    def read() -> None:
        while not stopping.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            at = time.perf_counter()
            arrivals.arrived(decode(message.value() or b"").source, at)

    thread = threading.Thread(target=read, name="observer")
    thread.start()
    try:
        yield arrivals
    finally:
        stopping.set()
        thread.join()
        consumer.close()
