"""The research agent: `research.requested` in, `research.completed` or `research.inconclusive` out."""

from maypole.services.research.agent import research

__all__ = ["research"]
