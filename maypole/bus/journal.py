"""Journal records as bytes: their values under derived ids, their headers like those of any event."""

from __future__ import annotations

from functools import cache
from typing import Any

from maypole.bus.ports import Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.envelope import Lineage, Stamp
from maypole.schemas.event import Event
from maypole.schemas.identifiers import journal_event_id
from maypole.schemas.journal import RECORDS
from maypole.schemas.topics import JOURNAL


@cache
def _writer_of(record: type[Event]) -> Writer[Any]:
    return Writer(record, schema_of(record).derived_id)


class JournalRecords:
    """Makes the records of one source (`/agents/<name>` or `/publishers/<name>`)."""

    def __init__(self, source: str) -> None:
        self._forms = {record: (Stamp(record.event_type, source), _writer_of(record)) for record in RECORDS}

    def record(self, body: Event, about: str, flow_id: bytes, traceparent: str, tracestate: str | None, common: Lineage) -> Record:
        """`about` is the flow or step it tells of: with the type it is the record's identity."""
        return self.written(type(body), self._forms[type(body)][1].encode(body), about, flow_id, traceparent, tracestate, common)

    def written(
        self, form: type[Event], value: bytes, about: str, flow_id: bytes, traceparent: str, tracestate: str | None, common: Lineage
    ) -> Record:
        """As `record`, for a value that is already in the wire format."""
        headers = self._forms[form][0].headers(journal_event_id(form.event_type, about), traceparent, tracestate, common)
        return tuple.__new__(Record, (JOURNAL, flow_id, value, headers))  # skips the generated constructor
