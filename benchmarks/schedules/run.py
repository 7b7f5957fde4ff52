"""Are schedules those of Hugging Face, torch and optax at every position? What does it cost to bridge one to torch?

    make bench NAME=schedules

Ten settings are compared at each of 10,000 steps. Then a 1M-parameter Llama is trained with a batch of 16 x 128 tokens,
and within that loop the optimizer's step is followed by the LR scheduler's, which is timed beside the whole training
step. Writes result.json beside this file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers.optimization as hf
from transformers import LlamaConfig, LlamaForCausalLM

from thalweg.schedules import Schedule, cosine, cyclic_wsd, in_steps, preset

sys.path.append(str(Path(__file__).parents[1]))
import result

try:
    from peers import SETTINGS, STEPS
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed; optax, with jax, is an extra: pip install -e '.[bench]'")

EXACT = 1e-12
BATCH, LENGTH = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="training steps that are timed, per schedule")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    claims = [agreement(), *bridging(options.steps)]
    result.write(options.out, claims, ["torch", "transformers", "optax", "jax"])


def agreement() -> dict[str, Any]:
    """The largest difference of any setting at any step."""
    differences = {}
    for setting in SETTINGS:
        theirs = setting.theirs()
        assert len(theirs) == STEPS
        differences[setting.name] = max(abs(setting.ours(step) - value) for step, value in enumerate(theirs))
        print(f"{setting.name}: {differences[setting.name]:.1e}", flush=True)
    largest = max(differences.values())
    claim = result.claim(
        f"largest difference to the same schedule of transformers, torch or optax, {len(SETTINGS)} settings,"
        f" every one of {STEPS:,} steps, peak 1",
        {name: f"{difference:.1e}" for name, difference in differences.items()},
        largest,
        at_most=EXACT,
    )
    # The ratio is rounded to four places elsewhere, which is 0 here.
    return {**claim, "ratio": float(f"{largest:.2e}")}


def bridging(num_steps: int) -> list[dict[str, Any]]:
    """What a scheduler's step takes of a training step, for cheap and for costly schedules."""
    bloom = preset("bloom-176b")
    assert bloom.batch is not None
    schedules: dict[str, Schedule] = {
        "cosine": cosine(warmup=10, horizon=10_000, floor=0.1),
        "cyclic_wsd, growing cycles": cyclic_wsd(period=7, cycle_growth=1.2, decay=0.1, decay_form="1-sqrt"),
        "bloom-176b by step, under its batch ramp": in_steps(bloom.schedule, bloom.batch),
    }
    claims = []
    for name, schedule in schedules.items():
        train, step, peer = timed(schedule, num_steps)
        claims.append(
            result.claim(
                f"share of a training step that the LR scheduler takes, {name}; 1M-parameter Llama,"
                f" batch {BATCH} x {LENGTH}, one thread",
                {"training_step_ms": train * 1e3, "scheduler_us": step * 1e6, "transformers_cosine_us": peer * 1e6},
                step / train,
                at_most=0.01,
            )
        )
    return claims


def timed(schedule: Schedule, num_steps: int) -> tuple[float, float, float]:
    """Median seconds of a training step, of our scheduler's step after it, and of Hugging Face's."""
    from thalweg.optim.lr_scheduler import ScheduledLR

    model = small_llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ours = ScheduledLR(optimizer, schedule)
    theirs = hf.get_cosine_schedule_with_warmup(torch.optim.AdamW(model.parameters(), lr=1e-3), 10, 10_000)
    theirs.optimizer.step()
    seconds: list[tuple[float, float, float]] = []
    for _ in range(num_steps + 3):
        tokens = torch.randint(0, model.config.vocab_size, (BATCH, LENGTH))
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trained = time.perf_counter()
        ours.step()
        stepped = time.perf_counter()
        theirs.step()
        seconds.append((trained - start, stepped - trained, time.perf_counter() - stepped))
    # The first steps are slower: memory is not yet there.
    train, step, peer = (statistics.median(column) for column in zip(*seconds[3:], strict=True))
    return train, step, peer


def small_llama() -> Any:
    """About a million parameters, its tied embeddings included."""
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).train()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 0.9e6 < num_parameters < 1.2e6, num_parameters
    return model


if __name__ == "__main__":
    main()
