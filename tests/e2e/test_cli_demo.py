"""`maypole demo` on a machine where nothing runs."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import time
from pathlib import Path

import pytest

from maypole.schemas.identifiers import FlowId, trace_id_of
from tests.support.commands import MAYPOLE, Desk

SECONDS_MAX = 10


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, {})


def _text(path: Path) -> str:
    return path.read_text()


def told(out: str, name: str) -> str:
    found = re.search(rf"^{name} +(\S+)$", out, re.MULTILINE)
    assert found is not None, out
    return found[1]


async def test_the_demo_turns_a_question_into_a_cited_report(desk: Desk) -> None:
    took: list[float] = []
    while not took or (min(took) >= SECONDS_MAX and len(took) < 3):  # a machine that is busy with other work is no slow demo
        began = time.monotonic()
        ran = await desk.run("demo")
        took.append(time.monotonic() - began)
        assert ran.code == 0, ran.err
    assert min(took) < SECONDS_MAX
    report = Path(told(ran.out, "report"))
    assert report.parent == desk.folder / ".maypole" / "reports"
    assert "## Sources" in _text(report)
    assert told(ran.out, "trace") == trace_id_of(FlowId(told(ran.out, "flow")))
    assert "committed" in ran.err
    assert re.findall(r"^ok +[\d.]+ s +(\w+)", ran.err, re.MULTILINE) == ["research", "analysis", "report", "delivery"]
    assert not re.search("warning|error", ran.err), "the demo shows the flow and nothing else"
    assert not (desk.folder / ".maypole" / "endpoints.json").exists()


async def test_a_question_that_the_corpus_cannot_answer_ends_honestly(desk: Desk) -> None:
    corpus = desk.folder / "docs"
    corpus.mkdir()
    (corpus / "kettle.md").write_text("# Kettle\n\nA kettle boils water. Fill the kettle before you switch it on.\n")
    ran = await desk.run("demo", "--corpus", "docs", "--question", "Who painted the Mona Lisa?")
    assert ran.code == 0, ran.err
    assert "research.inconclusive" in ran.err
    assert "No report" in ran.out
    assert "report  " not in ran.out


@pytest.mark.parametrize(
    ("agent", "undone"),
    [("delivery", ["report", "analysis", "research"]), ("analysis", ["research"]), ("research", [])],
)
async def test_what_the_agents_before_the_one_that_failed_have_made_is_undone_the_last_first(
    desk: Desk, agent: str, undone: list[str]
) -> None:
    ran = await desk.run("demo", "--fail", agent)
    assert ran.code == 4, ran.err
    assert re.findall(r"^undone +[\d.]+ s +(\w+)", ran.err, re.MULTILINE) == undone
    assert re.search(rf"^compensated  {agent} failed for good on [\w.]+: rejected$", ran.err, re.MULTILINE)
    assert "now: research nothing, analysis nothing, report nothing, delivery nothing" in ran.err
    assert not list((desk.folder / ".maypole" / "reports").glob("*")), "and nothing was delivered"
    assert re.search(rf"{agent}/\d+/\d+", ran.out), "the dead letter is named"
    assert not re.search("Traceback|warning|error", ran.err)


@pytest.mark.parametrize(
    ("words", "code", "state", "kept"),
    [((), 0, "committed", [1, 1, 1, 1]), (("--fail", "analysis"), 4, "compensated", [0, 0, 0, 0])],
    ids=["committed", "compensated"],
)
async def test_a_script_gets_one_object_that_tells_what_came_of_the_demo(
    desk: Desk, words: tuple[str, ...], code: int, state: str, kept: list[int]
) -> None:
    ran = await desk.run("demo", *words, "-o", "json")
    assert ran.code == code, ran.err
    told = ran.json
    assert told["trace_id"] == trace_id_of(FlowId(told["flow_id"]))
    assert told["state"] == state and (told["reason"] is None) == (code == 0)
    assert list(told["kept"].values()) == kept
    assert [step["agent"] for step in told["steps"]] == ["research", "analysis", "report", "delivery"][: 4 if code == 0 else 2]
    assert (told["report"] is None) == (code != 0) and (code != 0 or Path(told["report"]).exists())


async def test_a_file_of_the_corpus_that_cannot_be_read_is_named_and_the_rest_is_used(desk: Desk) -> None:
    corpus = desk.folder / "docs"
    corpus.mkdir()
    (corpus / "kettle.md").write_text("# Kettle\n\nA kettle boils water. Fill the kettle before you switch it on.\n")
    (corpus / "latin.md").write_bytes(b"\xe9t\xe9")
    ran = await desk.run("demo", "--corpus", "docs", "--question", "How do I fill a kettle?")
    assert ran.code == 0, ran.err
    assert "latin.md: not UTF-8" in ran.err
    assert "kettle.md" in _text(Path(told(ran.out, "report")))


@pytest.mark.parametrize("command", [("demo",), ("dev",), ("run", "maypole.services.research")], ids=" ".join)
@pytest.mark.parametrize(("corpus", "code", "found"), [("nowhere", 3, "found nothing"), ("empty", 2, "it is empty")])
async def test_a_corpus_without_anything_to_find_is_told_before_anything_starts(
    desk: Desk, command: tuple[str, ...], corpus: str, code: int, found: str
) -> None:
    (desk.folder / "empty").mkdir()
    ran = await desk.run(*command, "--corpus", corpus)
    assert (ran.code, len(ran.err.splitlines())) == (code, 1), ran.err
    assert "error: --corpus: " in ran.err and found in ran.err
    assert not (desk.folder / ".maypole").exists()


@pytest.mark.parametrize(("words", "code"), [(("demo",), 0), (("run", "."), 3), (("schemas", "list"), 0)])
async def test_a_terminal_without_colours_gets_text_alone(desk: Desk, words: tuple[str, ...], code: int) -> None:
    plain, plainly = await on_a_terminal(desk, *words, NO_COLOR="1")
    assert (plain, b"\x1b" in plainly) == (code, False), plainly
    _, coloured = await on_a_terminal(desk, *words)
    assert b"\x1b[" in coloured, "where colours are welcome there are some, or this test proves nothing"


async def on_a_terminal(desk: Desk, *words: str, **settings: str) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    environment = {**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, "TERM": "xterm", **settings}
    process = await asyncio.create_subprocess_exec(
        *MAYPOLE, *words, cwd=desk.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = await asyncio.to_thread(everything_on, ours)
    return await process.wait(), said


def everything_on(terminal: int) -> bytes:
    said = b""
    with os.fdopen(terminal, "rb", buffering=0) as reading:
        try:
            while found := reading.read(4096):
                said += found
        except OSError:
            pass  # Linux says so when the other end is closed
    return said
