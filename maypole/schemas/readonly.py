"""A mapping that nobody can change: how mappings inside events, and events read without a class, are handed out."""

from __future__ import annotations

from typing import Any, Final, NoReturn, TypeVar

V = TypeVar("V")

_REFUSAL: Final = "events are immutable: build a new mapping, e.g. {**mapping, key: value}"


class ReadOnly(dict[str, V]):
    """A dict without its mutators. Hashable if its values are; equal to any dict of the same items; picklable.

    It is a dict, not a wrapper around one, so that the Avro writer, pydantic and json take it at full speed.
    """

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(_REFUSAL)

    __setitem__ = __delitem__ = _refuse
    __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return dict.__repr__(self)

    # The default protocol fills a dict item by item, through the very methods that are refused here.
    def __reduce__(self) -> tuple[type[ReadOnly[V]], tuple[dict[str, V]]]:
        return type(self), (dict(self),)

    def __copy__(self) -> ReadOnly[V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ReadOnly[V]:
        return self
