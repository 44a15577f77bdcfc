"""The bus: declare agents, start flows. Everything a user imports stands here; the rest are its rooms."""

from maypole.bus.agent import Agent
from maypole.bus.breaker import Breaker
from maypole.bus.bus import Bus, Published
from maypole.bus.context import Context
from maypole.bus.fallbacks import Alert, Cached, Default, Pause, Skip
from maypole.bus.joining import all_of
from maypole.bus.membership import IdempotencyConflict
from maypole.bus.outage import Unavailable
from maypole.bus.outcomes import Reject, RetryLater
from maypole.bus.ports import BrokerUnreachable
from maypole.bus.requirements import Requirement, at_least, at_most, one_of, present
from maypole.bus.retry import Retry
from maypole.bus.subscription import Kind, WrongDeclaration
from maypole.schemas.event import Event, Value

__all__ = [
    "Agent", "Alert", "Breaker", "BrokerUnreachable", "Bus", "Cached", "Context", "Default", "Event", "IdempotencyConflict", "Kind",
    "Pause", "Published", "Reject", "Requirement", "Retry", "RetryLater", "Skip", "Unavailable", "Value", "WrongDeclaration", "all_of",
    "at_least", "at_most", "one_of", "present",
]  # fmt: skip
