"""Declaring agents: which events they subscribe to, what they require of them, and what they may emit."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum, StrEnum
from functools import partial
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from maypole.bus.breaker import Breaker
from maypole.bus.context import Context
from maypole.bus.fallbacks import Pause, degrades, emits_nothing, emitted_by
from maypole.bus.joining import AllOf, Require, Trigger, doubled, milliseconds, required
from maypole.bus.requirements import Requirement
from maypole.bus.retry import ATTEMPTS_DEFAULT, Retry, hops
from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.event import Event, checked_type
from maypole.schemas.topics import FLOW_ENDED

Handler = Callable[..., Awaitable[object] | object]
H = TypeVar("H", bound=Handler)
P = ParamSpec("P")
R = TypeVar("R", covariant=True)

TIMEOUT_SECONDS_DEFAULT: Final = 300.0
UNDO_RETRY: Final = Retry(8, (1, 5, 15, 30, 60))
"""Some minutes: what cannot be undone by then waits for a person."""
_BREAKER_DEFAULT: Final = Breaker()
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_RESERVED: Final = frozenset({"maypole"})


class WrongDeclaration(TypeError):
    """An agent's declaration cannot work. Names the agent, the handler, what was expected and what was found."""


class Reaction(Protocol[P, R]):
    """A handler as it was written, and the decorators for what takes its effect back, and for a join whose time is up."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def undo(self, undo: H) -> H: ...
    @overload
    def undo(self, *, retry: Retry) -> Callable[[H], H]: ...
    def undo(self, undo: H | None = None, *, retry: Retry = UNDO_RETRY) -> H | Callable[[H], H]:
        """Declares the decorated function as the undo: it gets the event; what was emitted because of it, and a `Context`, if it asks.

        What was emitted is None where nobody knows how the step ended. It may be called again after a crash, always with
        the same `context.idempotency_key`, which is the one that the handler had. `retry`: how often, if it fails. The undo of
        a join gets all its parts.
        """
        ...

    def verify(self, verify: H) -> H:
        """Declares the decorated function as the question whether the effect is gone: it gets what an undo gets, and answers True or False.

        Asked after each undo; only after a True the step counts as undone.
        """
        ...

    def expired(self, handler: H) -> H:
        """Declares what is done when the parts of a join did not come within its time: it gets those that came, and None for each other.

        Without it the step fails. What it emits is declared by its return annotation.
        """
        ...


class Kind(StrEnum):
    """What a subscription does beside its events."""

    EVENTS = "events"
    """Nothing; but its events may differ when it is repeated, as a language model's do."""
    PURE = "pure"
    """Nothing; and repeating it gives the same events."""
    UNDO = "undo"
    """It acts on the outside, and says how that is taken back."""
    PIVOT = "pivot"
    """It acts on the outside, and there is no way back."""
    RETRIABLE = "retriable"
    """It acts on the outside after a pivot, and is repeated until it succeeds."""

    @property
    def acts_outside(self) -> bool:
        return self in (Kind.UNDO, Kind.PIVOT, Kind.RETRIABLE)


class UndoWants(Enum):
    """What an undo may ask for beside the event of its step."""

    EMITTED = "what the step emitted"
    CONTEXT = "the context of the step"


@dataclass(frozen=True, slots=True)
class Subscription:
    """`triggers`: the event that it handles; of a join its parts, in the order in which the handler takes them."""

    triggers: tuple[Trigger, ...]
    handler: Handler
    emits: tuple[type[Event], ...]
    kind: Kind
    wants_context: bool
    is_async: bool
    timeout_seconds: float
    retry: Retry
    repeats: bool = True
    """Whether an attempt of unknown fate may be followed by another one."""
    breaker: Breaker | None = None
    undo: Handler | None = None
    undo_wants: tuple[UndoWants, ...] = ()
    """What the undo takes beside the event, in its order."""
    undo_retry: Retry = UNDO_RETRY
    verify: Handler | None = None
    """Says whether the effect is gone."""
    verify_wants: tuple[UndoWants, ...] = ()
    undo_copes: bool = True
    """Whether it can do without knowing what was emitted: of a step that was cut off nobody can tell."""
    may_emit_nothing: bool = True
    """Whether None, or no event at all, is among what its annotation says."""
    emits_several: bool = False
    """Whether its annotation speaks of a list or tuple."""
    within_ms: int | None = None
    """Of a join: how long it waits once its first part is there. None: as long as the flow lives."""
    expiry: Subscription | None = None
    """The same subscription with the handler that is called when that time is up."""

    @property
    def event_types(self) -> tuple[str, ...]:
        return tuple(trigger.event_type for trigger in self.triggers)

    @property
    def is_join(self) -> bool:
        return len(self.triggers) > 1

    @property
    def keeps_row(self) -> bool:
        """Whether the ledger remembers its steps. A join's parts lie there anyway, so its row does too, also where it is pure."""
        return self.kind is not Kind.PURE or self.is_join

    @property
    def name(self) -> str:
        """Part of every step's identity: renaming the handler's function changes nothing, nor does another order of a join's parts."""
        return "+".join(sorted(self.event_types)) if self.is_join else self.triggers[0].event_type

    def declaration(self) -> dict[str, Any]:
        declared = {
            "on": sorted(self.event_types) if self.is_join else self.name,
            "emits": sorted(event.event_type for event in self.emits),
            "require": [
                {**({"on": trigger.event_type} if self.is_join else {}), **requirement.declaration()}
                for trigger in self.triggers
                for requirement in trigger.requires
            ],
            "kind": self.kind.value,
            "timeout_seconds": self.timeout_seconds,
            "retry": self.retry.declaration() if self.repeats else "never",
            "breaker": None if self.breaker is None else self.breaker.declaration(),
        }
        return declared if self.within_ms is None else {**declared, "within_ms": self.within_ms}


def by_topic(subscriptions: Iterable[Subscription]) -> Mapping[str, Subscription]:
    """What handles the events of each topic; a join is found under all of its."""
    return {event_type: each for each in subscriptions for event_type in each.event_types}


class Agent:
    """An independent consumer. Its name is its consumer group, its service name in traces and part of its steps' identities."""

    def __init__(self, name: str, *, version: str = "1", concurrency: int = 64, dependencies: Mapping[str, Breaker] | None = None) -> None:
        """`concurrency`: how many flows one process works on at the same time.

        `dependencies`: the breakers of what `context.dependency(name)` names; one that is not named here has the defaults.
        """
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise WrongDeclaration(
                f"agent {name!r}: expected a name of at most 63 lower-case letters, digits, - and _ that starts with a letter (and is not "
                f"'maypole'), found {len(name)} characters"
            )
        if concurrency < 1:
            raise WrongDeclaration(f"agent {name}: expected a concurrency of at least 1, found {concurrency}")
        for dependency, breaker in (dependencies or {}).items():
            if degrades(breaker.fallback):
                raise WrongDeclaration(
                    f"agent {name}: expected the fallback at a subscription, found one at the dependency {dependency!r}; what a step "
                    "leads to instead of its handler is its subscription's to say: @agent.on(..., breaker=Breaker(fallback=...))"
                )
        self.name = name
        self.version = version
        self.dependencies = dict(dependencies or {})
        self.concurrency = concurrency
        self._subscriptions: dict[str, Subscription] = {}

    @property
    def retry_delays(self) -> tuple[float, ...]:
        """Of its retry topics, in seconds, the shortest first."""
        return hops(each.retry for each in self._subscriptions.values())

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        return tuple(self._subscriptions.values())

    def on(
        self,
        event: type[Event] | str | AllOf,
        *,
        within: str | None = None,
        require: Require = (),
        pure: bool = False,
        pivot: bool = False,
        retriable: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT,
        attempts_max: int = ATTEMPTS_DEFAULT,
        retry: Retry | Literal["never"] | None = None,
        breaker: Breaker | Literal["off"] | None = _BREAKER_DEFAULT,
    ) -> Callable[[Callable[P, R]], Reaction[P, R]]:
        """Subscribe the decorated function to an event class, to a topic by its name, or to several together: `all_of(A, B)`.

        The function stays what it was: a unit test calls it without a broker. Its return annotation declares
        what it emits: an event class, several joined by `|`, a `list` or `tuple` of them, or None.
        `within`, of a join: how long it waits once the first of its events is there, as `30s`, `5m` or `1h`. Without it the join
        waits as long as the flow lives. `require`: of a join by part, `{ScoreReady: at_least("score", 300)}`.
        `retry`: see `Retry`; `attempts_max=n` is short for `Retry(attempts=n)`.
        `retry="never"`: what it does is not safe to do twice, so an attempt whose fate is unknown is not repeated.
        `breaker`: when its failures are an outage, and what is done until it is over; None or "off": never.
        Raises `WrongDeclaration`.
        """
        caller = sys._getframe(1).f_locals

        def declare(handler: Callable[P, R]) -> Reaction[P, R]:
            where = f"agent {self.name}, {getattr(handler, '__qualname__', handler)}"
            subscription = _declared(
                where,
                event,
                handler,
                require,
                _within(where, event, within),
                _kind(where, pure=pure, pivot=pivot, retriable=retriable),
                timeout_seconds,
                _policy(where, retry, attempts_max),
                retry != "never",
                None if breaker == "off" else breaker,
                caller,
            )
            taken = by_topic(self.subscriptions)
            for event_type in subscription.event_types:
                if event_type in taken:
                    raise WrongDeclaration(
                        f"{where}: {event_type} already has the handler {_name(taken[event_type].handler)}; one agent handles an event once"
                    )
            self._subscriptions[subscription.name] = subscription
            reaction = cast("Reaction[P, R]", handler)
            reaction.undo = partial(self._undone_by, where, subscription.name, caller)  # type: ignore[method-assign,assignment]
            reaction.verify = partial(self._verified_by, where, subscription.name, caller)  # type: ignore[method-assign]
            reaction.expired = partial(self._expired_by, where, subscription.name, caller)  # type: ignore[method-assign]
            return reaction

        return declare

    def _undone_by(
        self, where: str, name: str, caller: Mapping[str, Any], undo: H | None = None, *, retry: Retry = UNDO_RETRY
    ) -> H | Callable[[H], H]:
        if undo is None:
            return cast("Callable[[H], H]", partial(self._undone_by, where, name, caller, retry=retry))
        subscription = self._subscriptions[name]
        if subscription.undo is not None:
            raise WrongDeclaration(f"{where}: expected one undo, found a second one, {_name(undo)}")
        if subscription.kind is not Kind.EVENTS:
            raise WrongDeclaration(f"{where}: expected an undo for a step that can be taken back, found one that is {subscription.kind}")
        wants, copes = _undo_wants(where, subscription, "undo", undo, caller)
        undoable = _also_expired(replace(subscription, kind=Kind.UNDO, undo=undo, undo_wants=wants, undo_copes=copes, undo_retry=retry))
        _check_fallback(where, undoable)
        self._subscriptions[name] = undoable
        return undo

    def _verified_by(self, where: str, name: str, caller: Mapping[str, Any], verify: H) -> H:
        subscription = self._subscriptions[name]
        if subscription.undo is None or subscription.verify is not None:
            found = "none before it" if subscription.undo is None else "a second one"
            raise WrongDeclaration(f"{where}: expected one verify, after the undo that it is about, found {found}: {_name(verify)}")
        wants, copes = _undo_wants(where, subscription, "verify", verify, caller)
        copes = copes and subscription.undo_copes
        self._subscriptions[name] = replace(subscription, verify=verify, verify_wants=wants, undo_copes=copes)
        return verify

    def _expired_by(self, where: str, name: str, caller: Mapping[str, Any], handler: H) -> H:
        subscription = self._subscriptions[name]
        if subscription.within_ms is None:
            raise WrongDeclaration(f"{where}: expected a join with a time, all_of(...) and within='30s', found none that could expire")
        if subscription.expiry is not None:
            raise WrongDeclaration(f"{where}: expected one handler of its expiry, found a second one, {_name(handler)}")
        where = f"{where}, its expiry {_name(handler)}"
        expiry = _handled_by(where, subscription, handler, caller, missing=True)
        emits = tuple(dict.fromkeys((*subscription.emits, *expiry.emits)))
        self._subscriptions[name] = replace(subscription, emits=emits, expiry=expiry)
        return handler

    def declaration(self) -> dict[str, Any]:
        """The agent as data: what it announces in the catalog."""
        if not self._subscriptions:
            raise WrongDeclaration(f"agent {self.name} subscribes to nothing; expected at least one @{self.name}.on(...)")
        return {
            "name": self.name,
            "version": self.version,
            "subscriptions": [subscription.declaration() for _, subscription in sorted(self._subscriptions.items())],
        }

    def event_classes(self) -> dict[str, type[Event]]:
        """Every event class it mentions, by type. Raises `WrongDeclaration` when two classes claim one type."""
        classes: dict[str, type[Event]] = {}
        for subscription in self.subscriptions:
            handled = [trigger.event_class for trigger in subscription.triggers if trigger.event_class is not None]
            for event in (*handled, *subscription.emits):
                other = classes.setdefault(event.event_type, event)
                if other is not event:
                    raise WrongDeclaration(
                        f"agent {self.name}: {event.event_type} is declared by two classes, {_name(other)} and {_name(event)}"
                    )
        return classes

    def with_handlers(self, handler_of: Callable[[Subscription], Handler]) -> Agent:
        """The same agent with other handlers, for whoever watches what handlers do."""
        other = Agent(self.name, version=self.version, concurrency=self.concurrency, dependencies=self.dependencies)
        other._subscriptions = {name: replace(each, handler=handler_of(each)) for name, each in self._subscriptions.items()}
        return other

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"


def _topic(where: str, name: str) -> str:
    try:
        return name if name == FLOW_ENDED else checked_type(name)
    except UnsafeSchema as error:
        raise WrongDeclaration(f"{where}: {error}") from None


def _kind(where: str, *, pure: bool, pivot: bool, retriable: bool) -> Kind:
    chosen = [kind for kind, wanted in ((Kind.PURE, pure), (Kind.PIVOT, pivot), (Kind.RETRIABLE, retriable)) if wanted]
    if len(chosen) > 1:
        raise WrongDeclaration(f"{where}: expected one of pure, pivot and retriable, found {' and '.join(chosen)}")
    return chosen[0] if chosen else Kind.EVENTS


def _policy(where: str, retry: Retry | str | None, attempts_max: int) -> Retry:
    if isinstance(retry, Retry):
        if attempts_max != ATTEMPTS_DEFAULT:
            raise WrongDeclaration(f"{where}: expected retry or attempts_max, found both: Retry(attempts={attempts_max}, ...) says it")
        return retry
    if retry not in (None, "never"):
        raise WrongDeclaration(f"{where}: expected retry=Retry(...) or retry='never', found {retry!r}")
    if attempts_max < 1:
        raise WrongDeclaration(f"{where}: expected attempts_max >= 1, found {attempts_max}")
    return Retry(1 if retry == "never" else attempts_max)


def _within(where: str, event: object, within: str | None) -> int | None:
    if within is None:
        return None
    if not isinstance(event, AllOf):
        raise WrongDeclaration(f"{where}: expected within= beside all_of(...), found it beside one event, which waits for nothing")
    try:
        return milliseconds(within)
    except ValueError as error:
        raise WrongDeclaration(f"{where}: within: {error}") from None


def _declared(
    where: str,
    event: object,
    handler: Handler,
    require: Require,
    within_ms: int | None,
    kind: Kind,
    timeout_seconds: float,
    retry: Retry,
    repeats: bool,
    breaker: Breaker | None,
    caller: Mapping[str, Any],
) -> Subscription:
    triggers = _triggers(where, event, require)
    if timeout_seconds <= 0:
        raise WrongDeclaration(f"{where}: expected timeout_seconds > 0, found {timeout_seconds}")
    bare = Subscription(triggers, handler, (), kind, False, False, timeout_seconds, retry, repeats, breaker, within_ms=within_ms)
    subscription = _handled_by(where, bare, handler, caller)
    _check_fallback(where, subscription)
    return subscription


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


def _handled_by(
    where: str, subscription: Subscription, handler: Handler, caller: Mapping[str, Any], *, missing: bool = False
) -> Subscription:
    """The subscription with this handler, and what its signature says. `missing`: events may be None."""
    triggers = subscription.triggers
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise WrongDeclaration(
            f"{where}: expected a function that returns its events, as a list or tuple where they are several; it yields"
        )
    parameters = _parameters(handler)
    if not len(triggers) <= len(parameters) <= len(triggers) + 1:
        shape = _shape(triggers)
        raise WrongDeclaration(f"{where}: expected ({shape}) or ({shape}, context) as parameters, found {len(parameters)} of them")
    hints = _hints(where, handler, caller)
    for parameter, trigger in zip(parameters, triggers, strict=False):
        _check_parameter(where, parameter.name, hints.get(parameter.name, Any), trigger, missing=missing)
    wants_context = len(parameters) > len(triggers)
    if wants_context and hints.get(parameters[-1].name, Context) is not Context:
        raise WrongDeclaration(f"{where}: expected the last parameter to be a Context, found {hints[parameters[-1].name]!r}")
    if "return" not in hints:
        raise WrongDeclaration(
            f"{where}: expected a return annotation with the events it emits (-> None when it emits nothing), found none"
        )
    return replace(
        subscription,
        handler=handler,
        emits=tuple(_emitted(where, hints["return"])),
        wants_context=wants_context,
        is_async=inspect.iscoroutinefunction(handler),
        may_emit_nothing=_allows_nothing(hints["return"]),
        emits_several=_allows_several(hints["return"]),
    )


def _check_parameter(where: str, name: str, announced: Any, trigger: Trigger, *, missing: bool) -> None:
    kinds = typing.get_args(announced) if typing.get_origin(announced) in (typing.Union, types.UnionType) else (announced,)
    for kind in kinds:
        if kind is Context:
            raise WrongDeclaration(f"{where}: expected a parameter for {trigger.event_type} before the context, found {name}: Context")
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not trigger.event_class:
            raise WrongDeclaration(f"{where}: subscribes to {trigger.event_type} but its parameter {name} is a {kind.__name__}")
    if missing and announced is not Any and announced is not object and type(None) not in kinds:
        raise WrongDeclaration(
            f"{where}: expected {name} to be None where {trigger.event_type} has not come, found {announced!r}: add | None"
        )


def _also_expired(subscription: Subscription) -> Subscription:
    """Its expiry is of the same kind and is taken back by the same undo."""
    expiry = subscription.expiry
    if expiry is None:
        return subscription
    expiry = replace(expiry, kind=subscription.kind, undo=subscription.undo, undo_wants=subscription.undo_wants)
    return replace(subscription, expiry=expiry)


def _shape(triggers: Sequence[Trigger]) -> str:
    """As a signature would name them: `event`, or `score_ready, income_verified`."""
    return "event" if len(triggers) == 1 else ", ".join(re.sub(r"\W", "_", trigger.event_type) for trigger in triggers)


def _check_fallback(where: str, subscription: Subscription) -> None:
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


def _parameters(handler: Handler) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _hints(where: str, handler: Handler, caller: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(handler, localns=dict(caller))
    except NameError as error:
        raise WrongDeclaration(f"{where}: an annotation cannot be resolved: {error}") from None


def _emitted(where: str, annotation: Any) -> Iterable[type[Event]]:
    if annotation is None or annotation is type(None):
        return
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType) or origin in (list, tuple, Sequence, Iterable):
        for argument in typing.get_args(annotation):
            if argument is not Ellipsis:
                yield from _emitted(where, argument)
    elif isinstance(annotation, type) and issubclass(annotation, Event) and hasattr(annotation, "event_type"):
        yield annotation
    else:
        raise WrongDeclaration(
            f"{where}: expected event classes (joined by |, or in a list or tuple) as return annotation, found {annotation!r}"
        )


def _allows_nothing(annotation: Any) -> bool:
    """A list may be empty; an event class alone must come."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_allows_nothing(argument) for argument in typing.get_args(annotation))
    return annotation is None or annotation is type(None) or origin in (list, tuple, Sequence, Iterable)


def _allows_several(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_allows_several(argument) for argument in typing.get_args(annotation))
    return origin in (list, tuple, Sequence, Iterable)


def _undo_wants(
    where: str, subscription: Subscription, what: str, function: Handler, caller: Mapping[str, Any]
) -> tuple[tuple[UndoWants, ...], bool]:
    """What it takes beside the events, and whether what was emitted may be None."""
    parameters, parts = _parameters(function), len(subscription.triggers)
    hints = _hints(where, function, caller) if len(parameters) > parts else {}
    wants = tuple(UndoWants.CONTEXT if hints.get(each.name) is Context else UndoWants.EMITTED for each in parameters[parts:])
    if len(parameters) < parts or len(wants) > len(set(wants)):
        raise WrongDeclaration(
            f"{where}: expected ({_shape(subscription.triggers)}), and after it (emitted), (context: Context) or both, "
            f"as parameters of its {what} {_name(function)}"
        )
    asked = [hints.get(each.name, Any) for each, want in zip(parameters[parts:], wants, strict=True) if want is UndoWants.EMITTED]
    return wants, all(hint in (Any, object) or type(None) in typing.get_args(hint) for hint in asked)


_NUMBERS: Final = frozenset({int, float, Decimal})


def _check_field(where: str, event_class: type[Event], requirement: Requirement) -> None:
    first = requirement.field.partition(".")[0]
    if first not in event_class.model_fields:
        fields = ", ".join(event_class.model_fields)
        raise WrongDeclaration(f"{where}: requires {requirement}, but {event_class.__name__} has no field {first!r}; it has {fields}")
    kind = event_class.model_fields[first].annotation
    if requirement.compares and first == requirement.field and not _NUMBERS.intersection((kind, *typing.get_args(kind))):
        raise WrongDeclaration(f"{where}: requires {requirement}, but {event_class.__name__}.{first} is no number, it is {kind}")


def _name(thing: object) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', thing)}"
