"""Splits as tokens: one flat array per split, batches padded to their longest row.

Shapes: B rows of a batch, S tokens of its longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thalweg.errors import ConfigError
from thalweg.train.data import SPLIT_NAMES, Data, Split, Task, load
from thalweg.train.model import load_tokenizer, max_positions

IGNORED = -100
"""Label of a token that no loss is computed on, as in torch and transformers."""

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Batch:
    """Rows on their way through the model."""

    input_ids: torch.Tensor
    """int64 (B, S)."""
    attention_mask: torch.Tensor
    """int64 (B, S): 1 for a token, 0 for padding."""
    labels: torch.Tensor
    """Classes (B), or each token's id with `IGNORED` where there is no loss (B, S)."""

    @property
    def num_tokens(self) -> int:
        """Padding included."""
        return self.input_ids.numel()

    @property
    def num_targets(self) -> int:
        """What a loss averages over: rows, or tokens that are predicted (never a row's first one)."""
        targets = self.labels if self.labels.dim() == 1 else self.labels[:, 1:]
        return int((targets != IGNORED).sum())

    def to(self, device: torch.device) -> Batch:
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


@dataclass(frozen=True)
class TokenizedSplit:
    """All rows of a split."""

    tokens: _Array
    """int32, all rows one after the other."""
    offsets: _Array
    """int64 [rows + 1]: where each row begins in `tokens`."""
    labels: _Array | None
    """int64 [rows]: classes, for classification."""
    num_prompt_tokens: _Array | None
    """int32 [rows]: leading tokens that no loss is computed on, for causal models."""
    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> _Array:
        """Tokens per row."""
        return np.diff(self.offsets)

    def batch(self, rows: Sequence[int] | _Array) -> Batch:
        """Put rows together, padded on the right."""
        lengths = self.lengths[rows]
        input_ids = torch.full((len(rows), int(lengths.max())), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        token_labels = torch.full_like(input_ids, IGNORED)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            ids = torch.from_numpy(self.tokens[self.offsets[row] : self.offsets[row] + length].astype(np.int64))
            input_ids[i, :length] = ids
            mask[i, :length] = 1
            if self.num_prompt_tokens is not None:
                start = self.num_prompt_tokens[row]
                token_labels[i, start:length] = ids[start:]
        labels = token_labels if self.labels is None else torch.from_numpy(self.labels[rows])
        return Batch(input_ids, mask, labels)


@dataclass(frozen=True)
class Rows:
    """All splits as tokens: what a worker keeps of the data."""

    train: TokenizedSplit
    validation: TokenizedSplit
    test: TokenizedSplit
    classes: tuple[str, ...]
    num_duplicates: int
    """Rows left out because the same text was there already."""
    fingerprint: str
    """sha256 of the chosen rows."""


def read_rows(data: Data, task: Task, model: str) -> Rows:
    """Load the data and tokenize it with the model's tokenizer.

    Raises:
        ConfigError: the data or the tokenizer cannot be used; see `data.load` and `tokenize`.
    """
    splits = load(data, task)
    tokenizer = load_tokenizer(model)
    limit = max_positions(model, tokenizer)
    if data.max_tokens is not None and data.max_tokens > limit:
        raise ConfigError(f"data.max_tokens = {data.max_tokens}: {model} takes at most {limit} tokens")
    num_special = tokenizer.num_special_tokens_to_add()
    max_tokens = data.max_tokens or limit
    if max_tokens <= num_special:
        raise ConfigError(f"data.max_tokens = {max_tokens} leaves no room for text beside {num_special} special tokens")
    tokenized = {name: tokenize(name, getattr(splits, name), tokenizer, data, max_tokens) for name in SPLIT_NAMES}
    return Rows(
        tokenized["train"],
        tokenized["validation"],
        tokenized["test"],
        splits.classes,
        splits.num_duplicates,
        splits.fingerprint,
    )


def tokenize(name: str, split: Split, tokenizer: Any, data: Data, max_tokens: int) -> TokenizedSplit:
    """Turn a split's rows into tokens.

    Args:
        name: the split's name, for messages.
        tokenizer: a transformers tokenizer with a padding token.
        max_tokens: rows are cut to this many tokens, special ones included, at the end that `data.keep` does not name.
    Raises:
        ConfigError: a row would have no token to learn from.
    """
    if not len(split):
        labels = None if split.labels is None else np.zeros(0, dtype=np.int64)
        empty = np.zeros(0, dtype=np.int32)
        return TokenizedSplit(empty, np.zeros(1, dtype=np.int64), labels, None, tokenizer.pad_token_id)
    if split.labels is None:
        rows, num_prompt = _causal_rows(split, tokenizer)
        if data.keep == "end":
            num_prompt = [max(0, p - max(0, len(row) - max_tokens)) for row, p in zip(rows, num_prompt, strict=True)]
            rows = [row[-max_tokens:] for row in rows]
        rows = [row[:max_tokens] for row in rows]
        _check_targets(name, rows, num_prompt, max_tokens)
        num_prompt_tokens = np.array(num_prompt, dtype=np.int32)
        return TokenizedSplit(*_flatten(rows), None, num_prompt_tokens, tokenizer.pad_token_id)
    tokenizer.truncation_side = "right" if data.keep == "start" else "left"
    rows = _ids(tokenizer, split.texts, truncation=True, max_length=max_tokens)
    if not all(rows):
        raise ConfigError(f"data.{name}: {sum(not row for row in rows)} of {len(rows)} texts have no tokens")
    return TokenizedSplit(*_flatten(rows), np.array(split.labels, dtype=np.int64), None, tokenizer.pad_token_id)


def _causal_rows(split: Split, tokenizer: Any) -> tuple[list[list[int]], list[int]]:
    """Prompt and completion in a row with an end-of-text token, and how many tokens the prompt has."""
    ending = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def ended(row: list[int]) -> list[int]:
        return row if row[-1:] == ending else row + ending

    if split.prompts is None:
        rows = [ended(row) for row in _ids(tokenizer, split.texts)]
        return rows, [0] * len(rows)
    # Some tokenizers end every text; a prompt goes on.
    prompts = [row[:-1] if ending and row[-1:] == ending else row for row in _ids(tokenizer, split.prompts)]
    completions = _ids(tokenizer, split.texts, add_special_tokens=False)
    rows = [prompt + ended(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    return rows, [len(prompt) for prompt in prompts]


def _ids(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    encoded = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False, **options)
    return list(encoded["input_ids"])


def _check_targets(name: str, rows: list[list[int]], num_prompt: list[int], max_tokens: int) -> None:
    # A row's first token is never predicted.
    broken = sum(len(row) <= max(1, prompt) for row, prompt in zip(rows, num_prompt, strict=True))
    if broken:
        raise ConfigError(
            f"data.max_tokens = {max_tokens}: {broken} of {len(rows)} {name} rows have no token of the completion left"
            " to learn from; raise it, set data.keep = 'end', or leave these rows out"
        )


def _flatten(rows: list[list[int]]) -> tuple[_Array, _Array]:
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1])), offsets
