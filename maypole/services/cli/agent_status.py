"""What the catalog says of agents, as rows: who is running, who has retired, what each reacts to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from maypole.bus.catalog import INSTANCE_LOST_SECONDS, View
from maypole.bus.choreography import types_in


def agent_rows(view: View, now: datetime) -> list[dict[str, Any]]:
    """One row an agent, by name. `state` is `running`, `silent` (no heartbeat lately), `stopped` or `retired`."""
    return [_row(view, name, now) for name in sorted(view.agents)]


def instance_rows(view: View, agent: str, now: datetime) -> list[dict[str, Any]]:
    """The instances that have not said goodbye, with the seconds since each was last heard."""
    rows = []
    for (name, instance), facts in sorted(view.instances.items()):
        if name == agent:
            seen = _time(facts.get("seen_at"))
            silent = None if seen is None else max(0.0, round((now - seen).total_seconds(), 1))
            rows.append({"instance": instance, **facts, "silent_seconds": silent, "alive": _alive(facts, now)})
    return rows


def breaker_rows(instances: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The breakers that are not closed, of instances that were heard of lately; each instance has its own."""
    return [{**breaker, "instance": each["instance"]} for each in instances if each["alive"] for breaker in each.get("breakers", ())]


def narrowed(rows: Iterable[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """For a terminal of 80 columns: how long ago an agent was heard, and of several types each on a line of its own."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        at = _time(row["seen_at"])
        own = {**row, "heard": None if at is None else f"{max(0, round((now - at).total_seconds()))} s ago"}
        for on, emits in zip_longest(row["on"], row["emits"] or [None], fillvalue=" "):
            lines.append({**own, "on": on, "emits": emits})
            own = dict.fromkeys(own, " ")
    return lines


@dataclass(frozen=True, slots=True)
class Standing:
    """How an agent that somebody waits for is, in words: `is silent, last heard 46 s ago`."""

    agent: str
    running: bool
    text: str


def standing_of(view: View, agent: str, now: datetime) -> Standing:
    """Of an agent that a flow waits for; one that the catalog does not know is not running."""
    seen = [_time(facts.get("seen_at")) for (name, _), facts in view.instances.items() if name == agent]
    heard = max((at for at in seen if at is not None), default=None)
    if heard is None:
        return Standing(agent, False, "is not running")
    ago = max(0, round((now - heard).total_seconds()))
    if now - heard < timedelta(seconds=INSTANCE_LOST_SECONDS):
        shut = dict.fromkeys(map(breaker_told, breaker_rows(instance_rows(view, agent, now))))
        return Standing(agent, True, "; ".join((f"was heard {ago} s ago", *shut)))
    at = heard.astimezone().strftime("%H:%M:%S")
    return Standing(agent, False, f"is silent, last heard {ago} s ago at {at}")


def breaker_told(breaker: Mapping[str, Any]) -> str:
    """`its breaker of cmd.given is open since 12:00:03 (ConnectionError('away')), so events wait there`."""
    since = _time(breaker.get("since"))
    at = "" if since is None else f" since {since.astimezone().strftime('%H:%M:%S')}"
    name, state, because = breaker.get("name"), breaker.get("state"), breaker.get("because")
    waits = "undos wait for it" if breaker.get("breaker") == "undo_dependency" else "events wait there"
    return f"its breaker of {name} is {state}{at} ({because}), so {waits}"


def _row(view: View, name: str, now: datetime) -> dict[str, Any]:
    declaration = view.agents[name]
    instances = [facts for (agent, _), facts in view.instances.items() if agent == name]
    alive = sum(_alive(facts, now) for facts in instances)
    state = "retired" if declaration.get("retired") else "running" if alive else "silent" if instances else "stopped"
    subscriptions = declaration["subscriptions"]
    return {
        "agent": name,
        "state": state,
        "instances": alive,
        "version": declaration.get("version"),
        "on": ["+".join(types_in(subscription["on"])) for subscription in subscriptions],
        "emits": sorted({event for subscription in subscriptions for event in subscription["emits"]}),
        "temporary": bool(declaration.get("temporary")),
        "retired": bool(declaration.get("retired")),
        "expired": sum(facts.get("expired", 0) for facts in instances),
        "breakers": breaker_rows(instance_rows(view, name, now)),
        "seen_at": max((str(facts.get("seen_at")) for facts in instances), default=None),
    }


def _alive(facts: Mapping[str, Any], now: datetime) -> bool:
    seen = _time(facts.get("seen_at"))
    return seen is not None and now - seen < timedelta(seconds=INSTANCE_LOST_SECONDS)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None
