"""Dead letters: the original's key, value and headers unchanged, and beside them why it lies here."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from maypole.bus.ports import Delivery, Record
from maypole.bus.record_sizes import bytes_of
from maypole.schemas.envelope import ATTRIBUTES, TEXT_BYTES_MAX, rfc3339
from maypole.schemas.topics import dead_letter_topic

_ERROR_LENGTH_MAX = 4000
_PREFIX = "dlq-"
LEFT_OUT: Final = "dlq-left-out"
"""What of the original is not in its letter, and how many bytes that is: where it lay, the other headers say."""


class Reason(StrEnum):
    UNDECODABLE = "undecodable"
    CONTRACT_REFUSED = "contract_refused"
    REJECTED = "rejected"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    UNKNOWN_FLOW = "unknown_flow"
    EXPIRED = "expired"
    """Only said in the journal: the parts of a join did not come in time, and no record is to blame."""
    COMPENSATION_FAILED = "compensation_failed"


def dead_letter(agent: str, delivery: Delivery, reason: Reason, error: str, attempts: int, failed_at_ms: float) -> Record:
    """`failed_at_ms` is when it failed, milliseconds since the epoch.

    Of a record that was a dead letter before, what was added then is replaced; when it failed first and how often it was
    sent again stay.
    """
    before = {name: value for name, value in delivery.headers if name.startswith(_PREFIX)}
    return Record(
        dead_letter_topic(agent),
        delivery.key,
        delivery.value,
        [
            *((name, value) for name, value in delivery.headers if not name.startswith(_PREFIX)),
            ("dlq-reason", reason.value.encode()),
            ("dlq-error", error[:_ERROR_LENGTH_MAX].encode(errors="replace")),
            ("dlq-agent", agent.encode()),
            ("dlq-topic", delivery.topic.encode()),
            ("dlq-partition", b"%d" % delivery.partition),
            ("dlq-offset", b"%d" % delivery.offset),
            ("dlq-attempts", b"%d" % attempts),
            ("dlq-first-failed-at", before.get("dlq-first-failed-at") or rfc3339(failed_at_ms).encode()),
            ("dlq-replays", before.get("dlq-replays") or b"0"),
        ],
    )


def fitting(letter: Record, bytes_max: int) -> Record:
    """The letter as its topic takes it: what is too large goes without its value, and where that is not enough without its key and
    the headers of others, and says so. Who buries must not be ended by what it buries."""
    if bytes_of(letter) <= bytes_max:
        return letter
    value = f"value of {len(letter.value or b'')} bytes"
    bare = letter._replace(value=None, headers=[*letter.headers, (LEFT_OUT, value.encode())])
    if bytes_of(bare) <= bytes_max:
        return bare
    short = {name: kept for name, kept in letter.headers if name in ATTRIBUTES and len(kept or b"") <= TEXT_BYTES_MAX}
    ours = [(name, kept) for name, kept in letter.headers if name.startswith(_PREFIX)]
    rest = f"{value}, key of {len(letter.key or b'')} bytes, {len(letter.headers) - len(short) - len(ours)} headers"
    key = letter.key if len(letter.key or b"") <= TEXT_BYTES_MAX else None
    return letter._replace(key=key, value=None, headers=[*short.items(), *ours, (LEFT_OUT, rest.encode())])
