"""Optional steps that failed: their flows go on without them, and while they do a step may be given another chance."""

from __future__ import annotations

from typing import NamedTuple

from maypole.bus.composition import Platform
from maypole.schemas.identifiers import StepId
from maypole.schemas.journal import Decision
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.flow_story import FlowStory, Standing
from maypole.services.operators import decide
from maypole.services.saga import Saga


class Chance(NamedTuple):
    """What is needed to give a step another one: its flow as it stands, and the flow's business key."""

    saga: Saga
    step_id: StepId
    subject: str | None


class NoChance(NamedTuple):
    """Why there is none. `settled`: the failure was seen to before. `why` is a word for scripts, `detail` a sentence."""

    settled: bool
    why: str
    detail: str


def chance_of(agent: str, event_id: str, story: FlowStory | None) -> Chance | NoChance:
    """For the step of this agent that the event has triggered. `story` is None where the journal says nothing of its flow."""
    steps = () if story is None else story.steps()
    step = next((each for each in steps if each.agent == agent and event_id in (event.event_id for event in each.trigger)), None)
    if story is None or step is None:
        return NoChance(False, "flow_untold", f"the journal says nothing of the step of {agent}, so where its flow stands cannot be told")
    if Decision.RETRY in step.choices:
        return Chance(story.saga, step.step_id, story.business_key)
    if step.standing is Standing.COMPLETED:
        return NoChance(True, "completed", "it has completed since")
    if step.end is None:
        return NoChance(True, "redriven_before", "it was given another chance, and has not ended yet")
    return NoChance(False, "decided_flow", f"its flow does not wait for anything of it any more: it is {story.saga.state}")


async def give(platform: Platform, chance: Chance, by: str, note: str) -> str:
    """Tell the journal, which counts when it is read back; said twice by one person it is one word. Gives back where it lies."""
    _, receipt = await decide(platform, chance.saga, chance.step_id, Decision.RETRY, by, note, subject=chance.subject)
    return f"{JOURNAL}/{receipt.partition}/{receipt.offset}"
