"""How large a producer's batches may be: a broker holds a whole batch to a topic's `max.message.bytes`.

That limit may lie below a producer's batch, or be lowered while one is on its way. Then records are refused that would fit by
themselves. They are sent again in smaller batches, and so is everything after them: who has met one such topic meets it again.
"""

from __future__ import annotations

import logging
from typing import Final

from maypole.bus.ports import Record

_log = logging.getLogger("maypole.bus.kafka")

_FRACTION: Final = 4


class BatchLimit:
    """Of one sink. `bytes_max`: what its next producer puts into one batch; a record that is larger goes alone."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max

    def is_to_blame(self, record: Record, sent_bytes_max: int) -> bool:
        """Whether a record that was refused as too large may have been so because of others.

        `sent_bytes_max` is the limit that it was sent under: as large as that, it went alone. Where it may have had company,
        batches are smaller from here on.
        """
        size = len(record.key or b"") + len(record.value or b"") + sum(len(name) + len(value or b"") for name, value in record.headers)
        if size >= sent_bytes_max or sent_bytes_max <= 1:
            return False
        smaller = max(1, sent_bytes_max // _FRACTION)
        if smaller < self.bytes_max:
            self.bytes_max = smaller
            _log.warning("bus.batches_narrowed topic=%s bytes=%d", record.topic, smaller)
        return True
