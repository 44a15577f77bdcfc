"""Jaeger with spans in memory: a binary of yours, else one built from its Go module (its API only, without the UI)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from deploy.local.cache import cached
from deploy.local.faults import NotHere
from deploy.local.go import build_go
from deploy.local.ports import LOOPBACK, choose_ports, require_free
from deploy.local.process import Process, start, wait_ready

_HERE: Final = Path(__file__).parent
_PACKAGE: Final = "github.com/jaegertracing/jaeger/cmd/jaeger"


@dataclass(frozen=True, slots=True)
class JaegerPorts:
    otlp_grpc: int
    otlp_http: int
    query: int
    query_grpc: int
    health: int

    @classmethod
    def fixed(cls) -> JaegerPorts:
        """Where OpenTelemetry and Jaeger's documentation expect them."""
        return cls(4317, 4318, 16686, 16685, 13133)

    @classmethod
    def chosen(cls) -> JaegerPorts:
        return cls(*choose_ports(5))


class Jaeger:
    """Answers about 0.2 s after its start, in 60 MB; at most 100,000 traces, gone when it stops."""

    def __init__(self, logs: Path, ports: JaegerPorts, started: Callable[[Process], None] = lambda process: None) -> None:
        self.ports = ports
        self._logs = logs
        self._started = started
        self._process: Process | None = None

    @property
    def otlp(self) -> str:
        """The endpoint for OTLP over HTTP."""
        return f"http://{LOOPBACK}:{self.ports.otlp_http}"

    @property
    def otlp_grpc(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.otlp_grpc}"

    @property
    def url(self) -> str:
        """The query API, and the UI where the binary has one."""
        return f"http://{LOOPBACK}:{self.ports.query}"

    def start(self) -> None:
        ports = self.ports
        addresses = {
            "JAEGER_OTLP_GRPC": ports.otlp_grpc,
            "JAEGER_OTLP_HTTP": ports.otlp_http,
            "JAEGER_HTTP": ports.query,
            "JAEGER_GRPC": ports.query_grpc,
            "JAEGER_HEALTH": ports.health,
        }
        require_free((f"Jaeger ({name})", port) for name, port in addresses.items())
        binary = jaeger_binary()
        environment = {name: f"{LOOPBACK}:{port}" for name, port in addresses.items()}
        self._process = start("Jaeger", [str(binary), "--config", str(_HERE / "config.yaml")], self._logs / "jaeger.log", environment)
        self._started(self._process)
        try:
            wait_ready(self._answers, [self._process], 30, f"Jaeger to answer at {self.url}")
        except BaseException:
            self._process.kill()
            raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(patience_seconds=5)

    def _answers(self) -> bool:
        try:
            return (
                httpx.get(f"{self.url}/api/v3/services", timeout=2).status_code == 200
                and httpx.post(f"{self.otlp}/v1/traces", json={"resourceSpans": []}, timeout=2).status_code == 200
            )
        except httpx.TransportError:
            return False


def has_own_binary() -> bool:
    """Whether JAEGER_BIN or PATH names one, which then has its UI."""
    return bool(os.environ.get("JAEGER_BIN") or shutil.which("jaeger"))


def jaeger_binary() -> Path:
    """JAEGER_BIN, `jaeger` on PATH, or the build from the cache. Raises `NotHere` when none can be had."""
    named = os.environ.get("JAEGER_BIN")
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise NotHere(f"JAEGER_BIN: expected a program, found nothing executable at {named}")
        return Path(named)
    on_path = shutil.which("jaeger")
    return Path(on_path) if on_path else _built() / "jaeger"


def _built() -> Path:
    recipe = (_HERE / "go.mod").read_text() + (_HERE / "go.sum").read_text()
    return cached("jaeger", recipe, _build, "building Jaeger from its Go module (once; about four minutes on two cores)")


def _build(folder: Path) -> None:
    try:
        build_go(_HERE, _PACKAGE, folder / "jaeger", 1800, "-ldflags=-s -w")
    except NotHere as reason:
        raise NotHere(f"{reason}; or name a Jaeger by JAEGER_BIN, or leave it out (make local WITHOUT=jaeger)") from None
