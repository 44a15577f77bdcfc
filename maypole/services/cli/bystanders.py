"""Of a flow that no agent takes part in: those that come near, and what keeps them out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from maypole.bus.catalog import View
from maypole.bus.choreography import types_in


def bystanders(view: View, root: str) -> list[str]:
    """In words, by agent: `decision needs income.verified too, which nothing emits that comes of score.ready`."""
    return [said for name in sorted(view.agents) for said in _said(view.agents[name], root)]


def _said(declaration: Mapping[str, Any], root: str) -> Iterator[str]:
    name = declaration["name"]
    for subscription in declaration["subscriptions"]:
        on = types_in(subscription["on"])
        if root not in on:
            continue
        if declaration.get("retired"):
            stopped = "stopped" if declaration.get("temporary") else "retired"
            yield f"{name} is {stopped}, so the flow does not wait for it: if it is run again, it only observes this flow"
        elif len(on) > 1:
            missing = " and ".join(event for event in on if event != root)
            yield f"{name} needs {missing} too, which nothing emits that comes of {root}"
