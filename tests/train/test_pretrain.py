"""What a call of the pre-training trainer does, logs, spends and refuses."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from thalweg.errors import ConfigError, RunInterrupted
from thalweg.space import Space
from thalweg.train import checkpoint, pretrain_loop
from thalweg.train.corpus import Corpus
from thalweg.train.held_out import HeldOut, Precision
from thalweg.train.llama import ModelShape
from thalweg.train.pretrain import Pretrain
from thalweg.trainer import Diverged, Trainer

Make = Callable[..., Pretrain]

SHAPE: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "vocabulary": 270, "context": 8}
STEP = 4 * 8
HORIZON = 20 * STEP
PLAIN = {"lr": 3e-3, "batch_size": 4, "tokens": HORIZON, "schedule": "constant", "warmup": 0.0}
"""A step is 32 tokens."""


@pytest.fixture(autouse=True)
def _no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Throughput is not the same twice."""
    monkeypatch.setattr(pretrain_loop, "_SPEED_SECONDS", math.inf)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "and", "hat"]
    path.write_text("\n".join(f"{i} {' '.join(rng.choice(words, size=12))}" for i in range(80)))
    return path


@pytest.fixture(scope="module")
def make(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    cache = tmp_path_factory.mktemp("tokens")

    def trainer(*, ready: bool = True, data: dict[str, Any] | None = None, **options: Any) -> Pretrain:
        shape = ModelShape(**{**SHAPE, **options.pop("model", {})})
        corpus = Corpus(**{"train": str(text), "separator": "\n", "cache": str(cache), **(data or {})})
        made = Pretrain(**{"model": shape, "data": corpus, "precision": "fp32", **options})
        if ready:
            made.setup()
        return made

    return trainer


def test_it_is_a_trainer(make: Make) -> None:
    trainer: Trainer = make()
    assert trainer.unit == "tokens"
    assert trainer.horizon(PLAIN) == HORIZON


def test_a_call_trains_saves_evaluates_and_reports_in_this_order(make: Make, fake_run: Any) -> None:
    run = fake_run(PLAIN | {"tokens": 190}, horizon=190)
    make(evaluations=2).train([run])
    # Half of the horizon, 95, is reached at 96; 190 at 192. A constant rate may be extended from the last step
    # boundary before the horizon.
    assert run.events == [
        *(("log", p) for p in (32, 64, 96)),
        ("log", 96),
        *(("log", p) for p in (128, 160)),
        ("save", 160),
        ("log", 192),
        ("save", 192),
        ("report", 192),
    ]
    assert set(run.curve("validation/loss")) == set(run.curve("validation/bits_per_byte")) == {96}
    assert set(run.reports[192]) == {"loss", "perplexity", "bits_per_byte"}
    assert all(norm > 0 for norm in run.curve("train/gradient_norm").values())


def test_a_call_ends_at_the_step_boundary_after_until(make: Make, fake_run: Any) -> None:
    trainer = make()
    run = fake_run(PLAIN, horizon=HORIZON, until=50)
    trainer.train([run])
    assert list(run.reports) == list(run.states) == [64]
    beyond = fake_run(PLAIN | {"tokens": 64}, horizon=64, until=1000)
    trainer.train([beyond])
    assert list(beyond.reports) == [64]


def test_a_checkpoint_is_written_when_it_is_due(make: Make, fake_run: Any) -> None:
    run = fake_run(PLAIN | {"tokens": 5 * STEP}, horizon=5 * STEP)
    run.due = lambda: ("log", 64) in run.events and 64 not in run.states
    make(evaluations=0).train([run])
    assert list(run.states) == [64, 160]


def test_the_learning_rate_of_each_step(make: Make, fake_run: Any) -> None:
    run = fake_run({"lr": 0.01, "batch_size": 4, "tokens": 320, "warmup": 0.2, "decay": 0.5}, horizon=320)
    make().train([run])
    # Warm-up to 64, peak to 160, then linearly down to 0 at 320; a step has the rate of the position it begins at.
    expected = [0, 0.005, 0.01, 0.01, 0.01, 0.01, 0.008, 0.006, 0.004, 0.002]
    assert list(run.curve("train/lr").values()) == pytest.approx(expected)


def test_it_trains_as_plain_torch_does(make: Make, fake_run: Any) -> None:
    """The same curve from transformers' model and loss, torch's optimiser, clipping and scheduler."""
    trainer = make()
    settings = {"lr": 0.01, "batch_size": 4, "tokens": HORIZON, "schedule": "linear", "warmup": 0.1}
    run = fake_run({**settings, "weight_decay": 0.2, "clip": 0.5}, horizon=HORIZON, seed=3)
    trainer.train([run])
    work = trainer._loaded()
    torch.manual_seed(3)
    model: Any = transformers.LlamaForCausalLM(work.config)
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 2, 20)
    ids = work.tokens.train.ids.astype(np.int64)
    num_windows = (len(ids) - 1) // 8
    rng = np.random.default_rng([3, 0])
    starts = rng.permutation(num_windows) * 8 + rng.integers(8)
    losses, norms = [], []
    for step in range(20):
        rows = [np.roll(ids, -start)[:9] for start in starts[4 * step : 4 * step + 4]]
        tokens = torch.from_numpy(np.stack(rows))
        loss = functional.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert list(run.curve("train/loss").values()) == pytest.approx(losses, rel=1e-4)
    assert list(run.curve("train/gradient_norm").values()) == pytest.approx(norms, rel=1e-3)
    assert max(norms) > 0.5  # it did clip
    split = torch.from_numpy(work.tokens.validation.ids.astype(np.int64))
    count = (len(split) - 1) // 8
    inputs, targets = split[: count * 8].view(count, 8), split[1 : count * 8 + 1].view(count, 8)
    with torch.no_grad():
        validation = functional.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten())
    report = run.reports[HORIZON]
    assert report["loss"] == pytest.approx(float(validation), rel=1e-4)
    assert report["perplexity"] == pytest.approx(math.exp(report["loss"]))


def test_bits_per_byte_of_an_even_guess(make: Make, fake_run: Any) -> None:
    """All weights 0: each of 270 tokens is as likely, so a token takes log2(270) bits."""
    trainer = make()
    run = fake_run(PLAIN, horizon=HORIZON, until=STEP)
    trainer.train([run])
    zeros = {name: torch.zeros_like(weight) for name, weight in run.states[STEP]["model"].items()}
    tokens = trainer._loaded().tokens
    num_targets = (len(tokens.validation) - 1) // 8 * 8
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tokens.folder)
    decoded = tokenizer.decode(tokens.validation.ids[1 : num_targets + 1].astype(int), skip_special_tokens=True)
    measured = trainer.evaluate_weights(zeros, hyperparameters=PLAIN)
    assert measured["loss"] == pytest.approx(math.log(270))
    assert measured["bits_per_byte"] == pytest.approx(math.log2(270) * num_targets / len(decoded.encode()))


def test_any_weights_can_be_evaluated(make: Make, fake_run: Any) -> None:
    trainer = make()
    run = fake_run(PLAIN, horizon=HORIZON, until=5 * STEP)
    trainer.train([run])
    (position,) = run.reports
    weights = run.states[position]["model"]
    assert trainer.evaluate_weights(weights, hyperparameters=PLAIN) == run.reports[position]
    on_train = trainer.evaluate_weights(weights, hyperparameters=PLAIN, split="train")
    assert on_train["loss"] != run.reports[position]["loss"]
    with pytest.raises(ConfigError, match="shape"):
        trainer.evaluate_weights({name: weight[..., :4] for name, weight in weights.items()}, hyperparameters=PLAIN)
    with pytest.raises(ConfigError, match="is missing"):
        trainer.evaluate_weights({}, hyperparameters=PLAIN)


def test_the_micro_batch_changes_nothing_but_rounding(make: Make, fake_run: Any) -> None:
    curves = []
    for micro_batch in (1, 3, 16):
        run = fake_run(PLAIN | {"batch_size": 7}, horizon=HORIZON)
        make(micro_batch=micro_batch).train([run])
        curves.append(run.points | {("report", p): v["loss"] for p, v in run.reports.items()})
    assert curves[0] == pytest.approx(curves[1], rel=1e-3, abs=1e-5)
    assert curves[0] == pytest.approx(curves[2], rel=1e-3, abs=1e-5)


def test_a_model_that_can_learn_does(make: Make, fake_run: Any) -> None:
    tokens = 400 * STEP
    run = fake_run({"lr": 0.02, "batch_size": 4, "tokens": tokens, "warmup": 0.1, "decay": 0.3}, horizon=tokens)
    make().train([run])
    losses = list(run.curve("train/loss").values())
    assert losses[0] == pytest.approx(math.log(270), rel=0.02)
    # Nine words at random and a counting number: about ln(9) nats a word is all there is to learn.
    assert run.reports[tokens]["loss"] < 3.2


def test_bf16_is_close_to_fp32(make: Make, fake_run: Any) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        run = fake_run(PLAIN, horizon=HORIZON)
        make(precision=precision).train([run])
        losses.append(list(run.curve("train/loss").values()))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_small_models_are_trained_in_fp32(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thalweg.train.evaluate.has_bf16", lambda _: True)
    assert not make(precision="auto", ready=False)._precision().bf16
    large = {"layers": 2, "width": 256, "heads": 4}
    assert make(precision="auto", ready=False, model=large)._precision().bf16
    assert not make(precision="fp32", ready=False, model=large)._precision().bf16


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay_kind": "l2"},
        {"weight_decay_kind": "independent"},
        {"clip_by": "value", "clip": 0.01},
        {"clip_by": "component", "clip": 0.01},
        {"clip": 0.01},
        {"beta1": 0.8},
        {"schedule": "cosine"},
        {"schedule": "cyclic_wsd", "num_cycles": 2, "decay": 0.5},
    ],
)
def test_every_way_of_optimising_is_another_curve(make: Make, fake_run: Any, change: dict[str, Any]) -> None:
    trainer = make()
    runs = [fake_run({**PLAIN, "clip": 0, "weight_decay": 0.3, **extra}, horizon=HORIZON) for extra in ({}, change)]
    for run in runs:
        trainer.train([run])
    first, second = (list(run.curve("train/loss").values()) for run in runs)
    assert first[0] == second[0]
    assert first != second
    assert all(math.isfinite(loss) for loss in second)


def test_components_are_clipped_together(make: Make, fake_run: Any) -> None:
    hyperparameters = {**PLAIN, "clip_by": "component", "clip": 0.01}
    runs = [fake_run(hyperparameters, horizon=HORIZON) for _ in range(3)]
    make().train([runs[0]])
    make(clip_components={"all": "."}).train([runs[1]])
    make().train([runs[2].__class__({**PLAIN, "clip": 0.01}, horizon=HORIZON)])
    by_norm = fake_run({**PLAIN, "clip": 0.01}, horizon=HORIZON)
    make().train([by_norm])
    together = list(runs[1].curve("train/loss").values())
    assert together == pytest.approx(list(by_norm.curve("train/loss").values()), rel=1e-4)
    assert together != pytest.approx(list(runs[0].curve("train/loss").values()), rel=1e-4)


def test_the_monitor_speaks_every_so_many_steps(make: Make, fake_run: Any) -> None:
    run = fake_run(PLAIN, horizon=HORIZON)
    make(monitor_every=5).train([run])
    # Steps 0, 5, 10 and 15 are measured, and logged at the position that they lead to.
    assert list(run.curve("adam_effective_lr")) == [STEP, 6 * STEP, 11 * STEP, 16 * STEP]
    norms = {name: run.curve(name) for name, _ in run.points if name.startswith("gradient_norm/")}
    total = math.sqrt(sum(curve[STEP] ** 2 for curve in norms.values()))
    assert total == pytest.approx(run.curve("train/gradient_norm")[STEP], rel=1e-4)
    silent = fake_run(PLAIN, horizon=HORIZON)
    make().train([silent])
    assert run.curve("train/loss") == silent.curve("train/loss")
    assert not silent.curve("adam_effective_lr")


def test_the_monitor_knows_the_steps_own_rate(make: Make, fake_run: Any) -> None:
    trainer = make(monitor_every=1)
    run = fake_run({"lr": 0.01, "batch_size": 4, "tokens": HORIZON, "warmup": 0.1}, horizon=HORIZON)
    trainer.train([run])
    weight = pretrain_loop.build(trainer._loaded(), run.seed).model.layers[0].mlp.up_proj.weight
    effective = run.curve("effective_lr/up_proj")
    # Two steps of warm-up: the first one has rate 0 and changes nothing, the second has half the peak.
    assert effective[STEP] == 0
    assert effective[2 * STEP] == pytest.approx(0.005 / float(weight.detach().norm()) ** 2, rel=1e-5)


def test_throughput_is_logged(make: Make, fake_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_loop, "_SPEED_SECONDS", 0.0)
    clock = iter(np.arange(0, 1e4, 0.5))
    monkeypatch.setattr(pretrain_loop.time, "perf_counter", lambda: float(next(clock)))
    trainer = make(peak_flops=1e9, evaluations=0)
    run = fake_run(PLAIN, horizon=HORIZON)
    trainer.train([run])
    speed, mfu = run.curve("train/tokens_per_second"), run.curve("train/mfu")
    assert list(speed) == list(range(2 * STEP, HORIZON + 1, STEP))  # the first step warms up
    per_token = trainer.cost(PLAIN | {"batch_size": 1}, 0, 8).flops - _evaluation(trainer).flops
    for position, value in speed.items():
        assert mfu[position] == pytest.approx(value * per_token / 8 / 1e9)
    silent = fake_run(PLAIN, horizon=HORIZON)
    make(evaluations=0).train([silent])
    assert not silent.curve("train/mfu")


def _evaluation(trainer: Pretrain) -> Any:
    """Nothing is trained: the report alone."""
    return trainer.cost(PLAIN, 0, 0)


def test_the_flops_of_a_token(make: Make) -> None:
    # Width 16, feed-forward 64: 4*16*16 + 3*16*64 + 2*16 in the layer, 16 in the last norm, 270*16 in the output.
    weights = 4 * 256 + 3 * 16 * 64 + 32 + 16 + 270 * 16
    attention = 1 * 16 * 8
    trainer = make(validation_tokens=8)
    cost = trainer.cost(PLAIN, 0, STEP)
    assert cost.flops == STEP * (6 * weights + 12 * attention) + 8 * (2 * weights + 4 * attention)
    assert (cost.samples, cost.tokens) == (5, 40)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_spent_is_what_was_predicted(make: Make, fake_run: Any, add_costs: Any, data: st.DataObject) -> None:
    batch_size, evaluations = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 5))
    horizon = data.draw(st.integers(1, 300))
    trainer = make(evaluations=evaluations, micro_batch=3, validation_tokens=40)
    settings = PLAIN | {"batch_size": batch_size, "tokens": horizon, "warmup": 0.0}
    until = data.draw(st.integers(1, horizon))
    run = fake_run(settings, horizon=horizon, until=until)
    trainer.train([run])
    spent = sum((cost for kind, cost in run.spent if kind != "setup"), type(run.spent[0][1])())
    assert add_costs(spent) == pytest.approx(add_costs(trainer.cost(settings, 0, until)))
    (position,) = run.reports
    rest = fake_run(settings, horizon=horizon, start=position, state=run.states[position])
    trainer.train([rest])
    spent = sum((cost for _, cost in rest.spent), type(run.spent[0][1])())
    assert add_costs(spent) == pytest.approx(add_costs(trainer.cost(settings, position, horizon)))


def test_the_test_split_is_estimated(make: Make, fake_run: Any) -> None:
    trainer = make(test_tokens=60)
    run = fake_run(PLAIN, horizon=HORIZON)
    trainer.train([run])
    at_end = fake_run(PLAIN, horizon=HORIZON, start=HORIZON, state=run.states[HORIZON])
    estimates = trainer.test(at_end)
    assert set(estimates) == {"loss", "perplexity", "bits_per_byte"}
    measured = trainer.evaluate_weights(run.states[HORIZON]["model"], hyperparameters=PLAIN, split="test")
    for name, estimate in estimates.items():
        assert estimate.value == pytest.approx(measured[name])
        assert estimate.low < estimate.value < estimate.high
        assert estimate.num_samples == 7  # whole sequences of 8 in 60 tokens
    assert at_end.total("evaluate").tokens == 56
    assert make(data={"test": 0.0}).test(at_end) == {}
    with pytest.raises(RunInterrupted):
        trainer.test(fake_run(PLAIN, horizon=HORIZON, stop_at=1))


@pytest.mark.parametrize(
    ("hyperparameters", "end"),
    [
        ({"decay": 0.25}, 15 * STEP),
        ({"decay": 0.26}, 14 * STEP),
        ({"decay": 100}, 16 * STEP),  # the decay begins at 540, the step at 512
        ({"decay": 0.25, "batch_size": 6}, 480),
        ({"schedule": "constant"}, HORIZON),
        ({"schedule": "constant", "batch_size": 6}, 13 * 48),
        ({"schedule": "cosine"}, None),
        ({"schedule": "linear"}, None),
    ],
)
def test_where_the_stable_phase_ends(make: Make, fake_run: Any, hyperparameters: dict[str, Any], end: Any) -> None:
    trainer = make()
    settings = {"lr": 3e-3, "batch_size": 4, "tokens": HORIZON, "warmup": 0.1, **hyperparameters}
    assert trainer.stable_end(settings) == end
    run = fake_run(settings, horizon=HORIZON)
    trainer.train([run])
    assert set(run.states) == {max(run.states)} | ({end} if end is not None else set())


@pytest.mark.parametrize("names", [("tokens", "warmup"), ("num_tokens", "warmup_ratio")])
def test_an_extended_run_is_the_same_up_to_the_stable_end(
    make: Make, fake_run: Any, as_plain: Any, names: tuple[str, str]
) -> None:
    trainer = make(evaluations=0)
    tokens, warmup = names
    settings = {"lr": 0.01, "batch_size": 4, tokens: HORIZON, warmup: 0.1, "decay": 0.2}
    run = fake_run(settings, horizon=HORIZON)
    trainer.train([run])
    end = trainer.stable_end(settings)
    assert end == 16 * STEP
    changes = trainer.extended(settings, 2 * HORIZON)
    assert set(changes) == {tokens, warmup}
    longer = settings | dict(changes)
    assert trainer.horizon(longer) == 2 * HORIZON
    whole = fake_run(longer, horizon=2 * HORIZON)
    trainer.train([whole])
    branch = fake_run(longer, horizon=2 * HORIZON, start=end, state=run.states[end])
    trainer.train([branch])
    assert {key: value for key, value in run.points.items() if key[1] <= end}.items() <= whole.points.items()
    assert branch.points.items() <= whole.points.items()
    assert as_plain(branch.states[2 * HORIZON]) == as_plain(whole.states[2 * HORIZON])


def test_a_run_without_a_warm_up_is_extended_by_its_tokens(make: Make) -> None:
    assert make().extended({"warmup": 0.0}, 5000) == {"tokens": 5000}
    assert make().extended({"warmup": 64}, 5000) == {"tokens": 5000}


@pytest.mark.parametrize("where", ["weight", "loss"])
def test_what_is_not_finite_diverges(make: Make, fake_run: Any, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    trainer = make()
    if where == "weight":
        run = fake_run(PLAIN | {"lr": 1e30, "clip": 0}, horizon=HORIZON)
    else:
        run = fake_run(PLAIN, horizon=HORIZON)
        mean_loss = Precision.mean_loss
        monkeypatch.setattr(Precision, "mean_loss", lambda *given: mean_loss(*given) + math.inf)
    with pytest.raises(Diverged, match=r"at position \d+ "):
        trainer.train([run])
    assert not run.states


def test_short_of_memory_it_goes_on_with_half(make: Make, fake_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fake_run(PLAIN | {"batch_size": 8}, horizon=HORIZON)
    make(micro_batch=8).train([expected])
    logits, sizes = Precision.logits, []

    def small_only(self: Precision, model: Any, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(len(inputs))
        return logits(self, model, inputs)

    monkeypatch.setattr(Precision, "logits", small_only)
    run = fake_run(PLAIN | {"batch_size": 8}, horizon=HORIZON)
    make(micro_batch=8).train([run])
    assert max(sizes) == 2
    assert run.points == pytest.approx(expected.points, rel=1e-3, abs=1e-5)
    assert run.total("train").tokens == HORIZON  # only what was done is counted
    monkeypatch.setattr(Precision, "logits", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        make(micro_batch=8).train([fake_run(PLAIN, horizon=HORIZON)])


def test_the_probe_measures_and_leaves_no_trace(make: Make) -> None:
    trainer = make()
    before = checkpoint.capture_rng()["torch"]
    speed = trainer.probe()
    assert speed is not None
    assert speed > 1e5
    assert checkpoint.capture_rng()["torch"].equal(before)


def test_facts_and_description(make: Make, tmp_path: Path) -> None:
    trainer = make(ready=False)
    described = trainer.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["kind"] == "pretrain"
    elsewhere = make(ready=False, data={"cache": str(tmp_path)})
    assert elsewhere.describe() == described
    assert make(ready=False, data={"split_seed": 1}).describe()["fingerprint"] != described["fingerprint"]
    facts = trainer.facts()
    # 4*16*16 + 3*16*64 + 3*16 without the embedding, and 270*16 in it.
    assert "8,464 parameters, 4,144 without" in facts["model"]
    assert f"{described['num_tokens']['train']:,} tokens" in facts["data"]


def test_it_travels_to_workers_without_what_it_has_loaded(make: Make, tmp_path: Path, fake_run: Any) -> None:
    trainer = make(data={"cache": str(tmp_path / "tokens")})
    sent = pickle.dumps(trainer)
    assert len(sent) < 4000
    runs = [fake_run(PLAIN, horizon=HORIZON) for _ in range(3)]
    trainer.train([runs[0]])
    received = pickle.loads(sent)
    received.setup()
    received.train([runs[1]])
    shutil.rmtree(tmp_path / "tokens")  # as on another machine
    received = pickle.loads(sent)
    received.setup()
    received.train([runs[2]])
    assert runs[0].points == runs[1].points == runs[2].points


def test_the_module_is_light() -> None:
    program = "import sys, thalweg.train.pretrain; print('torch' in sys.modules, 'transformers' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def space(**entries: Any) -> Space:
    return Space.parse(entries)


def test_check_accepts_what_works(make: Make) -> None:
    entries: dict[str, Any] = {
        "learning_rate": {"log": [1e-4, 1e-2]},
        "batch_size": {"choice": [2, 4, 8]},
        "schedule": {"choice": ["wsd", "cosine", "linear"]},
        "clip": {"choice": [0.0, 1.0]},
        "tokens": HORIZON,
    }
    make(ready=False).check(space(**entries), "bits_per_byte")


@pytest.mark.parametrize(
    ("entries", "metric", "options", "message"),
    [
        ({"lr": {"log": [1e-4, 1e-2]}}, "accuracy", {}, "metric = 'accuracy'.*Known: bits_per_byte, loss, perplexity"),
        ({"epochs": {"integer": [1, 3]}}, "loss", {}, "unknown hyperparameter 'epochs'"),
        (
            {"batch_size": {"choice": [4, 5000]}},
            "loss",
            {},
            "batch_size = 5000: a single step .* sequences of 8 tokens",
        ),
        ({"batch_size": 5000}, "loss", {}, "batch_size = 5000"),
        ({"train_batch_size": {"integer": [1, 5000]}}, "loss", {}, "train_batch_size = 5000"),
        ({}, "loss", {"model": {"context": 5000}}, r"context = 5000: the train split has [\d,]+ tokens"),
        ({}, "loss", {"model": {"context": 200}}, "context = 200: the validation split has"),
        ({}, "loss", {"model": {"vocabulary": 5000}}, r"vocabulary = 5000: the training text fills only \d+"),
        ({}, "loss", {"model": {"vocabulary": 100}}, "vocabulary = 100: .* at least 257"),
        ({}, "loss", {"model": {"vocabulary": None}}, "vocabulary is missing"),
        ({}, "loss", {"clip_components": {"query": "query_projection"}}, "query_projection"),
        ({}, "loss", {"data": {"train": "nowhere.txt"}}, "there is no such file"),
    ],
)
def test_check_refuses(make: Make, entries: dict[str, Any], metric: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(ready=False, **options).check(space(**({"lr": {"log": [1e-4, 1e-2]}} | entries)), metric)


def test_fields_are_checked(text: Path) -> None:
    data, model = {"train": str(text)}, dict(SHAPE)
    for name, value in {"micro_batch": 0, "evaluations": -1, "peak_flops": 0.0, "adapter": "lora"}.items():
        with pytest.raises(ValidationError, match=name):
            Pretrain.model_validate({"model": model, "data": data, name: value})


def test_a_given_tokenizer_decides_the_vocabulary(make: Make, tmp_path: Path, fake_run: Any) -> None:
    given = str(make()._open().folder)
    options: dict[str, Any] = {"data": {"tokenizer": given}}
    assert make(model={"vocabulary": None}, **options)._vocabulary() == 270
    padded = make(model={"vocabulary": 320}, **options)
    run = fake_run(PLAIN, horizon=HORIZON, until=STEP)
    padded.train([run])
    assert run.states[STEP]["model"]["model.embed_tokens.weight"].shape == (320, 16)
    with pytest.raises(ConfigError, match=r"vocabulary = 200: the tokenizer .* knows 270"):
        make(ready=False, model={"vocabulary": 200}, **options).check(space(lr={"log": [1e-4, 1e-2]}), "loss")


def test_held_out_text_needs_no_more_than_a_sequence(make: Make) -> None:
    tokens = make()._open()
    held_out = HeldOut.of(tokens, tokens.validation, context=8, max_tokens=3)
    assert held_out.inputs.tolist() == [tokens.validation.ids[:8].tolist()]
    assert held_out.targets.tolist() == [tokens.validation.ids[1:9].tolist()]
    assert len(HeldOut.of(tokens, tokens.validation, context=10_000, max_tokens=None)) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's own compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_model_trains_the_same(make: Make, fake_run: Any) -> None:
    plain, compiled = make(), make(compile=True)
    runs = [fake_run(PLAIN, horizon=HORIZON) for _ in range(3)]
    plain.train([runs[0]])
    compiled.train([runs[1]])
    compiled.train([runs[2]])  # in the very model that the run before has trained
    assert runs[1].points == runs[2].points
    assert runs[1].points == pytest.approx(runs[0].points, rel=1e-3, abs=1e-5)


def test_mup_at_its_base_is_the_plain_model(make: Make, fake_run: Any) -> None:
    plain, same = fake_run(PLAIN, horizon=HORIZON), fake_run(PLAIN, horizon=HORIZON)
    make().train([plain])
    make(mup={"base_width": SHAPE["width"]}).train([same])
    assert same.curve("train/loss") == plain.curve("train/loss")


def test_mup_of_a_wider_model_is_exact_and_moves_the_blocks_less(make: Make, fake_run: Any) -> None:
    trainer = make(mup={"base_width": 8}, monitor_every=1)
    whole, first = fake_run(PLAIN, horizon=HORIZON), fake_run(PLAIN, horizon=HORIZON, until=HORIZON // 2)
    trainer.train([whole])
    trainer.train([first])
    rest = fake_run(PLAIN, horizon=HORIZON, start=HORIZON // 2, state=first.states[HORIZON // 2])
    trainer.train([rest])
    assert rest.curve("train/loss")[HORIZON] == whole.curve("train/loss")[HORIZON]
    plain = fake_run(PLAIN, horizon=HORIZON)
    make(monitor_every=1).train([plain])
    assert whole.curve("train/lr") == plain.curve("train/lr")  # the rate that is logged is the base model's
    # Adam's first step moves each weight by its rate. At twice the base width the blocks have half the rate and
    # weights of half the variance; the embedding is as it was.
    for component, ratio in (("q_proj", 0.5**0.5), ("down_proj", 0.5**0.5), ("embed_tokens", 1.0)):
        name = f"update_ratio/{component}"
        assert whole.curve(name)[STEP] / plain.curve(name)[STEP] == pytest.approx(ratio, rel=1e-2)
