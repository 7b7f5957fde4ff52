"""Which documents are used, how they are split, and every way in which a source can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from thalweg.errors import ConfigError
from thalweg.train.corpus import Corpus, Documents, fingerprint, load


def write_lines(path: Path, count: int, prefix: str = "line") -> str:
    path.write_text("\n".join(f"{prefix} number {i}" for i in range(count)))
    return str(path)


def write_table(path: Path, texts: list[Any], **columns: list[Any]) -> str:
    table = pd.DataFrame({"text": texts, **columns})
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    return str(path)


def everything(documents: Documents) -> list[str]:
    return [*documents.train, *documents.validation, *documents.test]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_rows_of_a_table_are_documents(tmp_path: Path, ending: str) -> None:
    texts = [f"text {i}\nwith a second line" for i in range(40)]
    documents = load(Corpus(train=write_table(tmp_path / f"rows{ending}", texts)))
    assert sorted(everything(documents)) == sorted(texts)
    # 5% of 40 each
    assert (len(documents.train), len(documents.validation), len(documents.test)) == (36, 2, 2)


def test_a_text_file_is_a_document_or_parted_by_a_separator(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "1.txt").write_text("one\n\ntwo")
    (tmp_path / "deep" / "2.txt").write_text("three")
    (tmp_path / "notes.md").write_text("no text for training")
    write_lines(tmp_path / "v.txt.other", 1)
    own = {"validation": write_table(tmp_path / "v.csv", ["held out"]), "test": 0.0}
    whole = load(Corpus(train=str(tmp_path), **own))
    assert sorted(whole.train) == ["one\n\ntwo", "three"]
    parted = load(Corpus(train=str(tmp_path), separator="\n\n", **own))
    assert sorted(parted.train) == ["one", "three", "two"]
    assert parted.validation == ("held out",)
    assert parted.test == ()


def test_several_sources_come_together(tmp_path: Path) -> None:
    first = write_table(tmp_path / "a.csv", [f"a {i}" for i in range(20)])
    second = write_lines(tmp_path / "b.txt", 20, "b")
    documents = load(Corpus(train=(first, second), separator="\n"))
    assert sorted(everything(documents)) == sorted([f"a {i}" for i in range(20)] + [f"b number {i}" for i in range(20)])


def test_a_lone_document_is_cut_at_line_ends(tmp_path: Path) -> None:
    text = "".join(f"line {i:02}\n" for i in range(100))  # 8 characters a line
    (tmp_path / "book.txt").write_text(text)
    documents = load(Corpus(train=str(tmp_path / "book.txt"), validation=0.1, test=0.05))
    (train,), (validation,), (test,) = documents.train, documents.validation, documents.test
    assert train + validation + test == text
    assert test == text[-40:]
    assert validation == text[-120:-40]


def test_a_lone_line_is_cut_within(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text("x" * 50 + "y" * 50)
    documents = load(Corpus(train=str(tmp_path / "line.txt"), validation=0.5, test=0.0))
    assert (documents.train, documents.validation) == (("x" * 50,), ("y" * 50,))


def test_filter_tags_blanks_and_duplicates(tmp_path: Path) -> None:
    texts = [*(f"good<br />film {i}" for i in range(10)), "good<br />film 3", "  ", None, "of another source"]
    where = ["a"] * 13 + ["b"]
    source = write_table(tmp_path / "rows.jsonl", texts, source=where)
    documents = load(Corpus(train=source, where={"source": "a"}, strip_html=True))
    assert sorted(everything(documents)) == [f"good film {i}" for i in range(10)]
    assert (documents.num_duplicates, documents.num_blank) == (1, 2)


def test_a_held_out_document_is_taken_out_of_the_training_source(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", [f"text {i}" for i in range(10)])
    held_out = write_table(tmp_path / "test.csv", ["text 3", "text 7", "new"])
    documents = load(Corpus(train=train, test=held_out, validation=0.25))
    assert sorted(documents.test) == ["new", "text 3", "text 7"]
    assert not {*documents.train, *documents.validation} & {*documents.test}
    assert (len(documents.validation), len(documents.train)) == (2, 6)
    assert documents.num_duplicates == 2


@given(
    count=st.integers(20, 200), validation=st.floats(0.01, 0.4), test=st.floats(0.0, 0.4), split_seed=st.integers(0, 3)
)
def test_splits_part_the_documents(
    tmp_path_factory: pytest.TempPathFactory, count: int, validation: float, test: float, split_seed: int
) -> None:
    path = tmp_path_factory.mktemp("split") / "lines.txt"
    source = write_lines(path, count)
    options: dict[str, Any] = {"train": source, "separator": "\n", "split_seed": split_seed}
    documents = load(Corpus(validation=validation, test=test, **options))
    assert sorted(everything(documents)) == sorted(path.read_text().split("\n"))
    assert len(documents.validation) == max(1, round(validation * count))
    assert len(documents.test) == (max(1, round(test * count)) if test else 0)
    assert documents == load(Corpus(validation=validation, test=test, **options))
    # The test split stays, whatever is chosen by.
    assert load(Corpus(validation=0.02, test=test, **options)).test == documents.test


def test_the_split_seed_decides(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "lines.txt", 100)
    splits = [load(Corpus(train=source, separator="\n", split_seed=seed)) for seed in (0, 1)]
    assert splits[0].test != splits[1].test


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "lines.txt", 50)
    options: dict[str, Any] = {"train": source, "separator": "\n"}
    before = fingerprint(Corpus(**options))
    (tmp_path / "elsewhere").mkdir()
    moved = write_lines(tmp_path / "elsewhere" / "lines.txt", 50)
    assert fingerprint(Corpus(**{**options, "train": moved, "cache": "other"})) == before
    changed = [{"split_seed": 1}, {"separator": "\n\n"}, {"validation": 0.1}, {"strip_html": True}, {"test": moved}]
    assert len({before, *(fingerprint(Corpus(**{**options, **change})) for change in changed)}) == 6
    write_lines(tmp_path / "lines.txt", 51)
    assert fingerprint(Corpus(**options)) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "missing.csv"}, "no such file"),
        ({"train": "lines.text"}, r"lines\.text"),
        ({"train": "line.txt"}, r"no such file. Did you mean 'lines.txt'\?"),
        ({"train": "rows.csv", "text": "txt"}, r"data.text = 'txt'.*Did you mean 'text'\?"),
        ({"train": "rows.csv", "text": "number"}, "holds 1, which is not text"),
        ({"train": "rows.csv", "where": {"numbr": 1}}, r"data.where = 'numbr'.*Did you mean 'number'\?"),
        ({"train": "rows.csv", "where": {"number": 5}}, "no row .* has number = 5"),
        ({"train": "empty.txt"}, "data.train = .*empty.txt': holds no text"),
        ({"train": "blank.txt"}, "holds no text"),
        ({"train": "latin.txt"}, "not UTF-8 text"),
        ({"train": ()}, "at least one source"),
        ({"train": "lines.txt", "separator": "\n", "validation": 0.0}, "validation = 0: give a share above 0"),
        ({"train": "lines.txt", "separator": "\n", "test": 1.0}, "test = 1: give a share of at least 0 and below 1"),
        ({"train": "lines.txt", "separator": "\n", "test": 0.5, "validation": 0.5}, "take 1 of the text"),
        ({"train": "two.txt", "separator": "\n"}, "2 documents, too few to split off test and validation"),
        ({"train": "short.txt"}, "1 characters of text, too few"),
        ({"train": "lines.txt", "separator": "\n", "test": "lines.txt"}, "every one of its 30 documents is also in"),
        ({"train": "package:nosuch/x.csv"}, "no package 'nosuch' is installed"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_lines(tmp_path / "lines.txt", 30)
    write_table(tmp_path / "rows.csv", ["a", "b"], number=[1, 2])
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n ")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "two.txt").write_text("one\ntwo")
    (tmp_path / "short.txt").write_text("a")
    with pytest.raises(ConfigError, match=message):
        load(Corpus(**options))


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="vocabulary"):
        Corpus(train="x.txt", vocabulary=300)  # type: ignore[call-arg]


def test_the_order_is_shuffled(tmp_path: Path) -> None:
    documents = load(Corpus(train=write_lines(tmp_path / "lines.txt", 200), separator="\n"))
    numbers = np.array([int(text.split()[-1]) for text in documents.train])
    # Neighbours of a shuffled sequence are uncorrelated: |r| < 3.5 / sqrt(180).
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.26
