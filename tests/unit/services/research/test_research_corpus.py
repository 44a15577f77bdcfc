from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.services.research.corpus import CorpusUnusable, Folder, LanguageReference, corpus_at
from maypole.services.research.passages import CHARACTERS_MAX, pack
from maypole.services.research.sections import Block, Kind


def test_the_language_reference_names_a_passage_after_its_most_specific_topic() -> None:
    finally_clause = [passage for passage in LanguageReference().passages() if "If `finally` is present" in passage.text]
    assert [(passage.source, passage.title) for passage in finally_clause] == [("python:try", "The try statement / finally clause")]


def test_the_language_reference_repeats_no_passage() -> None:
    texts = [passage.text for passage in LanguageReference().passages()]
    assert len(texts) == len(set(texts)) > 300


def test_a_folder_is_read_with_its_subfolders_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "b.md").write_text("# Bees\nBees buzz.")
    (tmp_path / "a.txt").write_text("Ants\n====\n\nAnts crawl.")
    (tmp_path / "deep" / "er" / "c.RST").write_text("Cows moo.")
    found = [(passage.source, passage.title, passage.text) for passage in Folder(tmp_path).passages()]
    assert found == [("a.txt", "Ants", "Ants crawl."), ("b.md", "Bees", "Bees buzz."), ("deep/er/c.RST", "c", "Cows moo.")]


def test_what_is_left_out_of_a_folder_is_said_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("Text.")
    (tmp_path / "latin.txt").write_bytes("Gr\xfc\xdfe".encode("latin-1"))
    (tmp_path / "blob.md").write_bytes(b"\x00\x01\x02")
    (tmp_path / ".secret.md").write_text("hidden")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text("hidden")
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    (tmp_path / "utf16.md").write_bytes("Wörter".encode("utf-16"))
    folder = Folder(tmp_path)
    assert [passage.source for passage in folder.passages()] == ["good.md", "utf16.md"]
    assert sorted(folder.left_out()) == [
        ".git/: hidden",
        ".secret.md: hidden",
        "1 files: not .md, .rst or .txt",
        "blob.md: binary",
        "gone.md: not a regular file, or a link that leads nowhere",
        "latin.txt: not UTF-8: byte 2 is 0xfc; save it as UTF-8",
    ]


def test_a_file_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme.md"))).write_text("Text.")
    assert [passage.source for passage in Folder(tmp_path).passages()] == ["na\\xffme.md"]


def test_a_folder_without_text_says_what_it_has_instead(tmp_path: Path) -> None:
    with pytest.raises(CorpusUnusable, match=r"expected \.md, \.rst or \.txt files with words in them, found: it is empty"):
        list(Folder(tmp_path).passages())
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(CorpusUnusable, match=r"found: 1 files: not \.md, \.rst or \.txt"):
        list(Folder(tmp_path).passages())


def test_a_corpus_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.md").write_text("")
    with pytest.raises(CorpusUnusable, match=r"file\.md is a file"):
        corpus_at(tmp_path / "file.md")
    with pytest.raises(CorpusUnusable, match=r"nowhere does not exist"):
        corpus_at(tmp_path / "nowhere")


def test_the_digest_changes_with_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("one")
    folder = Folder(tmp_path)
    before = folder.digest()
    assert Folder(tmp_path).digest() == before
    (tmp_path / "b.md").write_text("two")
    assert folder.digest() != before


_BLOCKS = st.lists(
    st.builds(Block, st.sampled_from([("a",), ("a", "b")]), st.sampled_from(Kind), st.text("ab. `\n", min_size=1, max_size=9000)),
    max_size=6,
)


@given(_BLOCKS)
def test_no_passage_is_longer_than_the_limit_whatever_the_file_looks_like(blocks: list[Block]) -> None:
    for passage in pack("source", blocks, "title"):
        assert len(passage.text) <= CHARACTERS_MAX * 2
        assert passage.title


def test_a_passage_never_crosses_a_title_and_keeps_its_example() -> None:
    blocks = [
        Block(("One",), Kind.PROSE, "See:"),
        Block(("One",), Kind.CODE, "a\nb ``` c"),
        Block(("One", "Two"), Kind.ITEM, "first"),
        Block(("One", "Two"), Kind.ITEM, "second"),
    ]
    assert [(passage.title, passage.text) for passage in pack("s", blocks, "t")] == [
        ("One", "See:\n\n````\na\nb ``` c\n````"),
        ("One / Two", "- first\n- second"),
    ]
