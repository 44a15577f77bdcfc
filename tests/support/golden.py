"""Journals of flows as real runs have written them, byte by byte, and what the engine made of them when they were recorded.

`python -m tests.torture.golden` records them anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from maypole.bus.choreography import Choreography
from maypole.schemas.archive import versions
from maypole.schemas.codec import Reader, schema_id_of
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import RECORDS
from maypole.services.saga import REDUCER_VERSION, Command, Saga, step
from maypole.services.saga.packing import pack

PATH: Final = Path(__file__).parents[1] / "unit/saga/journals.jsonl"
# Every version that was ever committed: a journal outlives the schemas that it was written under.
_READERS: Final = {
    version.schema.derived_id: Reader(version.schema, record) for record in RECORDS for version in versions(record.event_type)
}


class Written(NamedTuple):
    """`at_ms` is the broker's time, `value` the record's bytes."""

    at_ms: int
    value: bytes


@dataclass(frozen=True)
class Told:
    """`steps`: of each record the state after it and the commands that it led to, with their ids; `saga`: the packed state in the end."""

    reducer: int
    steps: tuple[str, ...]
    saga: str


@dataclass(frozen=True)
class Golden:
    source: str
    flow: FlowId
    choreography: Choreography
    written: tuple[Written, ...]

    @cached_property
    def records(self) -> tuple[Event, ...]:
        return tuple(_READERS[schema_id_of(each.value)].decode(each.value) for each in self.written)

    def folded(self, saga: Saga, start: int = 0, end: int | None = None) -> tuple[Saga, list[str]]:
        """From the record at `start` on: the state after the last, and of each record what it led to."""
        told = []
        for each, record in list(zip(self.written, self.records, strict=True))[start:end]:
            saga, more = step(saga, record, each.at_ms, {self.choreography.hash: self.choreography})
            commands = sorted(f"{command.kind} {command.agent} {command.id}" for command in more if isinstance(command, Command))
            told.append(": ".join([str(saga.state), *([", ".join(commands)] if commands else [])]))
        return saga, told

    def told(self) -> Told:
        saga, steps = self.folded(Saga(self.flow))
        return Told(REDUCER_VERSION, tuple(steps), pack(saga).decode())


def load(path: Path = PATH) -> list[tuple[Golden, Told]]:
    return [_read(json.loads(line)) for line in path.read_text().splitlines()]


def dump(journals: Iterable[Golden], path: Path = PATH) -> None:
    """With what the engine of today makes of them."""
    path.write_text("".join(json.dumps(_line(each), separators=(",", ":")) + "\n" for each in journals))


def _read(line: dict[str, Any]) -> tuple[Golden, Told]:
    written = tuple(Written(at_ms, base64.b64decode(value)) for at_ms, value in line["written"])
    golden = Golden(line["source"], FlowId(line["flow"]), Choreography.parse(line["choreography"]), written)
    return golden, Told(line["reducer"], tuple(line["steps"]), line["saga"])


def _line(golden: Golden) -> dict[str, Any]:
    told = golden.told()
    written: Sequence[tuple[int, str]] = [(each.at_ms, base64.b64encode(each.value).decode()) for each in golden.written]
    return {
        "source": golden.source, "flow": golden.flow, "choreography": golden.choreography.text, "written": written,
        "reducer": told.reducer, "steps": told.steps, "saga": told.saga,
    }  # fmt: skip
