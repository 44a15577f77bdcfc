"""The choreography is derived from declarations alone, and equal content has an equal hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.bus.catalog import View
from maypole.bus.choreography import Choreography, derive_choreography
from maypole.bus.ports import Delivery


def declared(name: str, on: str, *emits: str) -> Mapping[str, Any]:
    return {"name": name, "subscriptions": [{"on": on, "emits": list(emits), "kind": "events"}]}


CHAIN = [declared("one", "a.b", "b.c", "x.y"), declared("two", "b.c", "c.d"), declared("three", "c.d"), declared("other", "q.r", "r.s")]


def test_only_what_the_root_can_reach_belongs_to_it() -> None:
    choreography = derive_choreography("a.b", CHAIN)
    assert [reaction.agent for reaction in choreography.reactions] == ["one", "three", "two"]
    assert choreography.has("two", "b.c") and not choreography.has("other", "q.r")


@given(st.permutations(CHAIN))
def test_the_order_of_announcements_does_not_matter(order: list[Mapping[str, Any]]) -> None:
    assert derive_choreography("a.b", order).hash == derive_choreography("a.b", CHAIN).hash


def test_an_agent_out_of_reach_does_not_change_the_hash_and_one_in_reach_does() -> None:
    base = derive_choreography("a.b", CHAIN).hash
    assert derive_choreography("a.b", [*CHAIN, declared("far", "q.q", "b.c")]).hash == base
    assert derive_choreography("a.b", [*CHAIN, declared("near", "x.y")]).hash != base


def test_a_loop_is_reached_once() -> None:
    loop = [declared("ping", "a.b", "b.c"), declared("pong", "b.c", "a.b")]
    assert len(derive_choreography("a.b", loop).reactions) == 2


def test_whoever_reacts_to_the_ends_of_flows_is_part_of_none() -> None:
    watcher = declared("watcher", "maypole.flow.ended", "a.b")
    assert derive_choreography("maypole.flow.ended", [watcher]).reactions == ()


def test_a_choreography_is_read_back_from_its_text() -> None:
    choreography = derive_choreography("a.b", CHAIN)
    assert Choreography.parse(choreography.text) == choreography
    with pytest.raises(ValueError):
        Choreography.parse('{"root": "a.b"}')


def test_what_a_later_version_has_added_is_kept_so_that_its_hash_holds() -> None:
    later = '{"reactions":[{"agent":"a","emits":["b.c"],"kind":"compensable","on":["a.b"],"weight":2}],"root":"a.b","since":"9"}'
    choreography = Choreography.parse(later)
    assert choreography.text == later
    assert choreography.has("a", "a.b")


@pytest.mark.parametrize(
    "declaration",
    [
        {"name": "other", "subscriptions": []},
        {"name": "x", "subscriptions": [{"on": 5, "emits": [], "kind": "events"}]},
        {"name": "x", "subscriptions": [{"on": "a.b", "emits": [7], "kind": "events"}]},
        {"name": "x"},
    ],
)
def test_a_corrupt_declaration_is_left_out_of_the_catalog_and_breaks_nobody(declaration: dict[str, Any]) -> None:
    view = View()
    view.apply(Delivery("maypole.catalog", 0, 0, 0, b"agent/x", json.dumps(declaration).encode(), ()))
    assert view.active() == []


def test_the_hash_on_the_wire_never_changes() -> None:
    assert derive_choreography("a.b", CHAIN).hash == "3f91493b909d37dc9fea5d5295ef2c00718a223a76feb9f965b3a992cd841cea"


def test_the_time_of_a_join_is_part_of_the_text_and_its_absence_changes_no_hash() -> None:
    join = {"name": "join", "subscriptions": [{"on": ["c.d", "a.b"], "emits": [], "kind": "events", "within_ms": 30_000}]}
    choreography = derive_choreography("a.b", [*CHAIN, join])
    assert Choreography.parse(choreography.text).reactions == choreography.reactions
    (reaction,) = [reaction for reaction in choreography.reactions if reaction.agent == "join"]
    assert (reaction.within_ms, reaction.is_join, reaction.subscription) == (30_000, True, "a.b+c.d")
    assert "within_ms" not in derive_choreography("a.b", CHAIN).text


@pytest.mark.parametrize(
    "subscription",
    [{"on": "a.b", "within_ms": 5}, {"on": ["a.b", "b.c"], "within_ms": 0}, {"on": ["a.b", "b.c"], "within_ms": True}],
)
def test_only_a_join_has_a_time_and_it_is_a_number_of_milliseconds(subscription: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="within_ms"):
        derive_choreography("a.b", [{"name": "x", "subscriptions": [{**subscription, "emits": [], "kind": "events"}]}])


def test_what_may_come_after_a_step_is_known_from_the_declarations() -> None:
    choreography = derive_choreography("a.b", [*CHAIN, declared("loop", "c.d", "b.c")])
    names = {reaction.agent: {after.agent for after in choreography.downstream[reaction]} for reaction in choreography.reactions}
    assert names == {"one": {"two", "three", "loop"}, "two": {"two", "three", "loop"}, "three": set(), "loop": {"two", "three", "loop"}}
