"""The services that `make local` starts, and the tests rely on: they start, fail, come back and refuse as they should."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.local import cache, go, java
from deploy.local.cache import cached
from deploy.local.faults import LocalFault, NotHere, PortTaken
from deploy.local.jaeger import Jaeger, jaeger_binary
from deploy.local.kafka import KafkaCluster, KafkaPorts
from deploy.local.ports import LOOPBACK, choose_ports
from deploy.local.process import Process, start, wait_until
from deploy.local.stack import LocalStack
from tests.support import services
from tests.support.names import unique_agent, unique_topic


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    """A process that would run for ten minutes."""
    process = start("sleeper", [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], tmp_path / "sleeper.log")
    yield process
    process.kill()


@pytest.mark.kafka3
def test_a_node_is_killed_and_comes_back_and_no_record_is_lost(kafka3: KafkaCluster) -> None:
    topic = unique_topic("survival.tried")
    _create(kafka3.bootstrap, topic, replicas=3)

    _produce(kafka3.bootstrap, topic, b"before")
    kafka3.kill_node(1)
    _produce(kafka3.bootstrap, topic, b"while one is away")
    kafka3.restart_node(1)
    _produce(kafka3.bootstrap, topic, b"after")

    assert _consume(kafka3.bootstrap, topic, 3) == [b"before", b"while one is away", b"after"]


@pytest.mark.kafka
def test_a_topic_that_nobody_declared_is_not_created_by_writing_to_it(kafka: str) -> None:
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC"):
        _produce(kafka, unique_topic("mistyped.name"), b"lost")


@pytest.mark.kafka
def test_a_cluster_that_is_ready_leaves_no_topic_of_its_own(kafka: str) -> None:
    assert not [
        name for name in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics if "probe" in name and "local" in name
    ]


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        [controller] = choose_ports(1)
        cluster = KafkaCluster(tmp_path / "kafka", [KafkaPorts(taken, controller)], tmp_path / "logs")
        with pytest.raises(PortTaken, match=rf"port {taken} on 127\.0\.0\.1, wanted for clients of Kafka node 1, is in use"):
            cluster.start()
    assert not (tmp_path / "kafka").exists()


def test_a_cluster_has_one_node_or_three(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="expected 1 or 3 nodes, found 2"):
        KafkaCluster(tmp_path, KafkaPorts.chosen(2), tmp_path / "logs")


@pytest.mark.jaeger
def test_jaeger_answers_and_keeps_what_it_is_sent(jaeger: Jaeger) -> None:
    service = unique_agent("agent")
    trace_id = "5b8efff798038103d269b633813fc60c"
    span = {"traceId": trace_id, "spanId": "eee19b7ec3c1b174", "name": "start", "kind": 1}
    span |= {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000001000000"}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    sent = httpx.post(f"{jaeger.otlp}/v1/traces", json={"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]})
    assert sent.status_code == 200

    wait_until(lambda: service in httpx.get(f"{jaeger.url}/api/v3/services").json().get("services", []), 30, "the service to be known")
    assert httpx.get(f"{jaeger.url}/api/v3/traces/{trace_id}").status_code == 200


@pytest.mark.registry
def test_the_registry_refuses_an_incompatible_schema_with_409(registry_url: str) -> None:
    subject = f"{unique_topic()}-value"

    def register(*fields: dict[str, object]) -> int:
        schema = json.dumps({"type": "record", "name": "Probe", "fields": list(fields)})
        return httpx.post(f"{registry_url}/subjects/{subject}/versions", json={"schema": schema}, timeout=20).status_code

    text: dict[str, object] = {"name": "text", "type": "string"}
    assert register(text) == 200
    assert register(text, {"name": "weight", "type": "double", "default": 1.0}) == 200
    assert register(text, {"name": "wanted", "type": "string"}) == 409


def test_down_ends_what_was_started_and_nothing_else(tmp_path: Path, sleeper: Process) -> None:
    stack = LocalStack(tmp_path)
    stack._keep(sleeper)
    reused = Process("a pid that another program got", sleeper.pid, "some earlier time", sleeper.log)

    assert not reused.alive
    reused.kill()
    assert sleeper.alive

    assert LocalStack(tmp_path).down() == [sleeper]
    assert [process for process in (sleeper, reused) if process.alive] == []
    assert LocalStack(tmp_path).down() == []


def test_endpoints_of_another_running_program_are_not_overwritten(tmp_path: Path, sleeper: Process) -> None:
    endpoints = tmp_path / "endpoints.json"
    endpoints.write_text(json.dumps({"kafka": "127.0.0.1:1", "pids": {"dev": sleeper.pid}}))

    with pytest.raises(LocalFault, match=f"belongs to process {sleeper.pid}, which runs"):
        LocalStack(tmp_path).up(1)
    LocalStack(tmp_path).down()
    assert endpoints.exists()


def test_a_build_that_fails_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYPOLE_CACHE", str(tmp_path))

    def half(folder: Path) -> None:
        (folder / "part").write_text("half")
        raise LocalFault("the connection broke")

    with pytest.raises(LocalFault, match="the connection broke"):
        cached("thing", "recipe", half, "making it")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_cached_file_that_was_changed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYPOLE_CACHE", str(tmp_path))
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "jar").write_text("whole")

    folder = cached("thing", "recipe", make, "making it")
    assert cached("thing", "recipe", make, "making it") == folder
    assert len(made) == 1

    (folder / "jar").write_text("cut off")
    assert (cached("thing", "recipe", make, "making it") / "jar").read_text() == "whole"
    assert cached("thing", "another recipe", make, "making it") != folder
    assert len(made) == 3


def test_the_cache_lies_outside_the_checkout(tmp_path: Path) -> None:
    assert cache.cache_folder({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/maypole")
    assert cache.cache_folder({"XDG_CACHE_HOME": "/xdg", "MAYPOLE_CACHE": "/own"}) == Path("/own")
    assert cache.cache_folder({}) == Path.home() / ".cache" / "maypole"


def test_a_java_that_is_too_old_is_named_with_what_was_expected() -> None:
    with pytest.raises(NotHere, match="Kafka: expected Java 99 or later, found"):
        java.find_java(99, "Kafka")


def test_a_machine_whose_java_is_too_old_gets_one_as_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"17.0.15\" 2025-04-15' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(java, "_FOLDERS", ())
    assert java.find_java(17, "Kafka") == str(old)
    try:
        found = java.find_java(21, "the schema registry")
    except NotHere as reason:
        services.missing("a Java as a package", str(reason))
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=True)
    assert 'version "25' in answer.stderr


def _go_of(folder: Path, version: str) -> Path:
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho 'go version go{version} linux/amd64'\n")
    program.chmod(0o755)
    return program


def test_a_go_that_is_too_old_is_named_with_what_was_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = _go_of(tmp_path, "1.19.8")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotHere, match=rf"Jaeger: expected Go 9\.99 or later .*, found {old} is 1\.19\. The one that is shipped"):
        go.find_go((9, 99), "Jaeger")
    assert go.find_go((1, 19), "Jaeger") == str(old)


@pytest.mark.parametrize("version", ["1.19.8", None], ids=["an old Go", "no Go"])
@pytest.mark.timeout(600)
def test_a_machine_whose_go_is_too_old_builds_with_one_that_comes_as_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    if version is not None:
        _go_of(tmp_path, version)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GOROOT", str(tmp_path))
    (tmp_path / "go.mod").write_text("module newer\n\ngo 1.25.0\n")
    (tmp_path / "main.go").write_text('package main\n\nimport "runtime"\n\nfunc main() { print(runtime.Version()) }\n')
    try:
        go.build_go(tmp_path, ".", tmp_path / "program", 500)
    except NotHere as reason:
        services.missing("a Go as a package", str(reason))
    answer = subprocess.run([tmp_path / "program"], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stderr.startswith("go1.27")


def test_a_jaeger_that_was_named_wrongly_is_not_replaced_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAEGER_BIN", str(tmp_path / "nothing"))
    with pytest.raises(NotHere, match="JAEGER_BIN: expected a program"):
        jaeger_binary()


def test_the_program_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.local", "up", "--without", "kafka"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={"MAYPOLE_HOME": str(tmp_path), "PATH": ""})
    assert answer.returncode == 2
    assert "expected some of jaeger,registry, found 'kafka'" in answer.stderr


def _create(bootstrap: str, topic: str, replicas: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, replicas)], operation_timeout=10)[topic].result(15)


def _produce(bootstrap: str, topic: str, value: bytes) -> None:
    failures: list[Exception] = []
    producer = Producer(
        {"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": 30_000, "topic.metadata.propagation.max.ms": 500}
    )
    producer.produce(topic, value, on_delivery=lambda error, message: failures.append(KafkaException(error)) if error else None)
    assert producer.flush(35) == 0
    for failure in failures:
        raise failure


def _consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": unique_agent("reader"),
        "auto.offset.reset": "earliest",
        "group.protocol": "consumer",
    }
    consumer = Consumer(settings)
    try:
        consumer.subscribe([topic])
        return [message.value() for message in consumer.consume(count, timeout=30)]
    finally:
        consumer.close()
