"""Journal records as bytes: their values under derived ids, their headers like those of any event."""

from __future__ import annotations

from maypole.bus.ports import Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.envelope import Stamp
from maypole.schemas.event import Event
from maypole.schemas.identifiers import journal_event_id
from maypole.schemas.journal import RECORDS
from maypole.schemas.topics import JOURNAL


class JournalRecords:
    """Makes the records of one source (`/agents/<name>` or `/publishers/<name>`)."""

    def __init__(self, source: str) -> None:
        self._forms = {record: (Stamp.of(record.event_type, source), Writer(record, schema_of(record).derived_id)) for record in RECORDS}

    def record(
        self,
        body: Event,
        *,
        about: str,
        flow_id: bytes,
        time: bytes,
        state_version: int,
        choreography: bytes,
        causation_id: bytes | None,
        traceparent: str,
        tracestate: str | None = None,
        business_key: str | None = None,
    ) -> Record:
        """`about` is the flow or step it tells of: with the type it is the record's identity."""
        stamp, writer = self._forms[type(body)]
        return Record(
            JOURNAL,
            flow_id,
            writer.encode(body),
            stamp.headers(
                event_id=journal_event_id(body.event_type, about),
                flow_id=flow_id,
                time=time,
                state_version=state_version,
                choreography=choreography,
                causation_id=causation_id,
                traceparent=traceparent,
                tracestate=tracestate,
                business_key=business_key,
            ),
        )
