"""Tiny models with random weights, tiny data, and a run that only remembers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from thalweg.budget import Cost
from thalweg.space import Hyperparameters

GOOD = ["good", "fine", "great", "superb"]
BAD = ["bad", "poor", "awful", "dull"]
FILL = ["the", "film", "was", "and", "plot", "cast", "a", "of", "it", "very"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_tokenizer(folder: Path, *, special: bool) -> Any:
    """Word-level; with [CLS] and [SEP] around each text, or with an end-of-text token only."""
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words.train_from_iterator([" ".join(GOOD + BAD + FILL)], trainers.WordLevelTrainer(special_tokens=tokens))
    if special:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]"} if special else {"eos_token": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **names)
    fast.save_pretrained(folder)
    return fast


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel without a head: hidden 32, 2 layers, 2 heads, intermediate 64, 22 words, 64 positions."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = make_tokenizer(folder, special=True)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path, *, tied: bool = False) -> Path:
    """A LlamaForCausalLM: hidden 32, 2 layers, 4 heads and 2 for keys and values, intermediate 64, 22 words."""
    tokenizer = make_tokenizer(folder, special=False)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attention_dropout=0.1,
        bos_token_id=None,
        eos_token_id=3,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


def make_reviews(num_rows: int, seed: int = 0) -> pd.DataFrame:
    """Texts of 5 to 12 words, all different, with as many good as bad ones; learnable."""
    rng = np.random.default_rng(seed)
    rows: dict[str, int] = {}
    while len(rows) < num_rows:
        label = len(rows) % 2
        words = [*rng.choice(FILL, size=rng.integers(3, 10)), *rng.choice(GOOD if label else BAD, size=2)]
        rng.shuffle(words)
        rows.setdefault(" ".join(words), label)
    return pd.DataFrame({"text": list(rows), "label": list(rows.values())})


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows: 48 to train on, 6 to validate, 6 to test."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    make_reviews(60).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as prompts and completions of one or two words."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    table = make_reviews(60)
    table["answer"] = ["very good" if label else "bad" for label in table["label"]]
    table.rename(columns={"text": "question"})[["question", "answer"]].to_json(path, orient="records", lines=True)
    return path


class FakeRun:
    """An `ActiveRun` that keeps everything, and stops when it has been asked `stop_at` times."""

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        *,
        horizon: int,
        until: int | None = None,
        start: int = 0,
        state: Mapping[str, Any] | None = None,
        seed: int = 1,
        stop_at: int | None = None,
    ) -> None:
        self.id = "test-0"
        self.hyperparameters = hyperparameters
        self.seed = seed
        self.start = start
        self.until = horizon if until is None else until
        self.horizon = horizon
        self.points: dict[tuple[str, int], float] = {}
        self.reports: dict[int, dict[str, float]] = {}
        self.states: dict[int, Mapping[str, Any]] = {}
        self.spent: list[tuple[str, Cost]] = []
        self.events: list[tuple[str, int]] = []
        self.due: Callable[[], bool] = lambda: False
        self.num_asked = 0
        self._state = state
        self._stop_at = stop_at

    def restore(self) -> Mapping[str, Any] | None:
        return copy.deepcopy(self._state)

    def log(self, position: int, /, **metrics: float) -> None:
        self.points |= {(name, position): value for name, value in metrics.items()}
        self.events += [("log", position)]

    def report(self, position: int, /, **metrics: float) -> None:
        self.reports[position] = metrics
        self.events += [("report", position)]

    def save(self, position: int, state: Mapping[str, Any]) -> None:
        self.states[position] = copy.deepcopy(state)
        self.events += [("save", position)]

    def assert_continues(self, whole: FakeRun, as_plain: Callable[[Any], Any]) -> None:
        """Every point, report and checkpoint of this run is the uninterrupted one's."""
        assert self.points
        assert {key: whole.points[key] for key in self.points} == self.points
        assert self.reports == whole.reports
        for position in self.states:
            assert as_plain(self.states[position]) == as_plain(whole.states[position])

    def checkpoint_due(self) -> bool:
        return self.due()

    def should_stop(self) -> bool:
        self.num_asked += 1
        return self._stop_at is not None and self.num_asked >= self._stop_at

    def spend(self, kind: str, cost: Cost) -> None:
        self.spent.append((kind, cost))

    def total(self, kind: str) -> Cost:
        return sum((cost for spent, cost in self.spent if spent == kind), Cost())

    def curve(self, name: str) -> dict[int, float]:
        return {position: value for (metric, position), value in self.points.items() if metric == name}


@pytest.fixture(scope="session")
def fake_run() -> type[FakeRun]:
    return FakeRun


def flat(value: Any) -> Any:
    """A state as plain values, so that two can be compared exactly."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tolist())
    if isinstance(value, Mapping):
        return {key: flat(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item) for item in value]
    return value


@pytest.fixture(scope="session")
def as_plain() -> Callable[[Any], Any]:
    return flat


@pytest.fixture(scope="session")
def add_costs() -> Callable[[Cost], tuple[int, int, float]]:
    """What of a cost can be predicted."""
    return lambda cost: dataclasses.astuple(cost)[:3]
