"""A cluster of one or three nodes: start until it takes records, kill a node, bring it back, stop."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from uuid import uuid4

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.local.cache import cached
from deploy.local.faults import LocalFault
from deploy.local.java import find_java
from deploy.local.kafka.node import HEAP_MB, KafkaPorts, java_command, properties
from deploy.local.ports import LOOPBACK, accepts, require_free
from deploy.local.process import Process, start, wait_ready, wait_until
from deploy.local.tools import copy_from_maven, run_patiently

_POM: Final = Path(__file__).parent / "pom.xml"
_PROBE: Final = "maypole.local.probe"
_READY_SECONDS: Final = 90
_FORMAT_SECONDS: Final = 240
"""It takes a second; on a machine that has much to do more than a minute was seen."""


class KafkaCluster:
    """Not safe for use by several threads. Nodes are counted from 1.

    `started` is told of each process as soon as it exists, so that whoever keeps a record of them misses none.
    `brief`: it will live for minutes, and start soon rather than run fast.
    """

    def __init__(
        self,
        folder: Path,
        ports: Sequence[KafkaPorts],
        logs: Path,
        started: Callable[[Process], None] = lambda process: None,
        *,
        brief: bool = False,
    ) -> None:
        if len(ports) not in HEAP_MB:
            raise LocalFault(f"Kafka: expected 1 or 3 nodes, found {len(ports)}")
        self.folder = folder.absolute()
        self.ports = tuple(ports)
        self._logs = logs
        self._started = started
        self._brief = brief
        self._nodes: dict[int, Process] = {}

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{LOOPBACK}:{port.broker}" for port in self.ports)

    def start(self) -> None:
        """Format what is new, start every node, return when each answers and a record was acknowledged.

        Raises `PortTaken`, `NotHere` when the machine lacks Java or Maven, `LocalFault` with the end of a log otherwise.
        """
        require_free(
            (f"{use} of Kafka node {node}", port)
            for node, each in enumerate(self.ports, start=1)
            for use, port in (("clients", each.broker), ("the controller", each.controller))
        )
        java, jars = find_java(17, "Kafka"), kafka_jars()
        cluster_id = self._cluster_id()
        numbers = range(1, len(self.ports) + 1)
        with ThreadPoolExecutor(len(self.ports)) as side_by_side:
            list(side_by_side.map(lambda node: self._format(node, cluster_id, java, jars), numbers))
        try:
            for node in numbers:
                self._launch(node, java, jars)
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def kill_node(self, node: int) -> None:
        """As a power failure would."""
        self._nodes[node].kill()

    def restart_node(self, node: int) -> None:
        """Start a node that was killed or stopped, and wait until every node is back in the cluster and in sync."""
        if self._nodes[node].alive:
            raise LocalFault(f"Kafka node {node} (pid {self._nodes[node].pid}) runs: kill it first")
        self._launch(node, find_java(17, "Kafka"), kafka_jars())
        self._wait_ready()

    def heal(self) -> None:
        """Start every node that does not run; nothing to do when all do. Together: a quorum that is gone comes back with its majority."""
        gone = [node for node, process in self._nodes.items() if not process.alive]
        if gone:
            java, jars = find_java(17, "Kafka"), kafka_jars()
            for node in gone:
                self._launch(node, java, jars)
            self._wait_ready()

    def stop(self) -> None:
        """Let the nodes close their logs. The quorum cannot outvote a majority that is leaving, so patience is bounded."""
        for process in self._nodes.values():
            process.ask_to_stop()
        for process in self._nodes.values():
            process.stop(patience_seconds=15)

    def kill(self) -> None:
        """End every node at once: for clusters whose data nobody wants any more."""
        for process in self._nodes.values():
            process.kill()

    def _cluster_id(self) -> str:
        path = self.folder / "cluster.id"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            # As Kafka writes its own: 22 letters of base 64; one that starts with a dash would read as an option.
            path.write_text(base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "m", 1))
        return path.read_text().strip()

    def _format(self, node: int, cluster_id: str, java: str, jars: Path) -> None:
        home = self.folder / f"node-{node}"
        data, settings = home / "data", home / "server.properties"
        home.mkdir(parents=True, exist_ok=True)
        settings.write_text(properties(node, self.ports, data))
        if (data / "meta.properties").exists():
            return
        shutil.rmtree(data, ignore_errors=True)
        arguments = ("format", "--cluster-id", cluster_id, "--config", str(settings))
        run_patiently(java_command(java, jars, len(self.ports), "kafka.tools.StorageTool", *arguments, brief=True), home, _FORMAT_SECONDS)

    def _launch(self, node: int, java: str, jars: Path) -> None:
        home = self.folder / f"node-{node}"
        command = java_command(java, jars, len(self.ports), "kafka.Kafka", str(home / "server.properties"), brief=self._brief)
        process = start(f"Kafka node {node}", command, self._logs / f"kafka-{node}.log")
        self._nodes[node] = process
        self._started(process)

    def _wait_ready(self) -> None:
        nodes = list(self._nodes.values())
        wait_ready(lambda: all(accepts(port.broker) for port in self.ports), nodes, _READY_SECONDS, "Kafka's ports to open")
        wait_ready(self._all_answer, nodes, _READY_SECONDS, f"each of {len(nodes)} Kafka nodes to know all of them, in sync")
        _write_and_forget(self.bootstrap, len(nodes))

    def _all_answer(self) -> bool:
        """Every node, asked by itself, knows every node and sees every replica in sync."""
        for port in self.ports:
            admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port.broker}", "log_level": 0})
            try:
                known = admin.list_topics(timeout=3)
            except KafkaException:
                return False
            partitions = [each for topic in known.topics.values() for each in topic.partitions.values()]
            if len(known.brokers) < len(self.ports) or any(len(each.isrs) < len(each.replicas) for each in partitions):
                return False
        return True


def kafka_jars() -> Path:
    """The folder with Kafka's jars, from the cache or from Maven."""

    def copy(folder: Path) -> None:
        copy_from_maven(_POM, "copy-dependencies", f"-DoutputDirectory={folder}", "-DincludeScope=runtime")

    return cached("kafka", _POM.read_text(), copy, "fetching Kafka's jars with Maven (once, 43 MB)")


def _write_and_forget(bootstrap: str, nodes: int) -> None:
    """A record acknowledged by all replicas of a new topic, which is removed again: only then can others write."""
    # Kept in a name: its futures end with it.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        admin.create_topics([NewTopic(_PROBE, 1, nodes)], operation_timeout=20)[_PROBE].result(30)
        delivered: list[object] = []
        producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0, "message.timeout.ms": 30_000})
        producer.produce(_PROBE, b"ready", on_delivery=lambda error, message: delivered.append(error))
        producer.flush(35)
        if delivered != [None]:
            raise LocalFault(f"Kafka at {bootstrap} answers but took no record: {delivered or 'no answer'}")
        admin.delete_topics([_PROBE], operation_timeout=20)[_PROBE].result(30)
    except KafkaException as error:
        raise LocalFault(f"Kafka at {bootstrap} answers but cannot take a record: {error}") from error
    wait_until(lambda: _PROBE not in admin.list_topics(timeout=5).topics, 20, f"the topic {_PROBE} to be gone")
