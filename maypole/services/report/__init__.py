"""The report agent: `analysis.ready` in, `report.published` out."""

from maypole.services.report.agent import report

__all__ = ["report"]
