"""Which of several processes of an agent this is."""

from __future__ import annotations

import os
import socket


def instance_id() -> str:
    """The same in the catalog, in spans and in logs, so that one leads to the others."""
    return f"{socket.gethostname()}-{os.getpid()}"
