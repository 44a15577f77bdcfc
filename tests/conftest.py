"""Fixtures for all tests. Real services start when the first test asks for them and end with the run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import settings

from deploy.local.jaeger import Jaeger
from deploy.local.kafka import KafkaCluster
from deploy.local.postgres import Postgres
from tests.support import services
from tests.support.rooms import seconds_by_room

# A machine that has much to do is no falsifying example; each test has a time limit of its own.
settings.register_profile("maypole", deadline=None)
settings.load_profile("maypole")

_KEPT = {"MAYPOLE_CACHE"}
_services_folder = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    # The settings of whoever runs the tests are not the tests' settings.
    for name in list(os.environ):
        if name.startswith(("MAYPOLE_", "OTEL_", "SCHEMA_REGISTRY_")) and name not in _KEPT:
            del os.environ[name]
    # A run that is told to end ends its brokers, as on Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    terminalreporter.write_sep("=", "seconds by room")
    for room, seconds in seconds_by_room(report for reports in terminalreporter.stats.values() for report in reports):
        terminalreporter.write_line(f"{seconds:6.0f} {room}")
    folder = config.stash.get(_services_folder, None)
    if folder is not None and exitstatus != 0:
        terminalreporter.write_line(f"logs of Kafka, Jaeger and the registry: {folder / 'logs'}")


@pytest.fixture(scope="session")
def services_folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """Where the services of this run keep data and logs; the logs outlive it."""
    folder = tmp_path_factory.mktemp("services")
    pytestconfig.stash[_services_folder] = folder
    yield folder
    for data in [*folder.glob("kafka-*"), *folder.glob("mortal/kafka-*")]:
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(services_folder: Path) -> Iterator[str]:
    """Bootstrap address of a real broker of one node. Shared: use `unique_topic` and `unique_agent`."""
    with services.one_node(services_folder) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def _three_nodes(services_folder: Path) -> Iterator[KafkaCluster]:
    with services.cluster(services_folder, 3) as cluster:
        yield cluster


@pytest.fixture
def kafka3(_three_nodes: KafkaCluster) -> Iterator[KafkaCluster]:
    """A real cluster of three nodes; a test may kill some, all run again when the next test begins."""
    yield _three_nodes
    _three_nodes.heal()


@pytest.fixture(scope="session")
def _lone_node(services_folder: Path) -> Iterator[KafkaCluster]:
    with services.cluster(services_folder / "mortal", 1) as cluster:
        yield cluster


@pytest.fixture
def mortal(_lone_node: KafkaCluster) -> KafkaCluster:
    """A real broker of one node that runs when the test begins, and that the test may kill."""
    _lone_node.heal()
    return _lone_node


@pytest.fixture(scope="session")
def jaeger(services_folder: Path) -> Iterator[Jaeger]:
    """A real Jaeger: `.otlp`, `.otlp_grpc` take spans, `.url` answers questions."""
    with services.jaeger(services_folder) as service:
        yield service


@pytest.fixture(scope="session")
def postgres(services_folder: Path) -> Iterator[Postgres]:
    with services.postgres(services_folder) as server:
        yield server


@pytest.fixture(scope="session")
def registry_url(services_folder: Path) -> Iterator[str]:
    """A real schema registry with Confluent's API, which demands BACKWARD_TRANSITIVE."""
    with services.registry(services_folder) as service:
        yield service.url


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
