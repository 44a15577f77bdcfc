"""May this agent join those that are announced? Asked before it is announced, so that a mistake stops it and nobody else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from maypole.bus.agent import Agent
from maypole.bus.catalog import View
from maypole.bus.choreography import RETRIABLE, Choreography, derive_choreography, types_in
from maypole.bus.no_return import NoPivot, NoWayBack, check_way_back
from maypole.bus.subscription import WrongDeclaration
from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.compatibility import explain
from maypole.schemas.event import Event

log = logging.getLogger("maypole.bus.start_checks")


class ConflictingSchemas(WrongDeclaration):
    """Two agents declare one topic with schemas that cannot read each other."""


class UnequalPartitions(WrongDeclaration):
    """The topics of a join have different numbers of partitions."""


def check_partitions(agent: Agent, counts: Mapping[str, int]) -> None:
    """Raises `UnequalPartitions` where the parts of one flow could come to different instances of the agent."""
    for subscription in agent.subscriptions:
        found = {topic: counts[topic] for topic in subscription.event_types}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{topic} has {count}" for topic, count in found.items())
            raise UnequalPartitions(
                f"agent {agent.name} joins {subscription.name}: expected the same number of partitions of each, found that {told}. "
                "Parts of one flow lie on partitions of the same number, and one instance must get them all: "
                "make the topics alike before they are used, or give the event a new name"
            )


def check_with_others(declaration: Mapping[str, Any], view: View, coming: Sequence[Mapping[str, Any]] = ()) -> None:
    """Raises `NoWayBack` where flows could be left half done with this agent, and could not without it.

    Announced, it would keep everybody from starting such flows. Agents may come in any order, so what can only be meant to lie behind
    a pivot is not refused because nobody has announced that pivot yet; that it is missing is told where it is none of those `coming`,
    who start beside this one.
    """
    begun = {choreography.root for choreography in view.choreographies.values()}
    others = [other for other in view.active() if other["name"] != declaration["name"]]
    everybody = [*others, declaration]
    for root in _roots(everybody):
        try:
            check_way_back(derive_choreography(root, others))
        except NoWayBack:
            continue  # it was so before this agent came
        together = derive_choreography(root, everybody)
        try:
            check_way_back(together)
        except NoPivot as error:
            if root in begun or not _can_follow_a_pivot(together):
                raise
            if root not in _roots([*everybody, *coming]):
                continue  # somebody who is on the way emits it
            then = f"the agent of its pivot is waited for; until it comes, a flow that begins with {root} is refused"
            log.warning("agent.pivot_missing", extra={"agent": declaration["name"], "why": str(error), "then": then})


def _can_follow_a_pivot(choreography: Choreography) -> bool:
    return all(reaction.kind == RETRIABLE for reaction in choreography.reactions if reaction.acts_outside)


def check_against_others(agent: Agent, view: View) -> None:
    """Raises `ConflictingSchemas` for a schema that another agent on the same topic could not read, or whose events we could not."""
    ours, classes = agent.declaration(), agent.event_classes()
    for other in view.active():
        if other["name"] == agent.name:
            _check_against_before(agent.name, other, classes, view)
            continue
        for event_type, schema_id in other.get("schemas", {}).items():
            event = classes.get(event_type)
            text = view.schemas.get(schema_id)
            if event is None or text is None:
                continue
            theirs = Schema.parse(text)
            mine = schema_of(event)
            strangers = explain(reader=mine, writer=theirs)
            if strangers and explain(reader=theirs, writer=mine):
                raise ConflictingSchemas(
                    f"agents {ours['name']} and {other['name']} declare {event_type} differently, and neither could read what is "
                    f"written as the other declares it: {strangers[0]}. Give one of them a new name, "
                    f"or retire the other agent: maypole agents retire {other['name']}"
                )
            for writer, reader, written, read in ((ours, other, mine, theirs), (other, ours, theirs, mine)):
                if written.derived_id == read.derived_id or event_type not in _emits(writer) or event_type not in _reads(reader):
                    continue
                faults = explain(reader=read, writer=written)
                if faults:
                    raise ConflictingSchemas(
                        f"agents {writer['name']} and {reader['name']} declare {event_type} differently: "
                        f"{reader['name']} cannot read what {writer['name']} writes: {faults[0]}. "
                        f"Give the event a new name, or make the change one that old readers understand (a new field needs a default)."
                    )


def _check_against_before(agent: str, before: Mapping[str, Any], classes: Mapping[str, type[Event]], view: View) -> None:
    """What this agent was announced with may still lie on its topics, written by somebody who has not changed."""
    for event_type in sorted(_reads(before) & classes.keys()):
        text = view.schemas.get(before.get("schemas", {}).get(event_type, -1))
        faults = [] if text is None else explain(reader=schema_of(classes[event_type]), writer=Schema.parse(text))
        if faults:
            raise ConflictingSchemas(
                f"agent {agent} was announced with another {event_type}, which its new declaration cannot read: {faults[0]}. "
                f"Events like that may still wait for it. Give the event a new name, make the change one that reads old events "
                f"(a new field needs a default), or give them up: maypole agents retire {agent}"
            )


def _roots(declarations: Sequence[Mapping[str, Any]]) -> set[str]:
    """What starts flows: types that somebody waits for and nobody emits."""
    read = {event for declaration in declarations for event in _reads(declaration)}
    return read - {event for declaration in declarations for event in _emits(declaration)}


def _emits(declaration: Mapping[str, Any]) -> set[str]:
    return {event for subscription in declaration["subscriptions"] for event in subscription["emits"]}


def _reads(declaration: Mapping[str, Any]) -> set[str]:
    return {event for subscription in declaration["subscriptions"] for event in types_in(subscription["on"])}
