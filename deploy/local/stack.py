"""All three services with their record on disk: what was started, so that another process can find it and end it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from deploy.local.faults import LocalFault
from deploy.local.jaeger import Jaeger, JaegerPorts
from deploy.local.kafka import KafkaCluster, KafkaPorts
from deploy.local.ports import answers
from deploy.local.process import Process, start_time
from deploy.local.registry import FIXED_PORT, Registry

Service = Literal["jaeger", "registry"]
ENDPOINTS: Final = "endpoints.json"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The content of endpoints.json; what was left out is None."""

    kafka: str
    registry: str | None = None
    otlp: str | None = None
    jaeger: str | None = None
    store: str = "sqlite"
    pids: dict[str, int] = field(default_factory=dict)


class LocalStack:
    """Lives in `home/local`: logs, Kafka's data (kept from one `up` to the next), and the record of processes."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self.folder = self._home / "local"
        self.logs = self.folder / "logs"
        self._record = self.folder / "processes.json"
        self._processes: list[Process] = []

    def up(self, nodes: int, without: Collection[Service] = ()) -> Endpoints:
        """Start what was asked for; when one part cannot start, the others are ended again."""
        self._require_unused()
        try:
            endpoints = self._start(nodes, without)
        except BaseException:
            self.down()
            raise
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / ENDPOINTS).write_text(json.dumps(asdict(endpoints), indent=2) + "\n")
        return endpoints

    def down(self) -> list[Process]:
        """End what `up` started and nothing else, last started first; returns what was still running."""
        running = [process for process in self.recorded() if process.alive]
        for process in reversed(running):
            process.ask_to_stop()
        for process in reversed(running):
            process.stop(patience_seconds=15)
        if self.endpoints_are_ours():
            (self._home / ENDPOINTS).unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)
        self._processes.clear()
        return running

    def recorded(self) -> list[Process]:
        """What the last `up` started, running or not."""
        try:
            rows = json.loads(self._record.read_text())
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise LocalFault(f"{self._record}: expected the processes that `up` started, found {error}") from None
        return [Process(row["name"], row["pid"], row["started"], Path(row["log"])) for row in rows]

    def endpoints_are_ours(self) -> bool:
        """`maypole dev` and `make up` write the same file; theirs is not ours to remove."""
        pids = _pids(self._home / ENDPOINTS)
        return bool(pids) and pids <= {process.pid for process in self.recorded()}

    def _require_unused(self) -> None:
        running = [process for process in self.recorded() if process.alive]
        if running:
            names = ", ".join(f"{process.name} (pid {process.pid})" for process in running)
            raise LocalFault(f"already running: {names}; stop them first with `make local-down`")
        if not self.endpoints_are_ours():
            require_unclaimed(self._home / ENDPOINTS)

    def _start(self, nodes: int, without: Collection[Service]) -> Endpoints:
        kafka = KafkaCluster(self.folder / f"kafka-{nodes}", KafkaPorts.fixed(nodes), self.logs, self._keep)
        kafka.start()
        endpoints = Endpoints(kafka.bootstrap)
        if "jaeger" not in without:
            jaeger = Jaeger(self.logs, JaegerPorts.fixed(), self._keep)
            jaeger.start()
            endpoints = replace(endpoints, otlp=jaeger.otlp, jaeger=jaeger.url)
        if "registry" not in without:
            registry = Registry(self.logs, FIXED_PORT, self._keep)
            registry.start()
            endpoints = replace(endpoints, registry=registry.url)
        return replace(endpoints, pids={process.name: process.pid for process in self._processes})

    def _keep(self, process: Process) -> None:
        """Written at once: an interrupted start must leave nothing running that `down` does not know."""
        self._processes.append(process)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [{"name": each.name, "pid": each.pid, "started": each.started, "log": str(each.log)} for each in self._processes]
        self._record.write_text(json.dumps(rows, indent=1))


def require_unclaimed(endpoints: Path) -> None:
    """Raises `LocalFault` where this file tells of services that run. Those in containers have no process here, but answer."""
    pids = _pids(endpoints)
    others = sorted(pid for pid in pids if start_time(pid) is not None)
    kafka = _kafka(endpoints)
    if others or (not pids and kafka is not None and answers(kafka)):
        whose = f"process {others[0]}, which runs" if others else f"the services with Kafka at {kafka}, which answers"
        raise LocalFault(f"{endpoints} belongs to {whose}; stop it first (`make down`, `make local-down`, Ctrl-C), or set MAYPOLE_HOME")


def _pids(endpoints: Path) -> set[int]:
    pids = _found(endpoints).get("pids", {})
    return {pid for pid in (pids.values() if isinstance(pids, dict) else ()) if isinstance(pid, int)}


def _kafka(endpoints: Path) -> str | None:
    kafka = _found(endpoints).get("kafka")
    return kafka if isinstance(kafka, str) else None


def _found(endpoints: Path) -> dict[str, Any]:
    try:
        found = json.loads(endpoints.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
