"""Functions from hyperparameters to Trainers, tiny ones, as a user would write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import transformers
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

Make = Callable[[Mapping[str, Any]], Any]

NUM_TRAIN = 26
"""Rows: batches of 4 make 7 steps an epoch, the last one of 2 rows."""


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def arguments(hyperparameters: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """What the hyperparameters say, as options of `TrainingArguments`."""
    return {
        "learning_rate": hyperparameters.get("lr", 3e-3),
        "weight_decay": hyperparameters.get("weight_decay", 0.0),
        "adam_beta2": hyperparameters.get("beta2", 0.999),
        "num_train_epochs": hyperparameters.get("epochs", 3),
        "max_steps": hyperparameters.get("max_steps", -1),
        "per_device_train_batch_size": hyperparameters.get("batch_size", 4),
        "logging_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 5,
        "use_cpu": True,
        **options,
    }


def classifier(bert: Path, reviews: Path, *, lora: bool = False, arguments_: Any = None, **more: Any) -> Make:
    """`more`: further options of Trainer; `arguments_`: of TrainingArguments."""
    table = pd.read_csv(reviews)
    train, validation = table[:NUM_TRAIN], table[NUM_TRAIN : NUM_TRAIN + 10]

    def make_trainer(hyperparameters: Mapping[str, Any]) -> Any:
        tokenizer = transformers.AutoTokenizer.from_pretrained(bert)

        def rows(part: pd.DataFrame) -> Any:
            encoded = tokenizer(list(part["text"]), truncation=True)
            return datasets.Dataset.from_dict({**encoded, "labels": list(part["label"])})

        model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            bert, hidden_dropout_prob=0.1, num_labels=2
        )
        if lora:
            rank = hyperparameters.get("lora_r", 4)
            config = LoraConfig(task_type="SEQ_CLS", r=rank, lora_dropout=0.1, target_modules=["query", "value"])
            model = get_peft_model(model, config)
        return Trainer(
            model,
            TrainingArguments(**arguments(hyperparameters, **(arguments_ or {}))),
            train_dataset=rows(train),
            eval_dataset=rows(validation),
            processing_class=tokenizer,
            compute_metrics=accuracy,
            **{name: value() for name, value in more.items()},
        )

    return make_trainer


def masked(bert: Path, reviews: Path) -> Make:
    """Masked language modelling: the collator draws which words are hidden."""
    texts = list(pd.read_csv(reviews)["text"])[:NUM_TRAIN]

    def make_trainer(hyperparameters: Mapping[str, Any]) -> Any:
        tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
        tokenizer.mask_token = "[UNK]"
        rows = datasets.Dataset.from_dict(dict(tokenizer(texts)))
        return Trainer(
            transformers.AutoModelForMaskedLM.from_pretrained(bert),
            TrainingArguments(**arguments(hyperparameters)),
            train_dataset=rows,
            eval_dataset=rows.select(range(8)),
            data_collator=transformers.DataCollatorForLanguageModeling(tokenizer),
        )

    return make_trainer


def _chat_words(llama: Path) -> tuple[Any, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    tokenizer.pad_token = "[PAD]"
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    return tokenizer, model


def sft(llama: Path, reviews: Path) -> Make:
    texts = list(pd.read_csv(reviews)["text"])

    def make_trainer(hyperparameters: Mapping[str, Any]) -> Any:
        from trl import SFTConfig, SFTTrainer

        tokenizer, model = _chat_words(llama)
        return SFTTrainer(
            model,
            args=SFTConfig(**arguments(hyperparameters, max_length=16, activation_checkpointing=False)),
            train_dataset=datasets.Dataset.from_dict({"text": texts[:NUM_TRAIN]}),
            eval_dataset=datasets.Dataset.from_dict({"text": texts[NUM_TRAIN : NUM_TRAIN + 8]}),
            processing_class=tokenizer,
        )

    return make_trainer


def dpo(llama: Path, reviews: Path) -> Make:
    texts = list(pd.read_csv(reviews)["text"])
    rows = {"prompt": texts, "chosen": [" very good"] * len(texts), "rejected": [" bad"] * len(texts)}

    def make_trainer(hyperparameters: Mapping[str, Any]) -> Any:
        from trl import DPOConfig, DPOTrainer

        tokenizer, model = _chat_words(llama)
        data = datasets.Dataset.from_dict(rows)
        return DPOTrainer(
            model,
            args=DPOConfig(**arguments(hyperparameters, activation_checkpointing=False)),
            train_dataset=data.select(range(NUM_TRAIN)),
            eval_dataset=data.select(range(NUM_TRAIN, NUM_TRAIN + 8)),
            processing_class=tokenizer,
        )

    return make_trainer


def num_good(completions: list[str], **_: Any) -> list[float]:
    """A reward: how often the completion has the first letter of "good"."""
    return [float(completion.count("g")) for completion in completions]


def grpo(llama: Path, reviews: Path) -> Make:
    texts = list(pd.read_csv(reviews)["text"])

    def make_trainer(hyperparameters: Mapping[str, Any]) -> Any:
        from trl import GRPOConfig, GRPOTrainer

        tokenizer, model = _chat_words(llama)
        options = {"num_generations": 2, "max_completion_length": 8, "activation_checkpointing": False}
        options |= {"steps_per_generation": 2, "eval_strategy": "no"}
        return GRPOTrainer(
            model,
            num_good,
            args=GRPOConfig(**arguments(hyperparameters, **options)),
            train_dataset=datasets.Dataset.from_dict({"prompt": texts[:8]}),
            eval_dataset=datasets.Dataset.from_dict({"prompt": texts[8:10]}),
            processing_class=tokenizer,
        )

    return make_trainer
