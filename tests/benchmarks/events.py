"""The events that every subject handles: about 250 bytes, six fields, rules on one of them.

Maypole's own classes for Maypole; for the others a plain pydantic model under the same Avro schema.
"""

import io
from typing import Annotated, Any, Final

import fastavro
from pydantic import BaseModel, ConfigDict, Field

from maypole.schemas.avro import schema_of
from maypole.schemas.event import Event

Share = Annotated[float, Field(ge=0, le=1)]


class Asked(Event, type="bench.asked"):
    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


class Answered(Event, type="bench.answered"):
    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


class First(Event, type="bench.first"):
    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


class Second(Event, type="bench.second"):
    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


class Third(Event, type="bench.third"):
    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


class Fourth(Event, type="bench.fourth"):
    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


class Plain(BaseModel):
    """What a program without Maypole would write."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    question: str
    answer: str
    confidence: Share
    count: int
    source: str
    ok: bool


CHAIN: Final[tuple[type[Event], ...]] = (First, Second, Third, Fourth)

_FIELDS: Final[list[dict[str, Any]]] = [
    {"name": "question", "type": "string"},
    {"name": "answer", "type": "string"},
    {"name": "confidence", "type": "double"},
    {"name": "count", "type": "long"},
    {"name": "source", "type": "string"},
    {"name": "ok", "type": "boolean"},
]
_SCHEMA: Final = fastavro.parse_schema({"type": "record", "name": "Plain", "fields": _FIELDS})
_ID_BYTES: Final = 5


def encode(event: Plain, prefix: bytes = b"\0\0\0\0\1") -> bytes:
    """Confluent's wire format; `prefix` is the zero byte and the schema id."""
    out = io.BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, _SCHEMA, event.__dict__)
    return out.getvalue()


def fields_of(value: bytes) -> dict[str, Any]:
    """What the codec reads, before anything is validated."""
    source = io.BytesIO(value)
    source.seek(_ID_BYTES)
    fields: dict[str, Any] = fastavro.schemaless_reader(source, _SCHEMA, None)  # type: ignore[assignment]
    return fields


def decode(value: bytes) -> Plain:
    return Plain.model_validate(fields_of(value))


def prefix_of(event: type[Event]) -> bytes:
    return b"\0" + schema_of(event).derived_id.to_bytes(4, "big")


def sample(number: int) -> Plain:
    """`source` passes through every hop untouched; each hop adds one to `count`."""
    question = f"What does the assert statement do? {number}"
    return Plain(question=question, answer="x" * 150, confidence=0.8, count=number, source=str(number), ok=True)


def counted(event: Plain) -> Plain:
    """The handler of every subject without Maypole."""
    return Plain(
        question=event.question, answer=event.answer, confidence=event.confidence, count=event.count + 1, source=event.source, ok=event.ok
    )
