"""`StepCompleted` written from a template: it is made for every step, and most of it is the same for a subscription.

What differs are ids and digests, so the rest is encoded once. A test holds the bytes equal to the codec's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.journal import Effect, StepCompleted

_NO_PARENT: Final = "x"


class CompletionTemplate:
    """The values of one subscription's `StepCompleted` records. Source of the layout: Avro 1.12, binary encoding."""

    def __init__(self, agent: str, subscription: str, effect: Effect) -> None:
        writer = Writer(StepCompleted, schema_of(StepCompleted).derived_id)
        whole = writer.encode(
            StepCompleted(step_id="s", agent=agent, subscription=subscription, parents=(_NO_PARENT,), effect=effect, outputs=(), undo=None)
        )
        names = _text(agent) + _text(subscription)
        start = whole.index(_text("s") + names)
        parents = _count(1) + _text(_NO_PARENT) + _END
        self._before = whole[:start]
        self._names = names
        end = start + len(_text("s") + names + parents)
        # What is left of the record: the effect, no outputs, no undo payload.
        self._effect = whole[end:-2]
        self._undo = whole[-1:]

    def value(self, step_id: str, parents: Sequence[str], outputs: Sequence[tuple[str, str, bytes]]) -> bytes:
        """`outputs` are event id, type and digest of each event emitted, in order."""
        if len(parents) == 1 and len(outputs) == 1:  # what nearly every step is
            event_id, event_type, digest = outputs[0]
            told = (_text(step_id), self._names, _ONE, _text(parents[0]), _END, self._effect, _ONE)
            return b"".join((self._before, *told, _text(event_id), _constant(event_type), _LENGTHS[len(digest)], digest, _END, self._undo))
        parts = [self._before, _text(step_id), self._names, _count(len(parents)), *map(_text, parents), _END, self._effect]
        if outputs:
            parts.append(_count(len(outputs)))
            for event_id, event_type, digest in outputs:
                parts += (_text(event_id), _constant(event_type), _LENGTHS[len(digest)], digest)
        parts += (_END, self._undo)
        return b"".join(parts)


_END: Final = b"\x00"


def _text(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    return (_LENGTHS[length] if length < len(_LENGTHS) else _count(length)) + data


def _count(number: int) -> bytes:
    """A length as Avro writes it: zigzag, then seven bits a byte, the lowest first."""
    rest = number << 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LENGTHS: Final = [_count(length) for length in range(256)]
"""Of ids, names and digests, which are short."""

_ONE: Final = _LENGTHS[1]

_constant = lru_cache(maxsize=4096)(_text)
