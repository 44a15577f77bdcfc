"""How long from `StepFailed` until the first `Compensate` can be read, at low load, beside one hop in the same run."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition

from maypole.bus.choreography import Choreography
from maypole.bus.composition import open_platform
from maypole.bus.journal import JournalRecords
from maypole.bus.ports import Record
from maypole.schemas.envelope import lineage
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, new_flow_id, output_event_id, root_event_id, root_traceparent, step_id_of
from maypole.schemas.journal import Effect, FlowStarted, Produced, StepCompensated, StepCompleted, StepFailed
from maypole.schemas.topics import PLATFORM, command_topic, commands
from maypole.settings import Settings
from tests.benchmarks.agents import PURE
from tests.benchmarks.bench import Bench, SubjectFailed, say, serving
from tests.benchmarks.events import Answered, Asked, encode, prefix_of, sample
from tests.benchmarks.order import Order
from tests.benchmarks.prepare import create_topics, new_flow, pin_choreography, root_headers
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "undoing"
_ROOT, _MADE = "bench.begun", "bench.made"
_ACTS, _FAILS = "bench-acts", "bench-fails"
_DECLARATIONS: Final = (
    {"name": _ACTS, "subscriptions": [{"on": _ROOT, "emits": [_MADE], "kind": "undo"}]},
    {"name": _FAILS, "subscriptions": [{"on": _MADE, "emits": [], "kind": "events"}]},
)
_SAMPLES: Final = 100
_WARM_UP: Final = 10
_PAUSE_SECONDS: Final = 0.02
_READY_SECONDS: Final = 60.0
_DIGEST: Final = bytes(32)


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    """One flow at a time; what is journaled of it before its failure is acknowledged before that."""
    home = bench.folder / "home"
    create_topics(bench.kafka, [Asked.event_type, Answered.event_type])
    pinned = pin_choreography(bench.kafka, home, Asked)
    choreography = asyncio.run(_prepared(Settings(home=home, kafka=bench.kafka, tracing="off")))
    hops, undos = [], []
    order = Order(bench.kafka, Asked.event_type, Answered.event_type, PURE, 0, PURE, "off", bench.otlp, str(home))
    log = bench.folder / "logs" / f"{NAME}.log"
    with serving("maypole", [order], log), _coordinating(bench):
        hop, undo = _Hop(bench.kafka, pinned), _Undo(bench.kafka, choreography)
        for each in (hop, undo):
            each.until_it_answers()
        for number in range(bench.rounds):
            times = [(hop.milliseconds(), undo.milliseconds()) for _ in range(_WARM_UP + _SAMPLES)][_WARM_UP:]
            hops.append(statistics.median(one for one, _ in times))
            undos.append(statistics.median(other for _, other in times))
            say(f"{NAME} {number + 1}/{bench.rounds}: one hop {hops[-1]:.1f} ms, StepFailed to Compensate {undos[-1]:.1f} ms")
    rows = [row(NAME, "one hop", "p50", "ms", hops), row(NAME, "StepFailed to Compensate", "p50", "ms", undos, "one hop", hops)]
    return rows, [Floor("undoing: p50 from StepFailed to the first Compensate, of one hop's", rows[1].ratio, at_most=3)]


async def _prepared(settings: Settings) -> Choreography:
    async with open_platform(settings) as platform:
        await platform.ensure([*PLATFORM, commands(_ACTS)])
        for declaration in _DECLARATIONS:
            await platform.catalog.announce(declaration, {})
        return await platform.catalog.pin(_ROOT)


@contextmanager
def _coordinating(bench: Bench) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAYPOLE_", "OTEL_"))}
    environment |= {"MAYPOLE_KAFKA": bench.kafka, "MAYPOLE_HOME": str(bench.folder / "home")}
    with (bench.folder / "logs" / "coordinator.log").open("wb") as output:
        program = Path(sys.executable).with_name("maypole")
        process = subprocess.Popen([str(program), "coordinator"], env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


class _Wire:
    """What is written, and when its answer can be read: by key, with the same clients for everybody."""

    def __init__(self, kafka: str, answers_on: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": kafka, "linger.ms": 0, "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 3}
        )
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": f"bench-{uuid.uuid4()}", "enable.auto.commit": False})
        partitions = self._consumer.list_topics(answers_on, timeout=10).topics[answers_on].partitions
        ends = ((number, self._consumer.get_watermark_offsets(TopicPartition(answers_on, number), timeout=10)[1]) for number in partitions)
        self._consumer.assign([TopicPartition(answers_on, number, end) for number, end in ends])

    def write(self, record: Record, *, wait: bool = False) -> None:
        self._producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        if wait:
            self._producer.flush()

    def answered(self, key: bytes, seconds: float) -> float | None:
        """When it was read; None where it was not."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            message = self._consumer.poll(left)
            if message is not None and message.error() is None and message.key() == key:
                return time.perf_counter()
        return None


class _Hop:
    def __init__(self, kafka: str, choreography: bytes) -> None:
        self._wire = _Wire(kafka, Answered.event_type)
        self._choreography = choreography

    def until_it_answers(self) -> None:
        _until(lambda: self._measured(1.0) is not None, "the agent")

    def milliseconds(self) -> float:
        return _told(self._measured(10.0))

    def _measured(self, seconds: float) -> float | None:
        flow = new_flow()
        headers = [(name, value) for name, value in root_headers(Asked, self._choreography, flow) if isinstance(value, bytes)]
        record = Record(Asked.event_type, flow, encode(sample(1), prefix_of(Asked)), headers)
        began = time.perf_counter()
        self._wire.write(record)
        answered = self._wire.answered(flow, seconds)
        return None if answered is None else answered - began


class _Undo:
    """Plays both agents: the first has acted, the second fails."""

    def __init__(self, kafka: str, choreography: Choreography) -> None:
        self._wire = _Wire(kafka, command_topic(_ACTS))
        self._hash = choreography.hash
        self._records = JournalRecords("/agents/played")

    def until_it_answers(self) -> None:
        _until(lambda: self._measured(5.0) is not None, "the coordinator")

    def milliseconds(self) -> float:
        return _told(self._measured(10.0))

    def _measured(self, seconds: float) -> float | None:
        flow = new_flow_id()
        root = root_event_id(flow, _ROOT)
        acts = step_id_of(flow, _ACTS, _ROOT, root)
        made = output_event_id(acts, _MADE, 0)
        outputs = (Produced(event_id=made, type=_MADE, digest=_DIGEST),)
        roots = (Produced(event_id=root, type=_ROOT, digest=_DIGEST),)
        before: Sequence[Event] = (
            FlowStarted(choreography=self._hash, deadline_ms=3_600_000, roots=roots),
            StepCompleted(step_id=acts, agent=_ACTS, subscription=_ROOT, parents=(root,), effect=Effect.APPLIED, outputs=outputs),
        )
        for body in before:
            self._wire.write(self._record(flow, body), wait=True)
        time.sleep(_PAUSE_SECONDS)
        failed = self._record(
            flow,
            StepFailed(
                step_id=step_id_of(flow, _FAILS, _MADE, made), agent=_FAILS, subscription=_MADE, parents=(made,), reason="rejected",
                detail="no", attempts=1, effect=Effect.NONE,
            ),
        )  # fmt: skip
        began = time.perf_counter()
        self._wire.write(failed)
        answered = self._wire.answered(flow.encode(), seconds)
        self._wire.write(self._record(flow, StepCompensated(step_id=acts, command_id="played")), wait=True)
        return None if answered is None else answered - began

    def _record(self, flow: FlowId, body: Event) -> Record:
        key = flow.encode()
        common = lineage(flow_id=key, time=b"2026-01-01T00:00:00.000000Z", state_version=1, choreography=self._hash.encode())
        return self._records.record(body, str(getattr(body, "step_id", flow)), key, root_traceparent(flow), None, common)


def _until(holds: Callable[[], bool], who: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SubjectFailed(f"{NAME}: expected an answer of {who} within {_READY_SECONDS:g} s, found none")


def _told(seconds: float | None) -> float:
    if seconds is None:
        raise SubjectFailed(f"{NAME}: expected an answer within 10 s, found none")
    return seconds * 1000
