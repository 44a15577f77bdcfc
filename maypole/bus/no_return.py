"""May a flow of this choreography always be finished or taken back? Checked before a flow is pinned to it.

A pivot is a point of no return. What may have acted when it is passed must be needed by it (so it is over by then) and undoable
until then; what acts after it must be retriable; what acts without ever meeting a pivot must be undoable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from maypole.bus.choreography import RETRIABLE, Choreography, Reaction


class NoWayBack(ValueError):
    """A flow pinned to this choreography could be left half done. Says which step, why, and by which path."""


class NoPivot(NoWayBack):
    """A retriable step may act before any pivot; or the root is none, and lies behind a pivot whose agent nobody has announced."""


def check_way_back(choreography: Choreography) -> None:
    """Raises `NoWayBack`. A type that several reactions emit may come from any of them, so what is refused is a possibility."""
    pivots = [reaction for reaction in choreography.reactions if reaction.is_pivot]
    before = _reached(choreography, without=pivots)
    for reaction, path in before.items():
        if reaction.acts_outside and not reaction.undoable and not reaction.is_pivot:
            refused = NoPivot if reaction.kind == RETRIABLE else NoWayBack
            raise refused(
                f"{_name(reaction)} is {reaction.kind}, but may act before any pivot: expected an undo. "
                f"The path: {_told(choreography, path)}"
            )
    for reaction, path in _reached(choreography).items():
        if reaction.optional and reaction.is_pure and choreography.downstream[reaction]:
            raise NoWayBack(
                f"{_name(reaction)} is optional and pure, and others follow it: when it failed, nothing keeps another attempt from "
                f"leading on. Expected one of the two. The path: {_told(choreography, path)}"
            )
    for pivot in pivots:
        _check_after(choreography, pivot)
        if pivot in before:
            _check_beside(choreography, pivot, before)


def _check_after(choreography: Choreography, pivot: Reaction) -> None:
    for reaction, path in _reached(choreography, after=pivot).items():
        if reaction.acts_outside and reaction.kind != RETRIABLE:
            raise NoWayBack(
                f"{_name(reaction)} acts after the pivot {_name(pivot)} and is {reaction.kind}: expected retriable, because there is "
                f"no way back. The path: {_told(choreography, path)}"
            )


def _check_beside(choreography: Choreography, pivot: Reaction, before: Mapping[Reaction, tuple[Reaction, ...]]) -> None:
    for reaction, path in before.items():
        if reaction is pivot or not reaction.acts_outside:
            continue
        around = _reached(choreography, without=[reaction]).get(pivot)
        if around is not None:
            raise NoWayBack(
                f"{_name(reaction)} may still act when the pivot {_name(pivot)} does, and could not be undone then. Its path: "
                f"{_told(choreography, path)}; the pivot's, which does not need it: {_told(choreography, around)}"
            )


def _reached(
    choreography: Choreography, *, without: Iterable[Reaction] = (), after: Reaction | None = None
) -> dict[Reaction, tuple[Reaction, ...]]:
    """What can run, with a path to each, when the reactions in `without` may begin and never end.

    `after`: what can run once this one has ended, other parts of joins taken to be there.
    """
    silent = frozenset(without)
    found: dict[Reaction, tuple[Reaction, ...]] = {}
    there: dict[str, tuple[Reaction, ...]] = {choreography.root: ()} if after is None else dict.fromkeys(after.emits, (after,))
    grown = True
    while grown:
        grown = False
        for reaction in choreography.reactions:
            parts = [there[of_type] for of_type in reaction.on if of_type in there]
            if reaction in found or not parts or (after is None and len(parts) < len(reaction.on)):
                continue
            grown = True
            found[reaction] = (*max(parts, key=len), reaction)
            if reaction not in silent:
                for emitted in reaction.emits:
                    there.setdefault(emitted, found[reaction])
    return found


def _name(reaction: Reaction) -> str:
    return f"{reaction.agent} on {reaction.subscription}"


def _told(choreography: Choreography, path: tuple[Reaction, ...]) -> str:
    return " -> ".join((choreography.root, *map(_name, path)) if choreography.root in path[0].on else map(_name, path))
