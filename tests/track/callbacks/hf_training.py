"""Trainers of a fraction of a second, for the tests of the Hugging Face callback."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainingArguments

NUM_ROWS = 64


def small_model() -> Any:
    torch.manual_seed(0)
    shape = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(shape)


@functools.cache
def rows() -> list[dict[str, Any]]:
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (NUM_ROWS, 8), generator=source)
    return [{"input_ids": row, "labels": row[0] % 2} for row in ids]


def trainer(callbacks: list[Any], folder: str | Path = "out", **arguments: Any) -> Trainer:
    """A Trainer of 8 rows a step, with a constant learning rate unless told otherwise."""
    defaults: dict[str, Any] = {
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "save_steps": 4,
        "max_steps": 8,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    args = TrainingArguments(output_dir=str(folder), **(defaults | arguments))
    built = Trainer(
        small_model(),
        args,
        train_dataset=rows(),
        eval_dataset=rows()[:16],
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        callbacks=callbacks,
    )
    built.remove_callback(transformers.PrinterCallback)
    return built
