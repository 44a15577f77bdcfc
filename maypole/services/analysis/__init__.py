"""The analysis agent: `research.completed` in, `analysis.ready` out."""

from maypole.services.analysis.agent import analysis

__all__ = ["analysis"]
