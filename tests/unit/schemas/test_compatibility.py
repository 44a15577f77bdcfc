"""What our own resolution check says about pairs of schemas."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from maypole.schemas.avro import Schema
from maypole.schemas.compatibility import explain, explain_all
from maypole.schemas.errors import Undecodable
from maypole.schemas.physical import physical
from maypole.schemas.resolution import conversion
from tests.unit.schemas.verdicts import VERDICTS, Verdict, field, one, record


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.name)
def test_a_pair_is_readable_or_the_place_is_named(verdict: Verdict) -> None:
    problems = explain(Schema.parse(verdict.reader), Schema.parse(verdict.writer))

    assert not problems if verdict.readable else [problem.path for problem in problems] == [verdict.path]


@pytest.mark.parametrize("verdict", [v for v in VERDICTS if v.readable], ids=lambda verdict: verdict.name)
def test_what_the_check_calls_readable_is_read(verdict: Verdict) -> None:
    writer, reader = Schema.parse(verdict.writer), Schema.parse(verdict.reader)
    convert = conversion(writer.node, reader.node, frozen=True)
    datum = {f["name"]: _sample(f["type"]) for f in verdict.writer["fields"]}
    out = BytesIO()
    schemaless_writer(out, parse_schema(verdict.writer), datum)

    from fastavro import schemaless_reader

    found: Any = schemaless_reader(BytesIO(out.getvalue()), physical(writer.node), None)
    read = convert(found) if convert else found

    assert set(read) == {f["name"] for f in verdict.reader["fields"]}


@pytest.mark.parametrize("verdict", [v for v in VERDICTS if not v.readable and v.path.count("[") == 0], ids=lambda verdict: verdict.name)
def test_what_the_check_refuses_is_never_read_for_every_value(verdict: Verdict) -> None:
    writer, reader = Schema.parse(verdict.writer), Schema.parse(verdict.reader)
    if any(isinstance(f["type"], list) or "symbols" in f["type"] for f in verdict.writer["fields"]) and "string" not in verdict.name:
        return  # depends on the branch or symbol that was written
    with pytest.raises(Undecodable):
        conversion(writer.node, reader.node, frozen=True)


def test_every_earlier_version_must_be_readable_not_only_the_last() -> None:
    first = Schema.parse(one("string"))
    second = Schema.parse(record(field("string"), field("long", "b", default=0)))
    third = Schema.parse(record(field("string"), field("long", "b")))

    assert not explain(third, second)
    assert [(name, problem.path) for name, problem in explain_all(third, [("1", first), ("2", second)])] == [("1", "b")]


def test_a_default_of_the_wrong_type_is_no_default() -> None:
    (problem,) = explain(Schema.parse(record(field("string"), field("long", "b", default="x"))), Schema.parse(one("string")))

    assert str(problem) == "b: expected a default of the field's own type, found expected a default that is a long, found x"


def _sample(declared: Any) -> Any:
    match declared:
        case [*branches]:
            return _sample(branches[-1])
        case {"type": "enum", "symbols": symbols}:
            return symbols[-1]
        case {"type": "fixed", "size": size}:
            return b"x" * size
        case {"type": "array", "items": items}:
            return [_sample(items)]
        case {"type": "map", "values": values}:
            return {"key": _sample(values)}
        case {"type": "record", "fields": fields}:
            return {f["name"]: _sample(f["type"]) for f in fields}
        case {"logicalType": "decimal"}:
            return b"\x05"
        case {"type": inner}:
            return _sample(inner)
    return {"null": None, "boolean": True, "int": 1, "long": 1, "float": 1.0, "double": 1.0, "bytes": b"b", "string": "s"}[declared]
