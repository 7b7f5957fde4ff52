"""Byte-level BPE: merges worked by hand, nothing lost, the same again, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from thalweg.errors import ConfigError
from thalweg.train import bpe

TEXTS = [f"the cat sat on the mat with hat number {i}, that is all" for i in range(50)]


@pytest.fixture(scope="module")
def trained() -> bpe.Tokenizer:
    return bpe.train(TEXTS, 280)


def test_merges_are_those_worked_by_hand() -> None:
    # Words "ab" 6 times and "abc" 3: pair ab is met 9 times, then (ab, c) 3 times; a space is a word's first byte.
    tokenizer = bpe.train(["ab"] * 6 + ["abc"] * 3, bpe.SMALLEST + 2)
    assert tokenizer.size == 259
    (rows, num_bytes), *_ = tokenizer.encode(["abcab"])
    tokens = [tokenizer.backend.id_to_token(index) for index in rows[0]]
    assert tokens == ["abc", "ab", "<|endoftext|>"]
    assert num_bytes == 5


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_nothing_is_lost_and_bytes_are_counted(texts: list[str]) -> None:
    tokenizer = _small()
    lengths = tokenizer.token_bytes()
    assert lengths is not None
    for rows, num_bytes in tokenizer.encode(texts):
        assert [tokenizer.backend.decode(row[:-1], skip_special_tokens=False) for row in rows] == texts
        assert [row[-1] for row in rows] == [tokenizer.end_of_text] * len(texts)
        assert sum(int(lengths[row].sum()) for row in rows) == num_bytes == sum(len(text.encode()) for text in texts)


_CACHE: list[bpe.Tokenizer] = []


def _small() -> bpe.Tokenizer:
    if not _CACHE:
        _CACHE.append(bpe.train(TEXTS, 280))
    return _CACHE[0]


def test_text_that_spells_the_end_of_text_stays_text(trained: bpe.Tokenizer) -> None:
    ((row,), num_bytes), *_ = trained.encode(["a<|endoftext|>b"])
    assert row.count(trained.end_of_text) == 1
    assert trained.backend.decode(row[:-1]) == "a<|endoftext|>b"
    assert num_bytes == 15


def test_many_documents_come_in_parts(trained: bpe.Tokenizer) -> None:
    parts = list(trained.encode(["the cat"] * 2500))
    assert [len(rows) for rows, _ in parts] == [1024, 1024, 452]


def test_it_is_what_transformers_loads(trained: bpe.Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    loaded: Any = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ((row,), _), *_ = trained.encode(["the mat with ünïcode"])
    assert loaded("the mat with ünïcode")["input_ids"] == row[:-1]
    assert loaded.eos_token_id == trained.end_of_text == row[-1]
    again = bpe.load(str(tmp_path))
    assert list(again.encode(TEXTS)) == list(trained.encode(TEXTS))
    assert (again.token_bytes() == trained.token_bytes()).all()  # type: ignore[union-attr]


@pytest.mark.slow
def test_another_process_trains_the_same() -> None:
    program = (
        "import hashlib; from thalweg.train import bpe\n"
        f"texts = {TEXTS!r}\n"
        "print(hashlib.sha256(bpe.train(texts, 290).backend.to_str().encode()).hexdigest())"
    )
    here = hashlib.sha256(bpe.train(TEXTS, 290).backend.to_str().encode()).hexdigest()
    for threads in ("1", "4"):
        ran = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"RAYON_NUM_THREADS": threads, "PATH": ""},
        )
        assert ran.stdout.strip() == here


def test_the_bytes_of_other_tokenizers_are_not_known(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[END]": 1, "[UNK]": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[END]").save_pretrained(tmp_path)
    loaded = bpe.load(str(tmp_path))
    assert loaded.token_bytes() is None
    assert next(loaded.encode(["a a"])) == ([[0, 0, 1]], 3)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no end-of-text token"):
        bpe.load(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        bpe.load(str(tmp_path))


def test_a_vocabulary_must_hold_the_bytes() -> None:
    with pytest.raises(ConfigError, match=r"vocabulary = 256: .* at least 257"):
        bpe.train(TEXTS, 256)
    assert bpe.train(TEXTS, 257).size == 257


def test_a_vocabulary_that_the_text_cannot_fill_is_refused() -> None:
    # One merge: ab. (ab, ab) is no pair, as spaces part the words.
    with pytest.raises(ConfigError, match=r"vocabulary = 300: the training text fills only 258; set 258 or less"):
        bpe.train(["ab", "ab"], 300)
