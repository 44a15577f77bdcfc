"""The schema that fastavro is given: the same bytes, without what it reads loosely.

Logical types are left out and enums are plain numbers (both are converted in `resolution`, where a negative or unknown
index is refused). A union of several types is read through one-field records, which take no bytes of their own and name
the branch that was on the wire: Python values alone do not tell a string from an enum, or two records apart.
"""

from __future__ import annotations

from typing import Any

from fastavro import parse_schema

from maypole.schemas.nodes import Array, Enum, Fixed, Kind, Map, Node, Primitive, Record, Union, is_null


def physical(node: Node) -> Any:
    """The parsed schema for fastavro's schemaless reader and writer."""
    return parse_schema(_Layout().of(node))


class _Layout:
    def __init__(self) -> None:
        self._names = 0

    def of(self, node: Node) -> Any:
        match node:
            case Primitive(kind):
                return kind.value
            case Enum():
                return Kind.LONG.value
            case Fixed(size=size):
                return {"type": "fixed", "name": self._name(), "size": size}
            case Array(items):
                return {"type": "array", "items": self.of(items)}
            case Map(values):
                return {"type": "map", "values": self.of(values)}
            case Record(fields=fields):
                name = self._name()
                return {"type": "record", "name": name, "fields": [{"name": f.name, "type": self.of(f.type)} for f in fields]}
            case Union(branches):
                if node.optional is not None:
                    return [self.of(branch) for branch in branches]
                return [self._branch(index, branch) for index, branch in enumerate(branches)]

    def _branch(self, index: int, branch: Node) -> Any:
        if is_null(branch):
            return "null"
        return {"type": "record", "name": self._name(), "fields": [{"name": f"b{index}", "type": self.of(branch)}]}

    # Every occurrence gets a name of its own: the tree has no references.
    def _name(self) -> str:
        self._names += 1
        return f"n{self._names}"
