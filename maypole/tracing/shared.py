"""What all services of a process share: one queue of spans with one thread that exports, one watch over handlers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from maypole.tracing.batches import Batches
from maypole.tracing.destination import Destination
from maypole.tracing.exporters import OpenExporters, open_exporters
from maypole.tracing.watch import Watch

_LOCK: Final = threading.Lock()
_SHARED: Final[dict[Destination, Shared]] = {}


class Shared:
    def __init__(self, destination: Destination, exporters: OpenExporters) -> None:
        self.batches = Batches(exporters, destination.limits, destination.address)
        self.watch = Watch()
        self.users = 0


@contextmanager
def sharing(destination: Destination, exporters: OpenExporters | None = None) -> Iterator[Shared]:
    """The first to come opens it, the last to leave exports what is queued and closes it.

    `exporters` replaces those that `destination` names.
    """
    with _LOCK:
        shared = _SHARED.get(destination)
        if shared is None:
            shared = _SHARED[destination] = Shared(destination, exporters or partial(open_exporters, destination))
        shared.users += 1
    try:
        yield shared
    finally:
        with _LOCK:
            shared.users -= 1
            last = shared.users == 0
            if last:
                del _SHARED[destination]
        if last:
            shared.watch.close()
            shared.batches.close()
