"""Publishing again under the idempotency key of a flow that has begun: what was said the first time stands."""

from __future__ import annotations

from maypole.bus.composition import Platform
from maypole.schemas.identifiers import flow_id_of
from maypole.services.cli.flow_histories import stories_of
from maypole.services.cli.flow_story import FlowStory


async def what_stands(
    platform: Platform, event_type: str, idempotency_key: str, business_key: str | None, deadline_seconds: float | None
) -> list[str]:
    """Warnings, one for each thing that is said differently now and changes nothing. What is left out contradicts nothing."""
    if business_key is None and deadline_seconds is None:
        return []
    flow = flow_id_of(event_type, idempotency_key)
    story = (await stories_of(platform, [flow])).get(flow)
    return [] if story is None else differences(story, business_key, deadline_seconds)


def differences(story: FlowStory, business_key: str | None, deadline_seconds: float | None) -> list[str]:
    flow, deadline = story.saga.flow_id, story.saga.deadline_ms / 1000
    found = []
    if business_key is not None and business_key != story.business_key:
        has = "no business key" if story.business_key is None else f"the business key {story.business_key!r}"
        found.append(f"flow {flow} has begun before and keeps {has}: --key {business_key} changes nothing")
    if deadline_seconds is not None and deadline_seconds != deadline:
        found.append(f"flow {flow} has begun before and keeps its deadline of {deadline:g} s: --deadline changes nothing")
    return found
