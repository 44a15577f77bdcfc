"""What the signatures of a handler and of its undo declare: which events they take, and which they emit."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from maypole.bus.context import Context
from maypole.bus.joining import Trigger
from maypole.bus.subscription import Handler, Subscription, UndoWants, WrongDeclaration
from maypole.schemas.event import Event


def handled_by(
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


def undo_wants(
    where: str, subscription: Subscription, what: str, function: Handler, caller: Mapping[str, Any]
) -> tuple[tuple[UndoWants, ...], bool]:
    """What it takes beside the events, and whether what was emitted may be None."""
    parameters, parts = _parameters(function), len(subscription.triggers)
    hints = _hints(where, function, caller) if len(parameters) > parts else {}
    wants = tuple(UndoWants.CONTEXT if hints.get(each.name) is Context else UndoWants.EMITTED for each in parameters[parts:])
    if len(parameters) < parts or len(wants) > len(set(wants)):
        raise WrongDeclaration(
            f"{where}: expected ({_shape(subscription.triggers)}), and after it (emitted), (context: Context) or both, "
            f"as parameters of its {what} {name_of(function)}"
        )
    asked = [hints.get(each.name, Any) for each, want in zip(parameters[parts:], wants, strict=True) if want is UndoWants.EMITTED]
    return wants, all(hint in (Any, object) or type(None) in typing.get_args(hint) for hint in asked)


def name_of(thing: object) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', thing)}"


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


def _shape(triggers: Sequence[Trigger]) -> str:
    """As a signature would name them: `event`, or `score_ready, income_verified`."""
    return "event" if len(triggers) == 1 else ", ".join(re.sub(r"\W", "_", trigger.event_type) for trigger in triggers)


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
