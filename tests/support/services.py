"""The real services of a test run: each started on its first use, once, and ended with the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from deploy.local.faults import NotHere
from deploy.local.jaeger import Jaeger, JaegerPorts
from deploy.local.kafka import KafkaCluster, KafkaPorts
from deploy.local.ports import choose_ports
from deploy.local.postgres import Postgres
from deploy.local.registry import Registry
from tests.support.docker_kafka import docker_answers, kafka_in_docker


@contextmanager
def one_node(folder: Path) -> Iterator[str]:
    """A broker of one node: Docker's where a daemon answers, else from the jars. Yields the bootstrap address."""
    if docker_answers():
        with kafka_in_docker() as bootstrap:
            yield bootstrap
    else:
        with cluster(folder, 1) as nodes:
            yield nodes.bootstrap


@contextmanager
def cluster(folder: Path, nodes: int) -> Iterator[KafkaCluster]:
    """Nodes that can be killed and brought back: always from the jars."""
    kafka = KafkaCluster(folder / f"kafka-{nodes}", KafkaPorts.chosen(nodes), folder / "logs", brief=True)
    with _or_say_why("Kafka", kafka.start, kafka.kill):
        yield kafka


@contextmanager
def jaeger(folder: Path) -> Iterator[Jaeger]:
    service = Jaeger(folder / "logs", JaegerPorts.chosen())
    with _or_say_why("Jaeger", service.start, service.stop):
        yield service


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    [port] = choose_ports(1)
    service = Registry(folder / "logs", port)
    with _or_say_why("a schema registry", service.start, service.stop):
        yield service


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    service = Postgres(folder / "logs")
    with _or_say_why("PostgreSQL", service.start, service.stop):
        yield service


@contextmanager
def _or_say_why(what: str, start: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """A machine without Java or Go skips, with the reason; one that has them and fails, fails."""
    try:
        start()
    except NotHere as reason:
        missing(what, str(reason))
    try:
        yield
    finally:
        stop()


def missing(what: str, reason: str) -> NoReturn:
    """Skip on a laptop; in the build, what is missing is a fault of the build."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true and {what} cannot be had here: {reason}", pytrace=False)
    pytest.skip(f"{what} cannot be had here: {reason}")
