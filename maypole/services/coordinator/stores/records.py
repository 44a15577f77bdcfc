"""Parked records as bytes, unchanged: whatever a record holds comes back as it was."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode

from maypole.bus.ports import Delivery


def written(record: Delivery) -> bytes:
    headers = [(name, _text(value)) for name, value in record.headers]
    place = (record.topic, record.partition, record.offset, record.timestamp_ms)
    return json.dumps([*place, _text(record.key), _text(record.value), headers]).encode()


def read_back(data: bytes) -> Delivery:
    topic, partition, offset, timestamp_ms, key, value, headers = json.loads(data)
    return Delivery(topic, partition, offset, timestamp_ms, _bytes(key), _bytes(value), [(name, _bytes(text)) for name, text in headers])


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
