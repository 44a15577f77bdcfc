"""What a peer is told on its command line, the events it handles, and how it writes what it made of one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from maypole.schemas.envelope import CAUSATION_ID, CORRELATION_ID, ID, SOURCE
from tests.torture.failpoints import Failpoint, end_with_the_crew

POINTS = ("fetched", "handling", "effected", "handled", "published", "committed")
"""Those of a loop without a journal."""
POISON = b"\x00not JSON"


@dataclass(frozen=True, slots=True)
class Order:
    kafka: str
    group: str
    source: str
    target: str
    witness: Path
    variant: str
    failpoint: Failpoint


def read_order() -> Order:
    parser = argparse.ArgumentParser()
    for name in ("kafka", "group", "source", "target"):
        parser.add_argument(name)
    parser.add_argument("witness", type=Path)
    parser.add_argument("--variant", default="")
    Failpoint.add_options(parser)
    found = parser.parse_args()
    end_with_the_crew()
    return Order(found.kafka, found.group, found.source, found.target, found.witness, found.variant, Failpoint.chosen(found))


def encode(number: int) -> bytes:
    return json.dumps({"number": number}).encode()


def decode(value: bytes) -> int:
    return int(json.loads(value)["number"])


def root_headers(flow: str) -> dict[str, str]:
    return {ID: str(uuid4()), CORRELATION_ID: flow}


def child_headers(group: str, flow: str, parent: str) -> dict[str, str]:
    """A new id for each output, as everybody has it who does not derive ids."""
    return {ID: str(uuid4()), CORRELATION_ID: flow, CAUSATION_ID: parent, SOURCE: f"/agents/{group}"}


def texts(headers: Mapping[str, str | bytes | None]) -> dict[str, str]:
    return {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in headers.items()}
