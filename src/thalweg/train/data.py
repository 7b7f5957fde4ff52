"""Data for fine-tuning: which rows, and how they are split."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from thalweg.errors import ConfigError, nearest
from thalweg.train.sources import read_table

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["classification", "causal"]
SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


class Data(BaseModel):
    """Rows to train, choose and test on.

    A source is a CSV, TSV, JSON, JSONL or Parquet file, a folder of such files, `package:NAME/path` for a file that an
    installed package ships, or a data set of the Hugging Face hub as `ID[:CONFIG][@SPLIT]`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: str
    """Source of the training rows, and of the splits that have no source of their own."""
    validation: str | None = None
    """Source of the rows that choose between runs. None: they are split off the training rows."""
    test: str | None = None
    """Source of the rows that the search never sees. None: they are split off the training rows."""
    text: str = "text"
    """Column of the text: what is classified, or what a causal model learns to write."""
    label: str = "label"
    """Column of the class, for classification."""
    prompt: str | None = None
    """Column of what a causal model is given and not trained on; it replaces `text`, together with `completion`."""
    completion: str | None = None
    """Column of what a causal model shall answer to the prompt."""
    where: Mapping[str, bool | int | float | str] = Field(default_factory=dict)
    """Only rows whose columns have these values, such as `{ source = "imdb" }`; it holds for all sources."""
    num_train: int | None = Field(None, ge=1)
    """Training rows to use. None: all that are left."""
    num_validation: int | None = Field(None, ge=1)
    """Validation rows to use. None: all of an own source, or a tenth of the rows."""
    num_test: int | None = Field(None, ge=0)
    """Test rows to use; 0: no test split. None: all of an own source, or a tenth of the rows."""
    split_seed: int = Field(0, ge=0)
    """Decides which rows go into which split; a study's seed does not."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of a row that are kept, special ones included. None: as many as the model can take."""
    keep: Literal["start", "end"] = "start"
    """Which end of a text that is too long is kept: the end of a review says most about its verdict."""
    strip_html: bool = False
    """Replace tags such as `<br />` by a space."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of one split, in a shuffled order."""

    texts: tuple[str, ...]
    """The texts, or the completions where there are prompts."""
    prompts: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    """Index of each row's class."""

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What `load` returns."""

    train: Split
    validation: Split
    test: Split
    """Empty where the data has no test split."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of their indices; numbers are sorted as numbers. Empty for causal models."""
    num_duplicates: int
    """Rows left out because the same text was there already, so that no text is in two splits."""
    fingerprint: str
    """sha256 of all rows' texts and labels, with the split that each is in."""


def load(data: Data, task: Task) -> Splits:
    """Read the sources, drop duplicates, and split.

    Raises:
        ConfigError: a missing file or column, a filter that matches nothing, more rows asked for than there are, an
            empty split, a missing value, or a label that the training split lacks.
    """
    _check_columns_given(data, task)
    own = {name: source for name in SPLIT_NAMES if (source := getattr(data, name)) is not None}
    tables = {name: _read(data, task, name, source) for name, source in own.items()}
    num_read = sum(len(table) for table in tables.values())
    tables = _without_duplicates(tables)
    num_duplicates = num_read - sum(len(table) for table in tables.values())
    chosen = _choose(data, tables)
    classes = _classes(data, chosen) if task == "classification" else ()
    splits = {name: _split(table, classes) for name, table in chosen.items()}
    return Splits(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=tuple(str(value) for value in classes),
        num_duplicates=num_duplicates,
        fingerprint=_fingerprint(splits, classes),
    )


def _check_columns_given(data: Data, task: Task) -> None:
    if (data.prompt is None) != (data.completion is None):
        given = "prompt" if data.completion is None else "completion"
        raise ConfigError(f"data.{given} is given alone; prompt and completion go together")
    if data.prompt is not None and task == "classification":
        raise ConfigError(f"data.prompt = {data.prompt!r}: only task = 'causal' has prompts; give text and label")


def _read(data: Data, task: Task, split: SplitName, source: str) -> pd.DataFrame:
    """One source's rows as columns `text`, `prompt` (causal, with prompts) and `label` (classification)."""
    import pandas as pd

    field = f"data.{split}"
    table = read_table(field, source, split=split)
    columns = {"text": ("completion", data.completion) if data.completion else ("text", data.text)}
    if data.prompt is not None:
        columns["prompt"] = ("prompt", data.prompt)
    if task == "classification":
        columns["label"] = ("label", data.label)
    named = [*columns.values(), *(("where", column) for column in data.where)]
    for name, column in named:
        if column not in table.columns:
            known = nearest(column, map(str, table.columns))
            raise ConfigError(f"data.{name} = {column!r}: {source} has no such column. {known}")
    for column, value in data.where.items():
        present = table[column]
        table = table[present == value]
        if table.empty:
            values = nearest(str(value), [str(v) for v in present.unique()[:20]])
            raise ConfigError(f"data.where: no row of {source} has {column} = {value!r}. {values}")
    if table.empty:
        raise ConfigError(f"{field} = {source!r} holds no rows")
    chosen = pd.DataFrame({new: table[old] for new, (_, old) in columns.items()})
    _check_values(chosen, source, {new: old for new, (_, old) in columns.items()})
    if data.strip_html:
        for name in chosen.columns.intersection(["text", "prompt"]):
            chosen[name] = [_TAG.sub(" ", text) for text in chosen[name]]
    return chosen.reset_index(drop=True)


def _check_values(table: pd.DataFrame, source: str, columns: Mapping[str, str]) -> None:
    for name, column in columns.items():
        missing = table[name].isna()
        if missing.any():
            raise ConfigError(
                f"{source}: {int(missing.sum())} of {len(table)} rows have no value in column {column!r}, the first is"
                f" row {table.index[missing.to_numpy()][0] + 1}; fill them in or leave these rows out"
            )
        if name != "label" and not all(isinstance(value, str) for value in table[name]):
            other = next(value for value in table[name] if not isinstance(value, str))
            raise ConfigError(
                f"{source}: column {column!r} holds {other!r}, which is not text; is it the right column?"
            )


def _without_duplicates(tables: Mapping[SplitName, pd.DataFrame]) -> dict[SplitName, pd.DataFrame]:
    """Each text (with its prompt) once; what is in the test or validation source is kept there, not in training."""
    seen: set[tuple[str, ...]] = set()
    kept = {}
    for name in reversed(SPLIT_NAMES):
        if name not in tables:
            continue
        table = tables[name]
        keys = list(zip(*(table[c] for c in ("prompt", "text") if c in table.columns), strict=True))
        fresh = [key not in seen and not seen.add(key) for key in keys]  # type: ignore[func-returns-value]
        kept[name] = table[fresh].reset_index(drop=True)
        if kept[name].empty:
            raise ConfigError(f"data.{name}: every one of its {len(table)} texts is also in another split's source")
    return kept


def _choose(data: Data, tables: Mapping[SplitName, pd.DataFrame]) -> dict[SplitName, pd.DataFrame]:
    rng = np.random.default_rng(data.split_seed)
    rest = tables["train"]
    num_rows = len(rest)
    chosen: dict[SplitName, pd.DataFrame] = {}
    splits_off: tuple[SplitName, ...] = ("test", "validation")
    # The test rows come first, so that they stay the same whatever the other counts are.
    for name in splits_off:
        wanted = getattr(data, f"num_{name}")
        if name in tables:
            own = tables[name]
            chosen[name], _ = _take(name, own, len(own) if wanted is None else wanted, rng)
        else:
            chosen[name], rest = _take(name, rest, max(1, num_rows // 10) if wanted is None else wanted, rng)
    chosen["train"], _ = _take("train", rest, len(rest) if data.num_train is None else data.num_train, rng)
    for name in ("train", "validation"):
        if chosen[name].empty:
            raise ConfigError(
                f"data.{name}: the split is empty; data.train has {num_rows} rows, too few for all splits"
            )
    return chosen


def _take(
    name: SplitName, table: pd.DataFrame, count: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shuffle, and take some rows, of each class as large a share as the class has in the table; also the rest."""
    if count > len(table):
        raise ConfigError(f"data.num_{name} = {count}: there are only {len(table)} rows to take them from")
    order = rng.permutation(len(table))
    if "label" not in table.columns or count in (0, len(table)):
        return table.iloc[order[:count]], table.iloc[order[count:]]
    codes = table["label"].astype(str).astype("category").cat.codes.to_numpy()[order]
    shares = np.bincount(codes) * (count / len(table))
    quotas = np.floor(shares + 1e-9).astype(int)
    by_remainder = np.argsort(quotas - shares, kind="stable")
    quotas[by_remainder[: count - int(quotas.sum())]] += 1
    taken = np.zeros(len(table), dtype=bool)
    for code, quota in enumerate(quotas):
        taken[np.flatnonzero(codes == code)[:quota]] = True
    return table.iloc[order[taken]], table.iloc[order[~taken]]


def _classes(data: Data, chosen: Mapping[SplitName, pd.DataFrame]) -> tuple[Any, ...]:
    values = {name: set(table["label"].tolist()) for name, table in chosen.items()}
    known = values["train"]
    num_rows = sum(len(table) for table in chosen.values())
    num_classes = len(set().union(*values.values()))
    if num_classes > max(2, num_rows // 2):
        raise ConfigError(
            f"data.label = {data.label!r}: {num_classes} classes in {num_rows} rows; is it the column of the classes?"
        )
    for name in ("validation", "test"):
        if unknown := values[name] - known:
            value = sorted(unknown, key=str)[0]
            raise ConfigError(
                f"data.{name}: the label {value!r} (column {data.label!r}) is not in the training split."
                f" {nearest(str(value), map(str, known))}"
            )
    if len(known) < 2:
        raise ConfigError(f"data.label = {data.label!r}: all training rows have one class, {known.pop()!r}")
    is_number = all(isinstance(value, int | float) for value in known)
    return tuple(sorted(known) if is_number else sorted(known, key=str))


def _split(table: pd.DataFrame, classes: tuple[Any, ...]) -> Split:
    index = {value: i for i, value in enumerate(classes)}
    return Split(
        texts=tuple(table["text"]),
        prompts=tuple(table["prompt"]) if "prompt" in table.columns else None,
        labels=tuple(index[value] for value in table["label"].tolist()) if classes else None,
    )


def _fingerprint(splits: Mapping[SplitName, Split], classes: tuple[Any, ...]) -> str:
    digest = hashlib.sha256(json.dumps([str(value) for value in classes]).encode())
    for name in SPLIT_NAMES:
        split = splits[name]
        labels = split.labels or [None] * len(split)
        prompts = split.prompts or [None] * len(split)
        for row in zip(prompts, split.texts, labels, strict=True):
            digest.update(json.dumps([name, *row]).encode())
    return digest.hexdigest()
