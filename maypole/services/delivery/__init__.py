"""The delivery agent: `report.published` in, `report.delivered` out."""

from maypole.services.delivery.agent import delivery

__all__ = ["delivery"]
