"""The text of a new agent and of its test: the smallest of each that does something with its event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from maypole.schemas.event import Event, record_name
from maypole.schemas.nodes import Kind, Primitive, Record
from maypole.services.cli.event_types import EventType
from maypole.services.cli.examples import example, example_value
from maypole.services.cli.problems import ExitCode, Problem

_SIMPLE: Final[dict[object, str]] = {str: "str", int: "int", float: "float", bool: "bool"}
_AVRO: Final = {Kind.STRING: "str", Kind.LONG: "int", Kind.INT: "int", Kind.DOUBLE: "float", Kind.FLOAT: "float", Kind.BOOLEAN: "bool"}


@dataclass(frozen=True, slots=True)
class Carried:
    """What the emitted event takes over: a field, its type, and how the handler gets it from its event."""

    field: str
    type: str
    expression: str


@dataclass(frozen=True, slots=True)
class Draft:
    """`on` is None where nobody knows the type yet: the handler then gets whatever fields there are."""

    name: str
    on_name: str
    on: EventType | None
    emits_name: str
    emits: EventType | None

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def handler(self) -> str:
        return "react" if self.module != "react" else "respond"

    @property
    def output(self) -> str:
        if self.emits is not None and self.emits.event_class is not None:
            return self.emits.event_class.__name__
        return record_name(self.emits_name)[1]

    @property
    def _input(self) -> type[Event] | None:
        return None if self.on is None else self.on.event_class

    def carried(self) -> list[Carried]:
        """Raises `Problem` when the emitted type is a shipped one that the event cannot fill."""
        if self.emits is not None and self.emits.event_class is not None:
            return self._filled(self.emits.event_class)
        if self._input is not None:
            simple = [(name, kind) for name, field in self._input.model_fields.items() if (kind := _SIMPLE.get(field.annotation))]
            for name, kind in sorted(simple, key=lambda entry: entry[1] != "str"):
                return [Carried(name, kind, f"event.{name}")]
        elif self.on is not None and isinstance(self.on.schema.node, Record):
            for field in self.on.schema.node.fields:
                if isinstance(field.type, Primitive) and field.type.logical is None and field.type.kind in _AVRO:
                    return [Carried(field.name, _AVRO[field.type.kind], f'event["{field.name}"]')]
        return [Carried("about", "str", '", ".join(sorted(event))' if self._input is None else f'"{self.on_name}"')]

    def _filled(self, output: type[Event]) -> list[Carried]:
        given = {} if self._input is None else {name: field.annotation for name, field in self._input.model_fields.items()}
        filled = []
        for name, field in output.model_fields.items():
            if name in given and given[name] == field.annotation:
                filled.append(Carried(name, "", f"event.{name}"))
            elif field.is_required():
                raise Problem(
                    f"{self.emits_name} ships with Maypole as {output.__module__}.{output.__name__}, and {self.on_name} has nothing "
                    f"for its field {name!r}; expected a type of your own",
                    ExitCode.USAGE,
                )
        return filled

    def agent(self) -> str:
        """At most fifteen lines that are not blank."""
        own = self.emits is None or self.emits.event_class is None
        carried = self.carried()
        typed = self._input.__name__ if self._input is not None else "Mapping[str, Any]"
        lines = [f'"""Reacts to {self.on_name} with {self.emits_name}."""', ""]
        if self._input is None:
            lines += ["from collections.abc import Mapping", "from typing import Any", ""]
        lines += [
            f"from maypole.bus import Agent{', Event' if own else ''}",
            *self._imports(),
            "",
            f'{self.module} = Agent("{self.name}")',
            "",
            "",
        ]
        if own:
            fields = [f"    {each.field}: {each.type}" for each in carried]
            lines += [f'class {self.output}(Event, type="{self.emits_name}"):', *fields, "", ""]
        subscribed = self._input.__name__ if self._input is not None else f'"{self.on_name}"'
        lines += [
            f"@{self.module}.on({subscribed})",
            f"async def {self.handler}(event: {typed}) -> {self.output}:",
            f"    return {self.output}({', '.join(f'{each.field}={each.expression}' for each in carried)})",
        ]
        return "\n".join(lines) + "\n"

    def test(self) -> str:
        """Calls the handler as the function it is; with a class to publish, also runs the agent on a broker in memory."""
        own = self.emits is None or self.emits.event_class is None
        local = [self.handler, *([self.output] if own else []), *([self.module] if self._input is not None else [])]
        shipped = [*(["from maypole.bus.testing import Choreography"] if self._input is not None else []), *self._imports()]
        lines = [f'"""No broker is needed: python -m pytest test_{self.module}.py"""', "", "import asyncio", ""]
        lines += [*shipped, *([""] if shipped else []), f"from {self.module} import {', '.join(sorted(local))}", ""]
        lines += [*self._example(), "", ""]
        lines += [
            f"def test_{self.module}_answers_{self.on_name.replace('.', '_').replace('-', '_')}():",
            f"    emitted = asyncio.run({self.handler}(EVENT))",
            f"    assert isinstance(emitted, {self.output})",
            f'    assert emitted.event_type == "{self.emits_name}"',
        ]
        if self._input is not None:
            lines += [
                "",
                "",
                f"def test_{self.module}_takes_part_in_a_flow():",
                "    async def types():",
                f"        async with Choreography([{self.module}]) as world:",
                "            flow = await world.publish(EVENT)",
                '            assert await flow.finished() == "committed"',
                "            return flow.types",
                "",
                f'    assert asyncio.run(types()) == ("{self.on_name}", "{self.emits_name}")',
            ]
        return "\n".join(lines) + "\n"

    def _example(self) -> list[str]:
        if self.on is None:
            return ['EVENT = {"text": "an example"}']
        if self._input is None:
            return [f"EVENT = {example_value(self.on.schema)!r}".replace("'", '"')]
        return [f'EXAMPLE = r"""{example(self.on.schema)}"""', f"EVENT = {self._input.__name__}.model_validate_json(EXAMPLE)"]

    def _imports(self) -> list[str]:
        """Of the event classes that ship with Maypole, sorted as ruff sorts them."""
        shipped = [each.event_class for each in (self.on, self.emits) if each is not None and each.event_class is not None]
        modules: dict[str, list[str]] = {}
        for event_class in shipped:
            modules.setdefault(event_class.__module__, []).append(event_class.__name__)
        return [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(modules.items())]
