"""What the model gets to see of a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.errors import ConfigError
from thalweg.train.data import Data, Split
from thalweg.train.model import load_tokenizer
from thalweg.train.tokens import IGNORED, TokenizedSplit, read_rows, tokenize


def words(split: TokenizedSplit, tokenizer: Any) -> list[str]:
    rows = [split.tokens[a:b] for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
    return [" ".join(tokenizer.convert_ids_to_tokens(row.tolist())) for row in rows]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("start", "[CLS] the film was [SEP]"), ("end", "[CLS] was very good [SEP]")],
)
def test_the_end_that_is_kept(bert: Path, keep: Any, expected: str) -> None:
    tokenizer = load_tokenizer(str(bert))
    split = Split(texts=("the film was very good", "bad"), labels=(1, 0))
    tokenized = tokenize("train", split, tokenizer, Data(train="x", keep=keep), max_tokens=5)
    assert words(tokenized, tokenizer) == [expected, "[CLS] bad [SEP]"]
    assert tokenized.tokens.dtype == np.int32
    assert tokenized.lengths.tolist() == [5, 3]


def test_a_batch_is_padded_to_its_own_longest_row(bert: Path) -> None:
    tokenizer = load_tokenizer(str(bert))
    split = Split(texts=("the film was very good", "bad", "very bad"), labels=(1, 0, 0))
    tokenized = tokenize("train", split, tokenizer, Data(train="x"), max_tokens=64)
    batch = tokenized.batch([2, 1])
    assert tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist()) == ["[CLS]", "very", "bad", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(batch.input_ids[1].tolist()) == ["[CLS]", "bad", "[SEP]", "[PAD]"]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.labels.tolist() == [0, 0]
    assert (batch.num_tokens, batch.num_targets) == (8, 2)


def test_prompt_tokens_have_no_loss(llama: Path) -> None:
    tokenizer = load_tokenizer(str(llama))
    split = Split(prompts=("the film was", "bad"), texts=("very good", "a plot"))
    tokenized = tokenize("train", split, tokenizer, Data(train="x"), max_tokens=64)
    assert words(tokenized, tokenizer) == ["the film was very good [SEP]", "bad a plot [SEP]"]
    batch = tokenized.batch([0, 1])
    targets = [tokenizer.convert_ids_to_tokens([i for i in row if i != IGNORED]) for row in batch.labels.tolist()]
    assert targets == [["very", "good", "[SEP]"], ["a", "plot", "[SEP]"]]
    assert (batch.labels[0] != IGNORED).tolist() == [False] * 3 + [True] * 3
    assert batch.num_targets == 6


def test_a_text_alone_is_learnt_whole(llama: Path) -> None:
    tokenizer = load_tokenizer(str(llama))
    tokenized = tokenize("train", Split(texts=("the film was",)), tokenizer, Data(train="x"), max_tokens=64)
    batch = tokenized.batch([0])
    assert batch.labels.tolist() == batch.input_ids.tolist()
    assert batch.num_targets == 3  # nothing comes before the first token, and the end of the text is one


@pytest.mark.parametrize(
    ("keep", "expected", "num_prompt"), [("start", "the film was very", 3), ("end", "was very good [SEP]", 1)]
)
def test_a_long_prompt_is_cut(llama: Path, keep: Any, expected: str, num_prompt: int) -> None:
    tokenizer = load_tokenizer(str(llama))
    split = Split(prompts=("the film was",), texts=("very good",))
    tokenized = tokenize("train", split, tokenizer, Data(train="x", keep=keep), max_tokens=4)
    assert words(tokenized, tokenizer) == [expected]
    assert tokenized.num_prompt_tokens is not None
    assert tokenized.num_prompt_tokens.tolist() == [num_prompt]


def test_a_completion_that_is_cut_off_is_refused(llama: Path) -> None:
    split = Split(prompts=("the film was", "a"), texts=("very good", "plot"))
    with pytest.raises(ConfigError, match="max_tokens = 3: 1 of 2 train rows have no token of the completion left"):
        tokenize("train", split, load_tokenizer(str(llama)), Data(train="x"), max_tokens=3)


def test_limits(bert: Path, reviews: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_tokens = 65: .* takes at most 64 tokens"):
        read_rows(Data(train=str(reviews), max_tokens=65), "classification", str(bert))
    with pytest.raises(ConfigError, match="max_tokens = 2 leaves no room for text beside 2 special tokens"):
        read_rows(Data(train=str(reviews), max_tokens=2), "classification", str(bert))
    rows = read_rows(Data(train=str(reviews), max_tokens=6), "classification", str(bert))
    assert rows.train.lengths.max() == 6
    assert (len(rows.train), len(rows.validation), len(rows.test), rows.classes) == (48, 6, 6, ("0", "1"))


def test_an_empty_test_split_stays_empty(bert: Path, reviews: Path) -> None:
    rows = read_rows(Data(train=str(reviews), num_test=0), "classification", str(bert))
    assert len(rows.test) == 0
    assert rows.test.lengths.tolist() == []
