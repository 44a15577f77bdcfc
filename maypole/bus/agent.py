"""Declaring agents: which events they subscribe to, what they require of them, and what they may emit."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from maypole.bus.breaker import Breaker
from maypole.bus.declaring import check_fallback, declared, kind_of, optional_of, policy_of, within_ms_of
from maypole.bus.fallbacks import degrades
from maypole.bus.joining import AllOf, Require
from maypole.bus.retry import ATTEMPTS_DEFAULT, Retry, hops
from maypole.bus.signatures import handled_by, name_of, undo_wants
from maypole.bus.subscription import UNDO_RETRY, Handler, Kind, Subscription, WrongDeclaration, by_topic
from maypole.schemas.event import Event

H = TypeVar("H", bound=Handler)
P = ParamSpec("P")
R = TypeVar("R", covariant=True)

TIMEOUT_SECONDS_DEFAULT: Final = 300.0
_BREAKER_DEFAULT: Final = Breaker()
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_NAME_MAX: Final = 63
_NO_PART_OF_A_NAME: Final = re.compile(r"[^a-z0-9_-]")
_RESERVED: Final = frozenset({"maypole"})


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


class Agent:
    """An independent consumer. Its name is its consumer group, its service name in traces and part of its steps' identities."""

    def __init__(self, name: str, *, version: str = "1", concurrency: int = 64, dependencies: Mapping[str, Breaker] | None = None) -> None:
        """`concurrency`: how many flows one process works on at the same time.

        `dependencies`: the breakers of what `context.dependency(name)` names; one that is not named here has the defaults.
        """
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise WrongDeclaration(
                f"agent {name!r}: expected a name of at most 63 lower-case letters, digits, - and _ that starts with a letter (and is not "
                f"'maypole'), found {_found_in(name)}"
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
        optional: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT,
        attempts_max: int = ATTEMPTS_DEFAULT,
        retry: Retry | Literal["never"] | None = None,
        breaker: Breaker | Literal["off"] | None = _BREAKER_DEFAULT,
    ) -> Callable[[Callable[P, R]], Reaction[P, R]]:
        """Subscribe the decorated function to an event class, to a topic by its name, or to several together: `all_of(A, B)`.

        The function stays what it was: a unit test calls it without a broker. Its return annotation declares
        what it emits: an event class, several joined by `|`, a `list` or `tuple` of them, or None.
        `within`, of a join: how long it waits once the first of its events is there, as `30s`, `5m` or `1h`. Without it the join
        waits as long as the flow lives. `optional`: a flow goes on without it when it failed for good and changed nothing outside.
        `require`: of a join by part, `{ScoreReady: at_least("score", 300)}`.
        `retry`: see `Retry`; `attempts_max=n` is short for `Retry(attempts=n)`.
        `retry="never"`: what it does is not safe to do twice, so an attempt whose fate is unknown is not repeated.
        `breaker`: when its failures are an outage, and what is done until it is over; None or "off": never.
        Raises `WrongDeclaration`.
        """
        caller = sys._getframe(1).f_locals

        def declare(handler: Callable[P, R]) -> Reaction[P, R]:
            where = f"agent {self.name}, {getattr(handler, '__qualname__', handler)}"
            subscription = declared(
                where,
                event,
                handler,
                require,
                within_ms_of(where, event, within),
                kind_of(where, pure=pure, pivot=pivot, retriable=retriable),
                optional_of(where, optional, pivot=pivot),
                timeout_seconds,
                policy_of(where, retry, attempts_max),
                retry != "never",
                None if breaker == "off" else breaker,
                caller,
            )
            taken = by_topic(self.subscriptions)
            for event_type in subscription.event_types:
                if event_type in taken:
                    other = name_of(taken[event_type].handler)
                    raise WrongDeclaration(f"{where}: {event_type} already has the handler {other}; one agent handles an event once")
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
            raise WrongDeclaration(f"{where}: expected one undo, found a second one, {name_of(undo)}")
        if subscription.kind is not Kind.EVENTS:
            raise WrongDeclaration(f"{where}: expected an undo for a step that can be taken back, found one that is {subscription.kind}")
        wants, copes = undo_wants(where, subscription, "undo", undo, caller)
        undoable = _also_expired(replace(subscription, kind=Kind.UNDO, undo=undo, undo_wants=wants, undo_copes=copes, undo_retry=retry))
        check_fallback(where, undoable)
        self._subscriptions[name] = undoable
        return undo

    def _verified_by(self, where: str, name: str, caller: Mapping[str, Any], verify: H) -> H:
        subscription = self._subscriptions[name]
        if subscription.undo is None or subscription.verify is not None:
            found = "none before it" if subscription.undo is None else "a second one"
            raise WrongDeclaration(f"{where}: expected one verify, after the undo that it is about, found {found}: {name_of(verify)}")
        wants, copes = undo_wants(where, subscription, "verify", verify, caller)
        copes = copes and subscription.undo_copes
        self._subscriptions[name] = replace(subscription, verify=verify, verify_wants=wants, undo_copes=copes)
        return verify

    def _expired_by(self, where: str, name: str, caller: Mapping[str, Any], handler: H) -> H:
        subscription = self._subscriptions[name]
        if subscription.within_ms is None:
            raise WrongDeclaration(f"{where}: expected a join with a time, all_of(...) and within='30s', found none that could expire")
        if subscription.expiry is not None:
            raise WrongDeclaration(f"{where}: expected one handler of its expiry, found a second one, {name_of(handler)}")
        where = f"{where}, its expiry {name_of(handler)}"
        expiry = handled_by(where, subscription, handler, caller, missing=True)
        emits = tuple(dict.fromkeys((*subscription.emits, *expiry.emits)))
        self._subscriptions[name] = replace(subscription, emits=emits, expiry=expiry)
        return handler

    def declaration(self) -> dict[str, Any]:
        """The agent as data: what it announces in the catalog."""
        if not self._subscriptions:
            raise WrongDeclaration(f"agent {self.name} subscribes to nothing; expected at least one @{self.name}.on(...)")
        told = {
            "name": self.name,
            "version": self.version,
            "subscriptions": [subscription.declaration() for _, subscription in sorted(self._subscriptions.items())],
        }
        classes = sorted(self.event_classes().items())
        deadlines = {name: event.deadline_seconds for name, event in classes if event.deadline_seconds is not None}
        return {**told, "deadlines": deadlines} if deadlines else told

    def event_classes(self) -> dict[str, type[Event]]:
        """Every event class it mentions, by type. Raises `WrongDeclaration` when two classes claim one type."""
        classes: dict[str, type[Event]] = {}
        for subscription in self.subscriptions:
            handled = [trigger.event_class for trigger in subscription.triggers if trigger.event_class is not None]
            for event in (*handled, *subscription.emits):
                other = classes.setdefault(event.event_type, event)
                if other is not event:
                    raise WrongDeclaration(
                        f"agent {self.name}: {event.event_type} is declared by two classes, {name_of(other)} and {name_of(event)}"
                    )
        return classes

    def with_handlers(self, handler_of: Callable[[Subscription], Handler]) -> Agent:
        """The same agent with other handlers, for whoever watches what handlers do."""
        other = Agent(self.name, version=self.version, concurrency=self.concurrency, dependencies=self.dependencies)
        other._subscriptions = {name: replace(each, handler=handler_of(each)) for name, each in self._subscriptions.items()}
        return other

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"


def _also_expired(subscription: Subscription) -> Subscription:
    """Its expiry is of the same kind and is taken back by the same undo."""
    expiry = subscription.expiry
    if expiry is None:
        return subscription
    expiry = replace(expiry, kind=subscription.kind, undo=subscription.undo, undo_wants=subscription.undo_wants)
    return replace(subscription, expiry=expiry)


def _found_in(name: str) -> str:
    """What keeps it from being an agent's name."""
    if len(name) > _NAME_MAX:
        return f"{len(name)} characters"
    wrong = [*dict.fromkeys(_NO_PART_OF_A_NAME.findall(name))]
    if wrong or name in _RESERVED:
        return ", ".join(map(repr, wrong or [name]))
    return f"that it starts with {name[0]!r}" if name else "nothing"
