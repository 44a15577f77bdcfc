"""Names that no other test on the same broker uses."""

from __future__ import annotations

from uuid import uuid4


def unique_agent(name: str = "agent") -> str:
    """A name for an agent, a consumer group or a file: `agent-3f9c01ab`."""
    return f"{name}-{uuid4().hex[:8]}"


def unique_topic(name: str = "probe.sent") -> str:
    """A topic, which is also an event type: `probe-3f9c01ab.sent`; everything after the last dot is kept."""
    domain, dot, fact = name.rpartition(".")
    return f"{domain or fact}-{uuid4().hex[:8]}{dot}{fact if domain else ''}"
