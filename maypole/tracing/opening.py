"""Opening the observer of one service. What is imported here is light: the SDK comes in only where spans go somewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maypole.bus.hook import Tracing, Untraced
from maypole.settings import Settings
from maypole.tracing.destination import Destination, read_destination

if TYPE_CHECKING:
    from maypole.tracing.exporters import OpenExporters


@contextmanager
def open_tracing(settings: Settings, service: str, version: str) -> Iterator[Tracing]:
    """The observer of `service` (an agent's name, a publisher's), as OpenTelemetry's variables and `settings` say.

    Leaving exports what is left, within three seconds. Where spans go nowhere nothing is recorded and the
    SDK is not imported; traces that others record stay whole all the same.
    """
    destination = destination_of(settings)
    if destination is None:
        yield Untraced()
        return
    with open_service(destination, service, version) as tracing:
        yield tracing


def destination_of(settings: Settings) -> Destination | None:
    """Where this process's spans go; None: nowhere. Whoever tells people of spans asks here, so that it is what happens."""
    return None if settings.tracing == "off" else read_destination(os.environ, settings.otlp_endpoint)


@contextmanager
def open_service(destination: Destination, service: str, version: str, exporters: OpenExporters | None = None) -> Iterator[Tracing]:
    """As `open_tracing`, to a destination that is given. `exporters` replaces those it names."""
    from maypole.tracing.sdk import SdkTracing
    from maypole.tracing.service import Service
    from maypole.tracing.shared import sharing
    from maypole.tracing.user_spans import USER_SPANS

    with sharing(destination, exporters) as shared:
        opened = Service(service, version, shared.batches)
        USER_SPANS.opened(opened)
        try:
            yield SdkTracing(opened, shared.watch)
        finally:
            opened.open = False
            USER_SPANS.closed(opened)
