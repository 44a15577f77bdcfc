"""The checks of a declaration: each that cannot work is refused where it is written, with what was expected and what was found."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from maypole.bus.breaker import Breaker
from maypole.bus.fallbacks import Pause, degrades, emits_nothing, emitted_by
from maypole.bus.joining import AllOf, Require, Trigger, doubled, milliseconds, required
from maypole.bus.requirements import Requirement
from maypole.bus.retry import ATTEMPTS_DEFAULT, Retry
from maypole.bus.signatures import handled_by
from maypole.bus.subscription import Handler, Kind, Subscription, WrongDeclaration
from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.event import Event, checked_type
from maypole.schemas.topics import FLOW_ENDED

_NUMBERS: Final = frozenset({int, float, Decimal})


def declared(
    where: str,
    event: object,
    handler: Handler,
    require: Require,
    within_ms: int | None,
    kind: Kind,
    optional: bool,
    timeout_seconds: float,
    retry: Retry,
    repeats: bool,
    breaker: Breaker | None,
    caller: Mapping[str, Any],
) -> Subscription:
    triggers = _triggers(where, event, require)
    if timeout_seconds <= 0:
        raise WrongDeclaration(f"{where}: expected timeout_seconds > 0, found {timeout_seconds}")
    bare = Subscription(
        triggers, handler, (), kind, False, False, timeout_seconds, retry, repeats, breaker, optional=optional, within_ms=within_ms
    )  # fmt: skip
    subscription = handled_by(where, bare, handler, caller)
    check_fallback(where, subscription)
    return subscription


def kind_of(where: str, *, pure: bool, pivot: bool, retriable: bool) -> Kind:
    chosen = [kind for kind, wanted in ((Kind.PURE, pure), (Kind.PIVOT, pivot), (Kind.RETRIABLE, retriable)) if wanted]
    if len(chosen) > 1:
        raise WrongDeclaration(f"{where}: expected one of pure, pivot and retriable, found {' and '.join(chosen)}")
    return chosen[0] if chosen else Kind.EVENTS


def optional_of(where: str, optional: bool, *, pivot: bool) -> bool:
    if optional and pivot:
        raise WrongDeclaration(f"{where}: expected pivot or optional, found both: a flow cannot go on past a point of no return without it")
    return optional


def policy_of(where: str, retry: Retry | str | None, attempts_max: int) -> Retry:
    if isinstance(retry, Retry):
        if attempts_max != ATTEMPTS_DEFAULT:
            raise WrongDeclaration(f"{where}: expected retry or attempts_max, found both: Retry(attempts={attempts_max}, ...) says it")
        return retry
    if retry not in (None, "never"):
        raise WrongDeclaration(f"{where}: expected retry=Retry(...) or retry='never', found {retry!r}")
    if attempts_max < 1:
        raise WrongDeclaration(f"{where}: expected attempts_max >= 1, found {attempts_max}")
    return Retry(1 if retry == "never" else attempts_max)


def within_ms_of(where: str, event: object, within: str | None) -> int | None:
    if within is None:
        return None
    if not isinstance(event, AllOf):
        raise WrongDeclaration(f"{where}: expected within= beside all_of(...), found it beside one event, which waits for nothing")
    try:
        return milliseconds(within)
    except ValueError as error:
        raise WrongDeclaration(f"{where}: within: {error}") from None


def check_fallback(where: str, subscription: Subscription) -> None:
    fallback = Pause() if subscription.breaker is None else subscription.breaker.fallback
    if not degrades(fallback):
        return
    if subscription.kind is not Kind.EVENTS:
        raise WrongDeclaration(
            f"{where}: expected a breaker that pauses, found a fallback for a step that is {subscription.kind}: what is emitted instead "
            "is neither the effect that the step declares, nor the same when it is repeated"
        )
    expected = " or ".join(each.__name__ for each in subscription.emits) or "nothing"
    for event in emitted_by(fallback):
        if type(event) not in subscription.emits:
            raise WrongDeclaration(f"{where}: expected a fallback out of what it emits, {expected}; found {type(event).__name__}")
    if emits_nothing(fallback) and not subscription.may_emit_nothing:
        raise WrongDeclaration(f"{where}: expected a fallback that emits {expected}, found Skip() without an event")


def _triggers(where: str, event: object, require: Require) -> tuple[Trigger, ...]:
    if not isinstance(event, AllOf):
        if isinstance(require, Mapping):
            raise WrongDeclaration(f"{where}: expected requirements, found them by part; only a join, all_of(...), has parts")
        return (_trigger(where, event, required(require, None)),)
    if len(event.events) < 2:
        raise WrongDeclaration(f"{where}: expected at least two events in all_of(...), found {len(event.events)}")
    if not isinstance(require, Mapping) and required(require, None):
        raise WrongDeclaration(f"{where}: expected what is required of a join by part, as {{ScoreReady: at_least(...)}}, found {require!r}")
    triggers = tuple(_trigger(where, part, required(require, part)) for part in event.events)
    twice = doubled(trigger.event_type for trigger in triggers)
    if twice is not None:
        raise WrongDeclaration(f"{where}: expected each event once in all_of(...), found {twice} twice")
    for part in require if isinstance(require, Mapping) else ():
        if part not in event.events:
            raise WrongDeclaration(f"{where}: requires something of {part!r}, which is no part of its all_of(...)")
    if FLOW_ENDED in (trigger.event_type for trigger in triggers):
        raise WrongDeclaration(f"{where}: expected events of one flow in all_of(...), found {FLOW_ENDED}, which comes after all of them")
    return triggers


def _trigger(where: str, event: object, requires: tuple[Requirement, ...]) -> Trigger:
    if isinstance(event, str):
        return Trigger(_topic(where, event), None, requires)
    if not (isinstance(event, type) and issubclass(event, Event) and hasattr(event, "event_type")):
        raise WrongDeclaration(f"{where}: expected an event class or a topic name, found {event!r}")
    for requirement in requires:
        _check_field(where, event, requirement)
    return Trigger(event.event_type, event, requires)


def _topic(where: str, name: str) -> str:
    try:
        return name if name == FLOW_ENDED else checked_type(name)
    except UnsafeSchema as error:
        raise WrongDeclaration(f"{where}: {error}") from None


def _check_field(where: str, event_class: type[Event], requirement: Requirement) -> None:
    first = requirement.field.partition(".")[0]
    if first not in event_class.model_fields:
        fields = ", ".join(event_class.model_fields)
        raise WrongDeclaration(f"{where}: requires {requirement}, but {event_class.__name__} has no field {first!r}; it has {fields}")
    kind = event_class.model_fields[first].annotation
    if requirement.compares and first == requirement.field and not _NUMBERS.intersection((kind, *typing.get_args(kind))):
        raise WrongDeclaration(f"{where}: requires {requirement}, but {event_class.__name__}.{first} is no number, it is {kind}")
