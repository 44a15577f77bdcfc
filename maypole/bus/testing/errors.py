"""What a test is told when a flow or an agent did not do what was awaited. Each is what `pytest` shows as the failure."""

from __future__ import annotations


class NotFinished(AssertionError):
    """A flow did not come to rest in time. Says which agent owes what, and whether that agent runs at all."""


class NoSubscriber(AssertionError):
    """A flow will never finish, because no agent subscribes to the event that started it."""


class NotPure(AssertionError):
    """A step that was declared `pure=True` emitted something else when its handler was called again with the same event."""


class SimulationFailed(AssertionError):
    """A simulated run broke a promise. Says which, from which seed, and after which accidents."""

    def __init__(self, seed: int, text: str) -> None:
        super().__init__(text)
        self.seed = seed


class AgentCrashed(AssertionError):
    """An agent stopped running by itself, which no failure of a handler brings about. Its exception is the `__cause__`."""
