"""Data on standard output: an aligned table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import click

Form = Literal["table", "json", "jsonl"]
F = TypeVar("F", bound=Callable[..., Any])


def output_option(function: F) -> F:
    forms = click.Choice(["table", "json", "jsonl"])
    return click.option("-o", "--output", "form", type=forms, default="table", show_default=True, help="How data is printed.")(function)


def print_rows(rows: Sequence[Mapping[str, Any]], form: Form, columns: Mapping[str, str]) -> None:
    """`columns`: which fields a table shows, and their headings. JSON has every field."""
    match form:
        case "json":
            click.echo(as_json(list(rows), indent=2))
        case "jsonl":
            for row in rows:
                click.echo(as_json(row))
        case "table" if rows:
            for line in table([[cell(row.get(name)) for name in columns] for row in rows], list(columns.values())):
                click.echo(line)


def print_object(value: Mapping[str, Any], form: Form) -> None:
    """One thing: its fields below each other, or one JSON object."""
    if form == "table":
        width = max((len(name) for name in value), default=0)
        for name, found in value.items():
            click.echo(f"{click.style(name.ljust(width), dim=True)}  {cell(found)}")
    else:
        click.echo(as_json(value, indent=2 if form == "json" else None))


def warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {warning}", err=True)


def as_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def cell(value: object) -> str:
    match value:
        case None | () | [] | "":
            return "-"
        case dict():
            return ", ".join(f"{name} {found}" for name, found in value.items()) or "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(str, value))
    return str(value)


def table(rows: Iterable[Sequence[str]], headings: Sequence[str]) -> list[str]:
    """Lines with aligned columns; the last column is as wide as it likes, and numbers stand right."""
    body = [[" ".join(text.split()) if "\n" in text else text for text in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(headings), *body]) for index in range(len(headings))]
    numeric = [_all_numbers([row[index] for row in body]) for index in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in zip(cells, widths, numeric, strict=True)]
        return "  ".join(padded).rstrip()

    return [click.style(line(headings), bold=True), *map(line, body)]


def _all_numbers(cells: Sequence[str]) -> bool:
    return any(cell != "-" for cell in cells) and all(cell == "-" or cell.replace(".", "", 1).isdigit() for cell in cells)
