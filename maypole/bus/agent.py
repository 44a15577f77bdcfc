"""Declaring agents: which events they subscribe to, what they require of them, and what they may emit."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from functools import partial
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar, cast

from maypole.bus.context import Context
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
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_RESERVED: Final = frozenset({"maypole"})


class WrongDeclaration(TypeError):
    """An agent's declaration cannot work. Names the agent, the handler, what was expected and what was found."""


class Reaction(Protocol[P, R]):
    """A handler as it was written, and the decorator for what takes its effect back."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def undo(self, undo: H) -> H:
        """Declares the decorated function as the undo: it gets the event; what was emitted because of it, and a `Context`, if it asks."""
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
    """`event_class` is None where the agent subscribed by topic name: its handler gets a read-only mapping."""

    event_type: str
    event_class: type[Event] | None
    handler: Handler
    emits: tuple[type[Event], ...]
    requires: tuple[Requirement, ...]
    kind: Kind
    wants_context: bool
    is_async: bool
    timeout_seconds: float
    retry: Retry
    repeats: bool = True
    """Whether an attempt of unknown fate may be followed by another one."""
    undo: Handler | None = None
    undo_wants: tuple[UndoWants, ...] = ()
    """What the undo takes beside the event, in its order."""
    may_emit_nothing: bool = True
    """Whether None, or no event at all, is among what its annotation says."""

    @property
    def name(self) -> str:
        """Part of every step's identity: renaming the handler's function changes nothing."""
        return self.event_type

    def declaration(self) -> dict[str, Any]:
        return {
            "on": self.event_type,
            "emits": sorted(event.event_type for event in self.emits),
            "require": [requirement.declaration() for requirement in self.requires],
            "kind": self.kind.value,
            "timeout_seconds": self.timeout_seconds,
            "retry": self.retry.declaration() if self.repeats else "never",
        }


class Agent:
    """An independent consumer. Its name is its consumer group, its service name in traces and part of its steps' identities."""

    def __init__(self, name: str, *, version: str = "1", concurrency: int = 64) -> None:
        """`concurrency`: how many flows one process works on at the same time."""
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise WrongDeclaration(
                f"agent {name!r}: expected a name of lower-case letters, digits, - and _ that starts with a letter (and is not 'maypole')"
            )
        if concurrency < 1:
            raise WrongDeclaration(f"agent {name}: expected a concurrency of at least 1, found {concurrency}")
        self.name = name
        self.version = version
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
        event: type[Event] | str,
        *,
        require: Requirement | Sequence[Requirement] = (),
        pure: bool = False,
        pivot: bool = False,
        retriable: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT,
        attempts_max: int = ATTEMPTS_DEFAULT,
        retry: Retry | Literal["never"] | None = None,
    ) -> Callable[[Callable[P, R]], Reaction[P, R]]:
        """Subscribe the decorated function to an event class, or to a topic by its name.

        The function stays what it was: a unit test calls it without a broker. Its return annotation declares
        what it emits: an event class, several joined by `|`, a `list` or `tuple` of them, or None.
        `retry`: see `Retry`; `attempts_max=n` is short for `Retry(attempts=n)`.
        `retry="never"`: what it does is not safe to do twice, so an attempt whose fate is unknown is not repeated.
        Raises `WrongDeclaration`.
        """
        caller = sys._getframe(1).f_locals

        def declare(handler: Callable[P, R]) -> Reaction[P, R]:
            where = f"agent {self.name}, {getattr(handler, '__qualname__', handler)}"
            subscription = _declared(
                where,
                event,
                handler,
                (require,) if isinstance(require, Requirement) else tuple(require),
                _kind(where, pure=pure, pivot=pivot, retriable=retriable),
                timeout_seconds,
                _policy(where, retry, attempts_max),
                retry != "never",
                caller,
            )
            taken = self._subscriptions.get(subscription.name)
            if taken is not None:
                raise WrongDeclaration(
                    f"{where}: {subscription.event_type} already has the handler {_name(taken.handler)}; one agent handles an event once"
                )
            self._subscriptions[subscription.name] = subscription
            reaction = cast("Reaction[P, R]", handler)
            reaction.undo = partial(self._undone_by, where, subscription.name, caller)  # type: ignore[method-assign]
            return reaction

        return declare

    def _undone_by(self, where: str, name: str, caller: Mapping[str, Any], undo: H) -> H:
        subscription = self._subscriptions[name]
        if subscription.undo is not None:
            raise WrongDeclaration(f"{where}: expected one undo, found a second one, {_name(undo)}")
        if subscription.kind is not Kind.EVENTS:
            raise WrongDeclaration(f"{where}: expected an undo for a step that can be taken back, found one that is {subscription.kind}")
        parameters = _parameters(undo)
        hints = _hints(where, undo, caller) if len(parameters) > 1 else {}
        wants = tuple(UndoWants.CONTEXT if hints.get(each.name) is Context else UndoWants.EMITTED for each in parameters[1:])
        if not parameters or len(wants) > len(set(wants)):
            raise WrongDeclaration(
                f"{where}: expected (event), and after it (emitted), (context: Context) or both, as parameters of its undo {_name(undo)}"
            )
        self._subscriptions[name] = replace(subscription, kind=Kind.UNDO, undo=undo, undo_wants=wants)
        return undo

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
            mentioned = subscription.emits if subscription.event_class is None else (subscription.event_class, *subscription.emits)
            for event in mentioned:
                other = classes.setdefault(event.event_type, event)
                if other is not event:
                    raise WrongDeclaration(
                        f"agent {self.name}: {event.event_type} is declared by two classes, {_name(other)} and {_name(event)}"
                    )
        return classes

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


def _declared(
    where: str,
    event: object,
    handler: Handler,
    requires: tuple[Requirement, ...],
    kind: Kind,
    timeout_seconds: float,
    retry: Retry,
    repeats: bool,
    caller: Mapping[str, Any],
) -> Subscription:
    event_class: type[Event] | None = None
    if isinstance(event, str):
        event_type = _topic(where, event)
    elif isinstance(event, type) and issubclass(event, Event) and hasattr(event, "event_type"):
        event_class, event_type = event, event.event_type
    else:
        raise WrongDeclaration(f"{where}: expected an event class or a topic name, found {event!r}")
    if timeout_seconds <= 0:
        raise WrongDeclaration(f"{where}: expected timeout_seconds > 0, found {timeout_seconds}")
    parameters = _parameters(handler)
    if not 1 <= len(parameters) <= 2:
        raise WrongDeclaration(f"{where}: expected (event) or (event, context) as parameters, found {len(parameters)} of them")
    hints = _hints(where, handler, caller)
    announced = hints.get(parameters[0].name)
    if isinstance(announced, type) and issubclass(announced, Event) and announced is not event_class:
        raise WrongDeclaration(f"{where}: subscribes to {event_type} but its first parameter is a {announced.__name__}")
    if len(parameters) == 2 and hints.get(parameters[1].name, Context) is not Context:
        raise WrongDeclaration(f"{where}: expected the second parameter to be a Context, found {hints[parameters[1].name]!r}")
    if "return" not in hints:
        raise WrongDeclaration(
            f"{where}: expected a return annotation with the events it emits (-> None when it emits nothing), found none"
        )
    emits = tuple(_emitted(where, hints["return"]))
    if event_class is not None:
        for requirement in requires:
            _check_field(where, event_class, requirement)
    return Subscription(
        event_type, event_class, handler, emits, requires, kind,
        len(parameters) == 2, inspect.iscoroutinefunction(handler), timeout_seconds, retry, repeats,
        may_emit_nothing=_allows_nothing(hints["return"]),
    )  # fmt: skip


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


def _check_field(where: str, event_class: type[Event], requirement: Requirement) -> None:
    first = requirement.field.partition(".")[0]
    if first not in event_class.model_fields:
        fields = ", ".join(event_class.model_fields)
        raise WrongDeclaration(f"{where}: requires {requirement}, but {event_class.__name__} has no field {first!r}; it has {fields}")


def _name(thing: object) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', thing)}"
