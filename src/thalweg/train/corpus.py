"""Text for pre-training: which documents, and how they are split."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from thalweg.errors import ConfigError, nearest
from thalweg.train.data import SPLIT_NAMES, SplitName
from thalweg.train.sources import package_path, read_table

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_TEXT_ENDING = ".txt"


class Corpus(BaseModel):
    """Text to train, choose and test on, and how it becomes tokens.

    A source is a .txt file or a folder of them, a CSV, TSV, JSON, JSONL or Parquet file or a folder of those,
    `package:NAME/path` for a file that an installed package ships, or a data set of the Hugging Face hub as
    `ID[:CONFIG][@SPLIT]`. A row, or a text file, is a document; no document is in two splits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: str | tuple[str, ...]
    """Source or sources of the training text, and of the splits that have no source of their own."""
    validation: float | str = 0.05
    """Source of the text that chooses between runs, or the share of the training documents to split off for it."""
    test: float | str = 0.05
    """Source of the text that the search never sees, or a share as above; 0: no test split."""
    text: str = "text"
    """Column of the text, where a source is a table."""
    where: Mapping[str, bool | int | float | str] = Field(default_factory=dict)
    """Only rows whose columns have these values, such as `{ source = "imdb" }`; it holds for all tables."""
    separator: str | None = None
    """What stands between the documents of a text file, such as a blank line. None: a file is one document."""
    strip_html: bool = False
    """Replace tags such as `<br />` by a space."""
    split_seed: int = Field(0, ge=0)
    """Decides which documents go into which split and the order of them; a study's seed does not."""
    tokenizer: str | None = None
    """A hub id or local folder. None: a byte-level BPE is trained on the training split."""
    cache: str = ".thalweg/tokens"
    """Folder of the tokenised text, made once and then mapped into memory."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """What `load` returns."""

    train: tuple[str, ...]
    """In a shuffled order."""
    validation: tuple[str, ...]
    test: tuple[str, ...]
    """Empty where the corpus has no test split."""
    num_duplicates: int
    """Documents left out because the same text was there already."""
    num_blank: int
    """Documents left out because they have no text, or white space only."""


def load(corpus: Corpus) -> Documents:
    """Read the sources, drop blank and repeated documents, and split.

    A share is taken off whole documents, at least one. Where the training source is a single document, it is cut at
    line ends instead: its middle part becomes the validation, its last part the test split.

    Raises:
        ConfigError: a missing file or column, a filter that matches nothing, a source without text, a share that is
            no share, or too few documents for the splits.
    """
    _check_shares(corpus)
    read: dict[SplitName, list[str]] = {}
    num_blank = 0
    for name, sources in _sources(corpus).items():
        documents = [text for source in sources for text in _documents(corpus, name, source)]
        read[name] = [text for text in documents if text and not text.isspace()]
        num_blank += len(documents) - len(read[name])
        if not read[name]:
            raise ConfigError(f"data.{name} = {', '.join(map(repr, sources))}: holds no text")
    unique = _without_duplicates(read)
    num_duplicates = sum(len(read[name]) - len(unique[name]) for name in read)
    split = _split(corpus, unique)
    return Documents(
        train=tuple(split["train"]),
        validation=tuple(split["validation"]),
        test=tuple(split.get("test", ())),
        num_duplicates=num_duplicates,
        num_blank=num_blank,
    )


def fingerprint(corpus: Corpus) -> str:
    """sha256 of all that decides the documents and their split: sources' content, filter, shares, seed.

    Files are read but not parsed, so that it is quick; hub data sets are loaded.

    Raises:
        ConfigError: a source is missing.
    """
    _check_shares(corpus)
    config = corpus.model_dump(mode="json", exclude={"cache", "tokenizer", "train"})
    config |= {name: None for name in ("validation", "test") if isinstance(config[name], str)}
    contents = {
        name: [_content(corpus, name, source) for source in sources] for name, sources in _sources(corpus).items()
    }
    return hashlib.sha256(json.dumps([config, contents], sort_keys=True).encode()).hexdigest()


def _sources(corpus: Corpus) -> dict[SplitName, tuple[str, ...]]:
    found: dict[SplitName, tuple[str, ...]] = {}
    for name in SPLIT_NAMES:
        value = getattr(corpus, name)
        if isinstance(value, str):
            found[name] = (value,)
        elif isinstance(value, tuple):
            if not value:
                raise ConfigError("data.train = []: give at least one source")
            found[name] = value
    return found


def _check_shares(corpus: Corpus) -> None:
    shares = {name: value for name in ("validation", "test") if not isinstance(value := getattr(corpus, name), str)}
    for name, share in shares.items():
        low = "above 0" if name == "validation" else "of at least 0"
        if not 0 <= share < 1 or (name == "validation" and share == 0):
            raise ConfigError(
                f"data.{name} = {share:g}: give a share {low} and below 1, such as 0.05, or a source of its own"
            )
    if sum(shares.values()) >= 1:
        raise ConfigError(
            f"data.validation and data.test take {sum(shares.values()):g} of the text: leave some to train on"
        )


def _files(field: str, source: str) -> list[Path]:
    """The files that a source stands for, in order; none for a hub data set, and for what does not exist."""
    path = package_path(field, source) if source.startswith("package:") else Path(source).expanduser()
    if path.is_dir():
        texts = sorted(path.rglob(f"*{_TEXT_ENDING}"))
        return texts or sorted(p for p in path.iterdir() if p.is_file())
    return [path] if path.is_file() else []


def _is_text(files: Sequence[Path]) -> bool:
    return bool(files) and all(path.suffix == _TEXT_ENDING for path in files)


def _documents(corpus: Corpus, name: SplitName, source: str) -> list[str]:
    field = f"data.{name}"
    files = _files(field, source)
    if _is_text(files):
        documents = []
        for path in files:
            text = _read_text(field, path)
            documents += text.split(corpus.separator) if corpus.separator else [text]
    else:
        if Path(source).suffix == _TEXT_ENDING:
            beside = [p.name for p in Path(source).parent.glob(f"*{_TEXT_ENDING}")]
            raise ConfigError(f"{field} = {source!r}: there is no such file. {nearest(Path(source).name, beside)}")
        documents = _column(corpus, field, source, name)
    return [_TAG.sub(" ", text) for text in documents] if corpus.strip_html else documents


def _read_text(field: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{field} = '{path}': is not UTF-8 text (byte {error.start}); convert it first") from None
    except OSError as error:
        raise ConfigError(f"{field} = '{path}': cannot be read: {error.strerror}") from None


def _column(corpus: Corpus, field: str, source: str, split: SplitName) -> list[str]:
    """A table's texts; missing ones are empty."""
    table: Any = read_table(field, source, split=split)
    for name, column in (("text", corpus.text), *(("where", column) for column in corpus.where)):
        if column not in table.columns:
            known = nearest(column, map(str, table.columns))
            raise ConfigError(f"data.{name} = {column!r}: {source} has no such column. {known}")
    for column, value in corpus.where.items():
        present = table[column]
        table = table[present == value]
        if table.empty:
            values = nearest(str(value), [str(v) for v in present.unique()[:20]])
            raise ConfigError(f"data.where: no row of {source} has {column} = {value!r}. {values}")
    texts = [
        "" if missing else text for text, missing in zip(table[corpus.text], table[corpus.text].isna(), strict=True)
    ]
    if other := next((text for text in texts if not isinstance(text, str)), None):
        raise ConfigError(
            f"{source}: column {corpus.text!r} holds {other!r}, which is not text; is it the right column?"
        )
    return texts


def _content(corpus: Corpus, name: SplitName, source: str) -> list[str]:
    """Digests of a source's files, or of a hub data set's texts."""
    files = _files(f"data.{name}", source)
    if not files:
        documents = _documents(corpus, name, source)
        return [hashlib.sha256(json.dumps(documents).encode()).hexdigest()]
    digests = []
    for path in files:
        with path.open("rb") as stream:
            digests.append(path.suffix + hashlib.file_digest(stream, "sha256").hexdigest())
    return digests


def _without_duplicates(read: Mapping[SplitName, Sequence[str]]) -> dict[SplitName, list[str]]:
    """Each document once; what is in the test or validation source is kept there, not in training."""
    seen: set[str] = set()
    kept: dict[SplitName, list[str]] = {}
    for name in reversed(SPLIT_NAMES):
        if name not in read:
            continue
        kept[name] = [text for text in dict.fromkeys(read[name]) if text not in seen]
        seen.update(kept[name])
        if not kept[name]:
            raise ConfigError(
                f"data.{name}: every one of its {len(read[name])} documents is also in another split's source"
            )
    return kept


def _split(corpus: Corpus, unique: Mapping[SplitName, list[str]]) -> dict[SplitName, list[str]]:
    # The test documents come first, so that they stay the same whatever the validation share is.
    off: tuple[SplitName, ...] = ("test", "validation")
    shares = {name: share for name in off if not isinstance(share := getattr(corpus, name), str) and share}
    rest = unique["train"]
    if len(rest) == 1 and shares:
        return dict(unique) | _cut(rest[0], shares)
    order = np.random.default_rng(corpus.split_seed).permutation(len(rest))
    shuffled = [rest[i] for i in order]
    chosen = dict(unique)
    taken = 0
    for name, share in shares.items():
        count = max(1, round(share * len(rest)))
        chosen[name] = shuffled[taken : taken + count]
        taken += count
    chosen["train"] = shuffled[taken:]
    if not chosen["train"]:
        raise ConfigError(
            f"data.train holds {len(rest)} documents, too few to split off {' and '.join(shares)}: give them a source"
            " of their own, or a separator that parts the text into more documents"
        )
    return chosen


def _cut(text: str, shares: Mapping[SplitName, float]) -> dict[SplitName, list[str]]:
    """A single text's parts, in the order train, validation, test."""
    parts: dict[SplitName, list[str]] = {}
    end = len(text)
    for name, share in shares.items():
        wanted = end - max(1, round(share * len(text)))
        # At the first line that begins in the share; within a line where none does.
        line_end = text.find("\n", max(0, wanted - 1), end - 1)
        start = line_end + 1 if line_end >= 0 else wanted
        parts[name] = [text[start:end]]
        end = start
    parts["train"] = [text[:end]]
    for (part,) in parts.values():
        if not part or part.isspace():
            raise ConfigError(
                f"data.train holds {len(text)} characters of text, too few to split off {' and '.join(shares)}"
            )
    return parts
