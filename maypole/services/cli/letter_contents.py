"""One dead letter, opened: its headers and its value as far as they can be read, and for each of the two where reading broke."""

from __future__ import annotations

import asyncio
from typing import Any

from maypole.bus.composition import Platform
from maypole.bus.ports import Delivery
from maypole.bus.redrive import Copies, original_headers
from maypole.schemas.codec import HEADER_BYTES, MAGIC, schema_id_of
from maypole.schemas.envelope import read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable, UnknownSchema, UnreadableHeader, UnsafeSchema
from maypole.services.cli.dead_letters import letter_row, text_of
from maypole.services.cli.json_values import to_json
from maypole.services.cli.publishing import PUBLISH_SECONDS
from maypole.services.cli.value_walk import Break, walk

_BEGINS_BYTES = 32


async def opened(platform: Platform, record: Delivery, copies: Copies) -> dict[str, Any]:
    """`data` is what could be read of the value, also where `data_break` says that the rest could not."""
    value = record.value or b""
    told: dict[str, Any] = {
        **letter_row(record, copies),
        "key": text_of(record.key),
        "headers": {name: text_of(text) for name, text in original_headers(record)},
        "headers_error": None,
        "headers_break": None,
        "schema_id": None,
        "data": None,
        "data_error": None,
        "data_break": None,
        "value_bytes": len(value),
        "value_begins": value[:_BEGINS_BYTES].hex(" "),
    }
    try:
        read_envelope(original_headers(record))
    except UnreadableHeader as error:
        told |= {"headers_error": str(error), "headers_break": {"header": error.header, "byte": error.byte}}
    return told | await _read_value(platform, record)


async def _read_value(platform: Platform, record: Delivery) -> dict[str, Any]:
    value = record.value or b""
    try:
        schema_id = schema_id_of(record.value)
    except Undecodable as error:
        offset = len(value) if value[:1] in (b"", bytes([MAGIC])) else 0
        found = Break(
            offset, "", "a zero byte" if offset == 0 else f"{HEADER_BYTES} bytes in front of the fields", value[:8].hex(" ") or "nothing"
        )
        return {"data_error": str(error), "data_break": found.form()}
    told: dict[str, Any] = {"schema_id": schema_id}
    try:
        # An agent waits for whoever knows a schema as long as it takes; a person gets what there is without it.
        async with asyncio.timeout(PUBLISH_SECONDS):
            schema = await platform.contracts.schema(schema_id)
    except TimeoutError:
        return told | {
            "data_error": f"expected somebody to tell schema {schema_id} within {PUBLISH_SECONDS:g} s, found no answer: maypole doctor"
        }
    except UnknownSchema as error:
        return told | {"data_error": str(error), "data_break": Break(1, "", "the id of a known schema", str(schema_id)).form()}
    except (ValueError, UnsafeSchema) as error:  # by a schema that is not a safe one nothing is read
        return told | {"data_error": str(error)}
    data, broken = walk(schema.node, value)
    told["data"] = to_json(data)
    try:
        told["data"] = to_json((await platform.contracts.reader(None, schema_id)).decode(value))
    except (Undecodable, ContractRefused) as error:
        told |= {"data_error": str(error if broken is None else broken), "data_break": None if broken is None else broken.form()}
    return told
