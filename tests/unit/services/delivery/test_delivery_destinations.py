from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.services.delivery.destinations import DestinationRefused, ToAddress, ToFolder, destination, file_name

DEFAULT = Path("/home/reports")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, ToFolder(DEFAULT)),
        ("  ", ToFolder(DEFAULT)),
        ("/tmp/out", ToFolder(Path("/tmp/out"))),
        ("file:///tmp/out", ToFolder(Path("/tmp/out"))),
        ("http://127.0.0.1:8000/in", ToAddress("http://127.0.0.1:8000/in")),
        ("HTTPS://example.org", ToAddress("HTTPS://example.org")),
    ],
)
def test_a_destination_is_a_folder_or_an_address(asked: str | None, expected: object) -> None:
    assert destination(asked, DEFAULT) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("reports", "expected an absolute folder, found 'reports': the agent does not know which folder you are in"),
        ("~/reports", "expected an absolute folder, found '~/reports'"),
        ("ftp://host/x", "expected an absolute folder or an http"),
        ("file://elsewhere/x", "expected an absolute folder or an http"),
        ("http:///x", "found no host in 'http:///x'"),
        ("http://[::1", "cannot read"),
        ("http://host:port/", "cannot read"),
        ("/tmp/\0", "zero byte"),
    ],
)
def test_a_destination_that_cannot_work_is_refused_with_the_reason(asked: str, message: str) -> None:
    with pytest.raises(DestinationRefused) as refused:
        destination(asked, DEFAULT)
    assert message in str(refused.value)


def test_secrets_of_an_address_are_not_shown() -> None:
    assert ToAddress("https://user:secret@host:8443/in?token=secret#x").shown == "https://host:8443/in"


def test_a_file_is_named_after_the_question_and_the_flow() -> None:
    assert file_name("What's the “with” statement? Ärger!", "flow-1") == "whats-the-with-statement-arger-e865168f.md"
    assert file_name("How?", "1f3a9c2e-0000-5000-8000-000000000000") == "how-1f3a9c2e.md"
    assert file_name("日本語", "flow-1").startswith("report-")
    assert file_name("Same?", "flow-1") != file_name("Same?", "flow-2")


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_file_name_is_plain_and_short_for_any_question(question: str, flow: str) -> None:
    name = file_name(question, flow)
    assert name.isascii()
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert len(name) <= 73
