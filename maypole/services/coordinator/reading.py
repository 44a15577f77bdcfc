"""Journal records as the fold wants them: whose flow, what it says, and where in its trace."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from maypole.bus.contracts import Contracts
from maypole.bus.ports import Delivery
from maypole.schemas.codec import Reader, schema_id_of
from maypole.schemas.envelope import CORRELATION_ID, SUBJECT, TEXT_BYTES_MAX, TRACEPARENT, TYPE, contains_nul
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import RECORDS, FlowEnded

_CLASSES: Final[dict[bytes, type[Event]]] = {record.event_type.encode(): record for record in RECORDS}


class Head(NamedTuple):
    """What the headers say. Read for every record, so only what the fold needs."""

    flow_id: FlowId
    type: type[Event]
    traceparent: bytes | None
    subject: bytes | None

    @property
    def is_end(self) -> bool:
        return self.type is FlowEnded


def read_head(record: Delivery) -> Head:
    """Raises `Undecodable`."""
    found = dict(record.headers)
    try:
        flow_id = found[CORRELATION_ID].decode()  # type: ignore[union-attr]  # a null header is told below
        form = _CLASSES[found[TYPE]]  # type: ignore[index]
    except (KeyError, AttributeError, UnicodeDecodeError):
        of_type = found.get(TYPE)
        raise Undecodable(f"expected a journal record with its flow, found {CORRELATION_ID} {found.get(CORRELATION_ID)!r:.80} and "
                          f"{TYPE} {of_type!r:.80}; was it written by a later Maypole?") from None  # fmt: skip
    size = len(flow_id.encode())
    if not 0 < size <= TEXT_BYTES_MAX:
        raise Undecodable(f"expected {CORRELATION_ID} of 1 to {TEXT_BYTES_MAX} bytes, found {size}")
    subject = found.get(SUBJECT)
    if "\0" in flow_id or (subject is not None and 0 in subject):
        raise contains_nul(found)
    return Head(FlowId(flow_id), form, _short(found.get(TRACEPARENT)), _short(subject))


def _short(text: bytes | None) -> bytes | None:
    """What would make commands too large to be sent is as good as absent: a flow is told by its id."""
    return None if text is not None and len(text) > TEXT_BYTES_MAX else text


class Bodies:
    """Decodes values, each class and schema with a reader that is made once."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._readers: dict[tuple[type[Event], bytes], Reader[Any]] = {}

    async def read(self, head: Head, record: Delivery) -> Event:
        """Raises `Undecodable` or `ContractRefused`. Waits only for a schema that was not met before."""
        value = record.value
        if value is None:
            raise Undecodable(f"expected a value, found none in a {head.type.event_type}")
        reader = self._readers.get((head.type, value[:5]))
        if reader is None:
            reader = await self._contracts.reader(head.type, schema_id_of(value))
            self._readers[head.type, value[:5]] = reader
        body: Event = reader.decode(value)
        return body


UNREADABLE: Final = (Undecodable, ContractRefused)
