"""Byte-level BPE: trained on a corpus, or one that exists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from thalweg.errors import ConfigError

END_OF_TEXT = "<|endoftext|>"
"""Ends every document. Text that says so literally stays text."""

SMALLEST = 256 + 1
"""Every byte, and the end of text."""

_MOST_BYTES = 200_000_000  # a sample of so much text settles the merges; the trainer holds its words in memory
_AT_ONCE = 1024  # documents

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Turns documents into tokens."""

    backend: tokenizers.Tokenizer
    end_of_text: int
    """Id of the token that ends a document."""

    @property
    def size(self) -> int:
        """Tokens that it knows."""
        return self.backend.get_vocab_size()

    def encode(self, documents: Sequence[str]) -> Iterator[tuple[list[list[int]], int]]:
        """Some documents at a time: their tokens, each ended by the end of text, and their UTF-8 bytes."""
        for first in range(0, len(documents), _AT_ONCE):
            some = list(documents[first : first + _AT_ONCE])
            encoded = self.backend.encode_batch_fast(some, add_special_tokens=False)
            rows = [[*row.ids, self.end_of_text] for row in encoded]
            yield rows, sum(len(text.encode()) for text in some)

    def token_bytes(self) -> _Array | None:
        """int32 [size]: the UTF-8 bytes that each token stands for; None where it is not a byte-level tokenizer."""
        if not _is_byte_level(self.backend):
            return None
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        added = {token.content for token in self.backend.get_added_tokens_decoder().values()}
        lengths = np.zeros(max(vocabulary.values()) + 1, dtype=np.int32)
        for token, index in vocabulary.items():
            # In the byte-level alphabet each character stands for a byte; added tokens are written as they are.
            lengths[index] = len(token.encode()) if token in added else len(token)
        lengths[self.end_of_text] = 0
        return lengths

    def save(self, folder: Path) -> None:
        """As transformers reads it: `AutoTokenizer.from_pretrained(folder)`."""
        (folder / "tokenizer.json").write_text(self.backend.to_str(), encoding="utf-8")
        token = self.backend.id_to_token(self.end_of_text)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": token}
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's way of parting words. The same texts give the same tokenizer.

    Args:
        texts: documents in a shuffled order; the first 200 MB are learnt from.
        vocabulary: tokens that it shall know, bytes and the end of text included.
    Raises:
        ConfigError: fewer than 257, or more than the texts can fill.
    """
    check_vocabulary(vocabulary)
    # The types that `tokenizers` ships for these constructors know no keywords.
    backend: Any = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_sample(texts), trainer)
    backend.encode_special_tokens = True
    if (size := backend.get_vocab_size()) < vocabulary:
        raise ConfigError(
            f"model.vocabulary = {vocabulary}: the training text fills only {size}; set {size} or less, or train on"
            " more text"
        )
    return Tokenizer(backend=backend, end_of_text=backend.token_to_id(END_OF_TEXT))


def check_vocabulary(vocabulary: int) -> None:
    """Refuse what cannot hold every byte."""
    if vocabulary < SMALLEST:
        raise ConfigError(
            f"model.vocabulary = {vocabulary}: a byte-level tokenizer needs at least {SMALLEST}, 256 bytes and the end"
            " of text"
        )


def load(name: str) -> Tokenizer:
    """A tokenizer that exists.

    Args:
        name: a hub id, or a folder with tokenizer.json.
    Raises:
        ConfigError: there is none, it is not a fast one, or it has no end-of-text token.
    """
    import transformers

    path = Path(name).expanduser()
    if path.is_dir() and not (path / "tokenizer.json").is_file():
        raise ConfigError(f"data.tokenizer = {name!r}: the folder has no tokenizer.json")
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(str(path) if path.is_dir() else name)
    except Exception as error:  # the hub's client and `tokenizers` raise a great many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"data.tokenizer = {name!r} is neither a folder nor on the hub: {reason}") from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"data.tokenizer = {name!r}: has no fast form (tokenizer.json)")
    if loaded.eos_token_id is None:
        raise ConfigError(f"data.tokenizer = {name!r}: has no end-of-text token (eos_token) to part documents by")
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return Tokenizer(backend=backend, end_of_text=loaded.eos_token_id)


def _sample(texts: Iterable[str]) -> Iterator[str]:
    left = _MOST_BYTES
    for text in texts:
        if left <= 0:
            return
        left -= len(text)
        yield text


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    described = json.loads(backend.to_str())
    normalizer, steps = described.get("normalizer"), described.get("pre_tokenizer") or {}
    # A normalizer changes the bytes, a prefix space adds one.
    parts = [steps, *steps.get("pretokenizers", ())]
    return normalizer is None and any(p.get("type") == "ByteLevel" and not p.get("add_prefix_space") for p in parts)
