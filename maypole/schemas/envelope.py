"""The envelope: CloudEvents 1.0 attributes in Kafka headers (binary mode), and how they are read and written.

Source: CloudEvents Kafka protocol binding 1.0; the names beyond it are Maypole's extension attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from maypole.schemas.errors import Undecodable, UnreadableHeader
from maypole.schemas.identifiers import EventId, FlowId

CONTENT_TYPE: Final = "content-type"
SPEC_VERSION: Final = "ce_specversion"
ID: Final = "ce_id"
TYPE: Final = "ce_type"
SOURCE: Final = "ce_source"
TIME: Final = "ce_time"
SUBJECT: Final = "ce_subject"
CORRELATION_ID: Final = "ce_correlationid"
CAUSATION_ID: Final = "ce_causationid"
IDEMPOTENCY_KEY: Final = "ce_idempotencykey"
CHOREOGRAPHY: Final = "ce_choreography"
OBSERVER: Final = "ce_observer"
DATA_REF: Final = "ce_dataref"
DATA_DIGEST: Final = "ce_datadigest"
STATE_VERSION: Final = "ce_stateversion"
DEGRADED: Final = "ce_degraded"
"""What was done instead of calling the handler: `skip`, `cached`, `default` or `alert`; `inherited` by all that comes of it."""
INHERITED: Final = b"inherited"
DEGRADED_AGE: Final = "ce_degradedage"
"""How old a cached output is, in whole seconds."""
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

AVRO: Final = b"application/avro"
JSON: Final = b"application/json"

ATTRIBUTES: Final = frozenset(
    {CONTENT_TYPE, SPEC_VERSION, ID, TYPE, SOURCE, TIME, SUBJECT, CORRELATION_ID, CAUSATION_ID, IDEMPOTENCY_KEY,
     CHOREOGRAPHY, OBSERVER, DATA_REF, DATA_DIGEST, STATE_VERSION, DEGRADED, DEGRADED_AGE, TRACEPARENT, TRACESTATE}
)  # fmt: skip
"""Each at most once in a record."""
_new: Final = tuple.__new__
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TEXT_BYTES_MAX: Final = 1024
"""Of a type, of a flow's or an event's id, of a business key, in UTF-8. They are copied into all that a step writes, and stand in the
keys of databases: PostgreSQL indexes no more than some 2,700 bytes of them together."""
_STATE_VERSION_MAX: Final = 2**31 - 2  # what it leads to is one more


class Envelope(NamedTuple):
    """Identity and lineage of one event. `choreography` is empty on a root that a foreign client wrote."""

    event_id: EventId
    type: str
    flow_id: FlowId
    state_version: int
    choreography: str
    causation_id: str | None
    observer: bool
    business_key: str | None
    traceparent: str | None
    tracestate: str | None
    time: str | None
    source: str
    idempotency_key: str
    degraded: bool = False
    """It was served, or made from something that was served, instead of what a handler would have answered."""

    @property
    def is_root(self) -> bool:
        return self.causation_id is None


def flow_of(headers: Sequence[tuple[str, bytes | None]]) -> FlowId | None:
    """The flow alone, from headers that may otherwise be unreadable; None when even that cannot be told."""
    found = [value for name, value in headers if name == CORRELATION_ID]
    if len(found) != 1 or not found[0]:
        return None
    try:
        return FlowId(found[0].decode())
    except UnicodeDecodeError:
        return None


def degraded_of(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """What was done instead of calling the handler, or `inherited`; None where every handler was called. Never raises."""
    found = next((value or b"" for name, value in headers if name == DEGRADED), None)
    return None if found is None else found.decode(errors="replace")


def read_envelope(headers: Sequence[tuple[str, bytes | None]]) -> Envelope:
    """Read the headers of an event. Raises `Undecodable` naming the header, what was expected and what was found.

    Missing and derivable: `ce_time`, `ce_source`, `ce_idempotencykey`, `ce_stateversion` of a root.
    """
    found = dict(headers)
    if len(found) != len(headers):
        _refuse_repeated(headers)
    try:
        id_bytes: bytes = found[ID]  # type: ignore[assignment]  # a null header is an AttributeError, told below
        type_bytes: bytes = found[TYPE]  # type: ignore[assignment]
        flow_bytes: bytes = found[CORRELATION_ID]  # type: ignore[assignment]
        event_id = id_bytes.decode()
        event_type = type_bytes.decode()
        flow_id = flow_bytes.decode()
        version = found.get(STATE_VERSION)
        causation = found.get(CAUSATION_ID)
        choreography = found.get(CHOREOGRAPHY)
        subject = found.get(SUBJECT)
        traceparent = found.get(TRACEPARENT)
        tracestate = found.get(TRACESTATE)
        time = found.get(TIME)
        source = found.get(SOURCE)
        key = found.get(IDEMPOTENCY_KEY)
        content_type = found.get(CONTENT_TYPE)
        spec = found.get(SPEC_VERSION)
        # `tuple.__new__` skips the generated constructor, and the ids are not passed through their types: once per record.
        fields = (
            event_id,
            event_type,
            flow_id,
            1 if version is None else int(version),
            "" if choreography is None else choreography.decode("ascii"),
            None if causation is None else causation.decode(),
            OBSERVER in found,
            None if subject is None else subject.decode(),
            # Observation: what cannot be read is as good as absent.
            None if traceparent is None or len(traceparent) > TEXT_BYTES_MAX or not traceparent.isascii() else traceparent.decode("ascii"),
            None if tracestate is None or len(tracestate) > TEXT_BYTES_MAX or not tracestate.isascii() else tracestate.decode("ascii"),
            None if time is None else time.decode("ascii"),
            "/publishers/unknown" if source is None else source.decode(),
            event_id if key is None else key.decode(),
            DEGRADED in found,
        )
        envelope = _new(Envelope, fields)
    except (KeyError, AttributeError, UnicodeDecodeError, ValueError):
        raise _explained(found) from None
    if (
        not (event_id and flow_id and event_type)
        # One after the other: `max` of the three costs as much as all that is looked for in them.
        or len(id_bytes) > TEXT_BYTES_MAX
        or len(flow_bytes) > TEXT_BYTES_MAX
        or len(type_bytes) > TEXT_BYTES_MAX
    ):
        raise _wrong_length({name: found[name] for name in (ID, CORRELATION_ID, TYPE)})
    if subject is not None and len(subject) > TEXT_BYTES_MAX:
        raise _wrong_length({SUBJECT: subject})
    if 0 in id_bytes or 0 in flow_bytes or 0 in type_bytes or (subject is not None and 0 in subject):
        raise contains_nul(found)
    if not 1 <= envelope.state_version <= _STATE_VERSION_MAX:
        raise UnreadableHeader(f"expected {STATE_VERSION} from 1 to {_STATE_VERSION_MAX}, found {envelope.state_version}", STATE_VERSION)
    if content_type is not None and content_type != AVRO:
        raise UnreadableHeader(f"expected {CONTENT_TYPE} {AVRO.decode()}, found {content_type[:80]!r}", CONTENT_TYPE)
    if spec is not None and spec != b"1.0":
        raise UnreadableHeader(f"expected {SPEC_VERSION} 1.0, found {spec[:20]!r}", SPEC_VERSION)
    if DATA_REF in found:
        raise UnreadableHeader(f"{DATA_REF} is set: this version reads values from the record only, not by reference", DATA_REF)
    return envelope


def _wrong_length(texts: Mapping[str, bytes | None]) -> UnreadableHeader:
    name, text = next((name, text or b"") for name, text in texts.items() if not 0 < len(text or b"") <= TEXT_BYTES_MAX)
    shown = text[:80].decode(errors="replace")
    return UnreadableHeader(f"expected {name} of 1 to {TEXT_BYTES_MAX} bytes, found {len(text)}: {shown!r}", name)


def contains_nul(found: Mapping[str, bytes | None]) -> UnreadableHeader:
    """Why a record is refused one of whose texts that are kept has a NUL in it: PostgreSQL takes no such text."""
    name, text = next((name, text) for name in (ID, CORRELATION_ID, TYPE, SUBJECT) if (text := found.get(name)) and 0 in text)
    return UnreadableHeader(f"expected text without NUL characters in the header {name}, found {text[:80]!r}", name, text.index(0))


def read_identity(headers: Sequence[tuple[str, bytes | None]]) -> Envelope | None:
    """What can still be told of an event whose headers `read_envelope` refuses: which event of which flow; else None.

    Enough to say in the flow's journal that the step failed.
    """
    kept: dict[str, bytes] = {}
    for name, value in headers:
        if name in (ID, TYPE, CORRELATION_ID, CHOREOGRAPHY, CAUSATION_ID) and value is not None:
            kept.setdefault(name, value)
    try:
        return read_envelope([(TYPE, b"?"), *kept.items()] if TYPE not in kept else list(kept.items()))
    except Undecodable:
        return None


def _refuse_repeated(headers: Sequence[tuple[str, bytes | None]]) -> None:
    seen: set[str] = set()
    for name, _ in headers:
        if name in seen and name in ATTRIBUTES:
            times = sum(other == name for other, _ in headers)
            raise UnreadableHeader(f"expected the header {name} once, found it {times} times", name)
        seen.add(name)


def _explained(found: dict[str, bytes | None]) -> Undecodable:
    for name in (ID, TYPE, CORRELATION_ID):
        if found.get(name) is None:
            present = ", ".join(sorted(name[:40] for name in found)[:20]) or "none"
            return UnreadableHeader(f"expected the header {name}, found none (headers present: {present})", name)
    for name, value in found.items():
        if name not in ATTRIBUTES or name in (TRACEPARENT, TRACESTATE):
            continue
        if value is None:
            return UnreadableHeader(f"expected UTF-8 text in the header {name}, found null", name)
        try:
            text = value.decode("ascii" if name in (CHOREOGRAPHY, TIME) else "utf-8")
            if name == STATE_VERSION:
                int(text)
        except ValueError as error:
            return UnreadableHeader(
                f"expected {'a whole number' if name == STATE_VERSION else 'text'} in the header {name}, found {value[:80]!r}",
                name,
                error.start if isinstance(error, UnicodeDecodeError) else None,
            )
    return Undecodable("the headers cannot be read")


_SPEC: Final = (SPEC_VERSION, b"1.0")
_CONTENT: Final = (CONTENT_TYPE, AVRO)

Lineage = list[tuple[str, bytes]]
"""The headers that everything one step writes has in common."""


def lineage(
    *,
    flow_id: bytes,
    time: bytes,
    state_version: int,
    choreography: bytes,
    causation_id: bytes | None = None,
    business_key: str | None = None,
    observer: bool = False,
) -> Lineage:
    headers = [
        _SPEC,
        _CONTENT,
        (CORRELATION_ID, flow_id),
        (TIME, time),
        (STATE_VERSION, b"%d" % state_version),
        (CHOREOGRAPHY, choreography),
    ]
    if causation_id is not None:
        headers.append((CAUSATION_ID, causation_id))
    if business_key is not None:
        headers.append((SUBJECT, business_key.encode()))
    if observer:
        headers.append((OBSERVER, b"true"))
    return headers


class Stamp:
    """Writes the headers of one type of event from one source; what never changes is encoded once, here."""

    __slots__ = ("_source", "_type")

    def __init__(self, event_type: str, source: str) -> None:
        self._type = (TYPE, event_type.encode())
        self._source = (SOURCE, source.encode())

    def headers(
        self, event_id: str, traceparent: str, tracestate: str | None, common: Lineage, idempotency_key: str | None = None
    ) -> list[tuple[str, bytes]]:
        identity = event_id.encode()
        headers = [
            (ID, identity),
            self._type,
            self._source,
            (IDEMPOTENCY_KEY, identity if idempotency_key is None else idempotency_key.encode()),
            (TRACEPARENT, traceparent.encode("ascii")),
            *common,
        ]
        if tracestate:
            headers.append((TRACESTATE, tracestate.encode("ascii")))
        return headers


def rfc3339(epoch_ms: float) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC; what is less than a millisecond is left out."""
    return _rfc3339(int(epoch_ms))


@lru_cache(maxsize=1024)  # under load many records share a millisecond
def _rfc3339(epoch_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=epoch_ms)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
