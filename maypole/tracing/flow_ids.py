"""Ids of spans: a flow's root gets the derived ones, every other span random ones."""

from __future__ import annotations

import os
import random
from contextvars import ContextVar
from typing import Final

from opentelemetry.sdk.trace.id_generator import IdGenerator

from maypole.schemas.identifiers import FlowId, root_span_id_of, trace_id_of

# Not the interpreter's shared generator: a program that seeds that one would give the spans of two processes one id.
_RANDOM: Final = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_RANDOM.seed)


class FlowIds(IdGenerator):
    """The SDK asks for the ids of a root without saying whose root it is; `deriving` tells it in advance."""

    def __init__(self) -> None:
        self._root: ContextVar[tuple[int, int] | None] = ContextVar("maypole-root", default=None)

    def derive(self, flow: FlowId) -> None:
        """The next span that this task or thread starts is the flow's root."""
        self._root.set((int(trace_id_of(flow), 16), int(root_span_id_of(flow), 16)))

    def forget(self) -> None:
        self._root.set(None)

    def generate_trace_id(self) -> int:
        root = self._root.get()
        return root[0] if root is not None else _RANDOM.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        root = self._root.get()
        return root[1] if root is not None else _RANDOM.getrandbits(64) or 1
