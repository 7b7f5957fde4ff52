"""A corpus as tokens on disk: made once, mapped into memory by every process that trains on it.

    folder/meta.json             sizes and digests of the files below
    folder/tokenizer.json        and tokenizer_config.json, as transformers reads them
    folder/train.bin             token ids, document after document, each ended by the end of text;
    folder/validation.bin        uint16, or uint32 for a vocabulary above 65,536
    folder/test.bin

The folder's name is a digest of all that decides its content. It is written under another name and renamed, so that
it is whole or not there, whoever else makes the same one meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from thalweg.errors import ConfigError
from thalweg.train import bpe
from thalweg.train.corpus import Corpus, fingerprint, load
from thalweg.train.data import SPLIT_NAMES

_FORMAT = 1

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class SplitTokens:
    """One split, all documents one after the other."""

    ids: _Array
    """uint16 or uint32 [tokens], mapped from the file."""
    num_bytes: int
    """Of the text in UTF-8."""
    num_documents: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class CorpusTokens:
    """What a process has open of a corpus."""

    folder: Path
    train: SplitTokens
    validation: SplitTokens
    test: SplitTokens
    """Empty where the corpus has no test split."""
    vocabulary: int
    """One more than the largest id that the tokenizer gives."""
    token_bytes: _Array | None
    """int32 [vocabulary]: UTF-8 bytes that each token stands for; None where they are not known token by token."""
    num_duplicates: int
    num_blank: int
    digest: str
    """sha256 of all tokens."""

    def bytes_of(self, split: SplitTokens, ids: _Array) -> float:
        """UTF-8 bytes of the text that some tokens of a split stand for: exact for byte-level tokenizers, else by the
        split's mean."""
        if self.token_bytes is None:
            return len(ids) * split.num_bytes / len(split)
        return float(self.token_bytes[ids].sum())


def prepare(corpus: Corpus, vocabulary: int | None) -> Path:
    """Tokenise a corpus, unless it has been done already.

    Args:
        vocabulary: tokens of the BPE to be trained, where the corpus names no tokenizer.
    Returns:
        The folder, to be opened by `open_tokens`.
    Raises:
        ConfigError: see `corpus.load`, `bpe.train` and `bpe.load`.
        OSError: the disk is full or read-only.
    """
    tokenizer = None if corpus.tokenizer is None else bpe.load(corpus.tokenizer)
    if tokenizer is None:
        if vocabulary is None:
            raise ConfigError("model.vocabulary is missing: how many tokens shall the tokenizer know? For example 8192")
        bpe.check_vocabulary(vocabulary)
        recipe: Any = {"bpe": vocabulary, "version": tokenizers.__version__}
    else:
        recipe = [tokenizer.backend.to_str(), tokenizer.end_of_text]
    key = json.dumps([_FORMAT, fingerprint(corpus), recipe], sort_keys=True)
    folder = Path(corpus.cache).expanduser() / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not _is_whole(folder):
        _make(folder, corpus, tokenizer, vocabulary)
    return folder.absolute()


def open_tokens(folder: Path) -> CorpusTokens:
    """Map a prepared corpus into memory, and check every byte of it.

    Raises:
        FileNotFoundError: it is not there, or damaged: `prepare` makes it anew.
    """
    meta = _meta(folder)
    if meta is None:
        raise FileNotFoundError(f"{folder} holds no tokenised corpus, or a damaged one")
    token_bytes = meta["token_bytes"]
    splits = {name: _open_split(folder, name, meta) for name in SPLIT_NAMES}
    return CorpusTokens(
        folder=folder,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        vocabulary=meta["vocabulary"],
        token_bytes=None if token_bytes is None else np.array(token_bytes, dtype=np.int32),
        num_duplicates=meta["num_duplicates"],
        num_blank=meta["num_blank"],
        digest=hashlib.sha256("".join(meta["splits"][name]["sha256"] for name in SPLIT_NAMES).encode()).hexdigest(),
    )


def _make(folder: Path, corpus: Corpus, tokenizer: bpe.Tokenizer | None, vocabulary: int | None) -> None:
    documents = load(corpus)
    if tokenizer is None:
        assert vocabulary is not None
        tokenizer = bpe.train(documents.train, vocabulary)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        largest = max(tokenizer.backend.get_vocab(with_added_tokens=True).values())
        dtype = "uint16" if largest < 2**16 else "uint32"
        token_bytes = tokenizer.token_bytes()
        meta = {
            "format": _FORMAT,
            "dtype": dtype,
            "vocabulary": largest + 1,
            "end_of_text": tokenizer.end_of_text,
            "token_bytes": None if token_bytes is None else token_bytes.tolist(),
            "num_duplicates": documents.num_duplicates,
            "num_blank": documents.num_blank,
            "splits": {
                name: _write_split(temporary / f"{name}.bin", getattr(documents, name), tokenizer, dtype)
                for name in SPLIT_NAMES
            },
        }
        tokenizer.save(temporary)
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is there: another process was first, or it is damaged
        temporary.rename(folder)
        return
    if _is_whole(folder):
        return
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as damaged:
        folder.rename(Path(damaged) / "damaged")
        temporary.rename(folder)


def _write_split(path: Path, documents: Sequence[str], tokenizer: bpe.Tokenizer, dtype: str) -> Mapping[str, Any]:
    num_tokens = num_bytes = 0
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for rows, bytes_of_rows in tokenizer.encode(documents):
            ids = np.fromiter((token for row in rows for token in row), dtype=dtype, count=sum(map(len, rows)))
            data = ids.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()
            digest.update(data)
            stream.write(data)
            num_tokens += len(ids)
            num_bytes += bytes_of_rows
        stream.flush()
        os.fsync(stream.fileno())
    sizes = {"num_tokens": num_tokens, "num_bytes": num_bytes, "num_documents": len(documents)}
    return {**sizes, "sha256": digest.hexdigest()}


def _is_whole(folder: Path) -> bool:
    return _meta(folder) is not None


def _meta(folder: Path) -> dict[str, Any] | None:
    """What a folder says of itself; None where it is missing, or its files are not what it says."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        width = np.dtype(meta["dtype"]).itemsize
        for name in SPLIT_NAMES:
            path, said = folder / f"{name}.bin", meta["splits"][name]
            if path.stat().st_size != said["num_tokens"] * width:
                return None
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != said["sha256"]:
                    return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return meta


def _open_split(folder: Path, name: str, meta: Mapping[str, Any]) -> SplitTokens:
    said = meta["splits"][name]
    dtype = np.dtype(meta["dtype"]).newbyteorder("<")
    # An empty file cannot be mapped.
    ids: _Array = np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r") if said["num_tokens"] else np.zeros(0, dtype)
    return SplitTokens(ids=ids, num_bytes=said["num_bytes"], num_documents=said["num_documents"])
