"""Any Hugging Face Trainer as a trainer: what a study gets from it, what is kept off, and what is refused."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import resource
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

from thalweg.errors import ConfigError, RunInterrupted
from thalweg.space import Space
from thalweg.train.hf_trainer import HFTrainer
from thalweg.trainer import Diverged

_spec = importlib.util.spec_from_file_location("hf_makers", Path(__file__).with_name("hf_makers.py"))
assert _spec is not None
assert _spec.loader is not None
hf_makers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hf_makers)

# Warnings of libraries about each other.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing", "ignore:.gradient_checkpointing")

LR = 3e-3
STEPS = 21
"""26 rows in batches of 4 are 7 steps; 3 epochs."""
DIMENSION = {"lr": {"log": [1e-4, 1e-2]}}
SPACE = Space.parse(DIMENSION)


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    HFTrainer(dict).setup()


@pytest.fixture
def make(bert: Path, reviews: Path) -> Callable[..., Any]:
    def classifier(**options: Any) -> Any:
        return hf_makers.classifier(bert, reviews, **options)

    return classifier


class Watch(TrainerCallback):
    """A callback of the user's own: what the optimizer does at each step."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []

    def on_step_begin(self, *_args: Any, optimizer: Any, **_kwargs: Any) -> None:
        self.groups.append({k: v for k, v in optimizer.param_groups[0].items() if k != "params"})


def train(maker: Any, fake_run: Any, hyperparameters: Any = None, **options: Any) -> Any:
    run = fake_run(hyperparameters or {"lr": LR}, **{"horizon": STEPS, **options})
    HFTrainer(maker).train([run])
    return run


# What a study gets


def test_logs_and_evaluations_are_points_and_the_last_is_the_report(make: Any, fake_run: Any) -> None:
    run = train(make(), fake_run)
    assert sorted(run.curve("train/loss")) == [3, 6, 9, 12, 15, 18, 21]
    assert sorted(run.curve("validation/loss")) == [5, 10, 15, 20, 21]
    assert set(run.curve("train/gradient_norm")) == set(run.curve("train/loss"))
    assert run.curve("train/lr") == {p: pytest.approx(LR * (1 - (p - 1) / STEPS)) for p in range(1, STEPS + 1)}
    assert {name for name, _ in run.points} == {
        *("train/loss", "train/gradient_norm", "train/lr", "validation/loss", "validation/accuracy")
    }
    assert run.reports == {STEPS: {name: run.curve(f"validation/{name}")[STEPS] for name in ("loss", "accuracy")}}
    assert run.total("train").samples == 3 * hf_makers.NUM_TRAIN
    assert run.total("train").flops > 0


def test_it_is_what_the_trainer_does_by_itself(make: Any, fake_run: Any, tmp_path: Path) -> None:
    """Without dropout, whose random numbers it draws in another order."""

    def without_dropout(hyperparameters: Any) -> Any:
        trainer = make()(hyperparameters)
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return trainer

    run = train(without_dropout, fake_run, seed=5)
    from thalweg.train.checkpoint import seed_everything

    seed_everything(5)
    options = {"output_dir": str(tmp_path), "seed": 5, "data_seed": 5, "report_to": "none", "save_strategy": "no"}
    maker = make(arguments_={**options, "disable_tqdm": True, "dataloader_pin_memory": False})
    trainer = maker({"lr": LR})
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer.train()
    logs = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    assert run.curve("train/loss") == logs


def test_runs_with_the_same_seed_begin_alike_and_others_do_not(make: Any, fake_run: Any) -> None:
    first, same, other = (train(make(), fake_run, seed=seed, until=3) for seed in (1, 1, 2))
    assert first.points == same.points
    assert first.curve("train/loss") != other.curve("train/loss")


def test_early_stopping_ends_a_run_and_it_stays_ended(make: Any, fake_run: Any) -> None:
    options = {"metric_for_best_model": "loss", "greater_is_better": True}  # which a falling loss never is
    maker = make(arguments_=options, callbacks=lambda: [transformers.EarlyStoppingCallback(early_stopping_patience=2)])
    whole = train(maker, fake_run)
    (ended,) = whole.reports
    assert ended < STEPS
    assert max(p for _, p in whole.points) == ended
    paused = train(maker, fake_run, until=6)
    rest = train(maker, fake_run, start=6, state=paused.states[6])
    assert paused.points | rest.points == whole.points
    assert rest.reports == whole.reports
    again = train(maker, fake_run, start=ended, state=whole.states[ended])
    assert again.reports == whole.reports
    assert not again.curve("train/lr")


def test_a_loss_that_is_not_finite_diverges(make: Any, fake_run: Any) -> None:
    def broken(hyperparameters: Any) -> Any:
        trainer = make()(hyperparameters)
        with torch.no_grad():
            trainer.model.classifier.weight.fill_(math.nan)
        return trainer

    with pytest.raises(Diverged, match="train/loss is nan"):
        train(broken, fake_run)


# Changes of a fork


def test_plain_resume_brings_the_old_learning_rate_back(make: Any, tmp_path: Path) -> None:
    """Why the Trainer's own checkpoints are not used: seen with transformers 5.24."""
    watch = Watch()
    options = {"output_dir": str(tmp_path), "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    options |= {"save_steps": 4, "weight_decay": 0.1}

    def trainer(lr: float, **changes: Any) -> Any:
        built = make(arguments_={**options, **changes}, callbacks=lambda: [watch])({"lr": lr, "max_steps": 8})
        built.remove_callback(transformers.trainer_callback.PrinterCallback)
        return built

    trainer(0.01).train()
    watch.groups.clear()
    trainer(0.001, weight_decay=0.3).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert watch.groups[0]["lr"] == pytest.approx(0.01 * 4 / 8)
    assert watch.groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
def test_what_a_fork_changes_is_in_force(make: Any, fake_run: Any, scheduler: str) -> None:
    watch = Watch()
    maker = make(arguments_={"lr_scheduler_type": scheduler}, callbacks=lambda: [watch])
    parent = train(maker, fake_run, {"lr": LR, "weight_decay": 0.1}, until=6)
    watch.groups.clear()
    changed = {"lr": 1e-3, "weight_decay": 0.3, "beta2": 0.9, "epochs": 5}
    child = train(maker, fake_run, changed, start=6, state=parent.states[6], horizon=35, until=10)
    course = {
        "linear": lambda p: 1 - p / 35,
        "cosine": lambda p: (1 + math.cos(math.pi * p / 35)) / 2,
        "constant": lambda p: 1.0,
    }[scheduler]
    assert child.curve("train/lr") == {p: pytest.approx(1e-3 * course(p - 1)) for p in range(7, 11)}
    for group in watch.groups:
        assert (group["weight_decay"], group["betas"], group["initial_lr"]) == (0.3, (0.9, 0.9), 1e-3)
    moments = child.states[10]["optimizer"]["moments"]
    assert {float(moment["step"]) for moment in moments.values()} == {10.0}


def test_a_fork_cannot_change_the_adapters_rank(make: Any, fake_run: Any) -> None:
    parent = train(make(lora=True), fake_run, {"lr": LR, "lora_r": 4}, until=3)
    with pytest.raises(ConfigError, match=r"lora_A.*a fork cannot change the model, or an adapter's rank"):
        train(make(lora=True), fake_run, {"lr": LR, "lora_r": 2}, start=3, state=parent.states[3])


# Schedules by name


WSD = {"lr": LR, "schedule": "wsd", "warmup": 2, "decay": 7, "max_steps": STEPS}


def test_a_schedule_is_used_by_its_name(make: Any, fake_run: Any) -> None:
    run = fake_run(WSD, horizon=STEPS)
    trainer = HFTrainer(make())
    trainer.check(Space.parse({**WSD, **DIMENSION}), "loss")
    trainer.train([run])
    rates = {1: 0.0, 2: 0.5, 3: 1.0, 14: 1.0, 15: 1.0, 16: 6 / 7, 21: 1 / 7}
    assert {p: run.curve("train/lr")[p] for p in rates} == {p: pytest.approx(LR * r) for p, r in rates.items()}
    assert trainer.stable_end(WSD) == 14
    assert 14 in run.states
    assert trainer.stable_end({"lr": LR}) is None


def test_a_run_is_extended_from_its_trunk(make: Any, fake_run: Any) -> None:
    trainer = HFTrainer(make())
    shares = {**WSD, "warmup": 2 / STEPS}
    trainer.check(Space.parse({**shares, **DIMENSION}), "loss")
    extended = trainer.extended(shares, 30)
    assert extended == {"max_steps": 30, "warmup": pytest.approx(2)}
    short = fake_run(WSD, horizon=STEPS)
    trainer.train([short])
    long = fake_run({**WSD, "max_steps": 30}, horizon=30)
    trainer.train([long])
    rest = fake_run({**WSD, "max_steps": 30}, horizon=30, start=14, state=short.states[14])
    trainer.train([rest])
    assert rest.points == {key: value for key, value in long.points.items() if key[1] > 14}
    assert rest.reports == long.reports
    with pytest.raises(ConfigError, match="max_steps and schedule are hyperparameters"):
        trainer.extended({"lr": LR}, 30)


def test_a_schedule_that_does_not_fit_is_refused_before_training(make: Any) -> None:
    with pytest.raises(ConfigError, match="warmup = 50"):
        HFTrainer(make()).check(Space.parse({**WSD, **DIMENSION, "warmup": 50}), "loss")
    with pytest.raises(ConfigError, match="Did you mean 'wsd'"):
        HFTrainer(make()).check(Space.parse({**WSD, **DIMENSION, "schedule": "wds"}), "loss")


# The number of steps


def test_the_horizon_is_known_without_building_a_trainer_for_each_point(make: Any) -> None:
    calls: list[Any] = []

    def counted(hyperparameters: Any) -> Any:
        calls.append(dict(hyperparameters))
        return make()({k: v for k, v in hyperparameters.items() if k != "words"})

    trainer = HFTrainer(counted)
    space = {"lr": {"log": [1e-4, 1e-2]}, "batch_size": {"integer": [1, 32]}, "epochs": {"integer": [1, 5]}}
    trainer.check(Space.parse({**space, "words": {"choice": [1, 2]}}), "loss")
    assert len(calls) == 2  # one more to see whether `words` decides it
    for batch_size, epochs, steps in ((4, 3, 21), (8, 2, 8), (26, 1, 1), (32, 5, 5), (5, 1, 6)):
        hyperparameters = {"lr": LR, "batch_size": batch_size, "epochs": epochs, "words": 1}
        assert trainer.horizon(hyperparameters) == steps
    assert trainer.cost({"lr": LR, "batch_size": 8, "epochs": 2, "words": 1}, 2, 5).samples == 24
    assert len(calls) == 2


def test_a_length_that_is_decided_in_another_way_is_asked_of_the_trainer(make: Any) -> None:
    def halves(hyperparameters: Any) -> Any:
        return make()({"lr": hyperparameters["lr"], "epochs": hyperparameters["half_epochs"] / 2})

    trainer = HFTrainer(halves)
    trainer.check(Space.parse({"lr": {"log": [1e-4, 1e-2]}, "half_epochs": {"integer": [1, 4]}}), "loss")
    assert [trainer.horizon({"lr": LR, "half_epochs": n}) for n in (1, 2, 3, 4)] == [4, 7, 11, 14]
    wide = HFTrainer(halves)
    wide.check(Space.parse({"lr": {"log": [1e-4, 1e-2]}, "half_epochs": {"integer": [1, 400]}}), "loss")
    for n in range(2, 16):
        wide.horizon({"lr": LR, "half_epochs": n})
    with pytest.raises(ConfigError, match=r"16 Trainers were built.*half_epochs in its own way.*horizon="):
        wide.horizon({"lr": LR, "half_epochs": 16})


def test_a_horizon_can_be_given(make: Any) -> None:
    assert HFTrainer(make(), horizon=30).horizon({"lr": LR}) == 30
    assert HFTrainer(make(), horizon=lambda h: 2 * h["n"]).horizon({"n": 4}) == 8
    for wrong in (0, 2.5, True):
        with pytest.raises(ConfigError, match="whole number of steps above zero"):
            HFTrainer(make(), horizon=wrong)  # type: ignore[arg-type]


def test_a_trainer_of_another_length_than_was_foreseen_is_refused(make: Any, fake_run: Any) -> None:
    with pytest.raises(ConfigError, match=r"will make 21 steps, but the run's horizon is 20.*horizon="):
        train(make(), fake_run, horizon=20)


# What is kept off


def test_nothing_is_left_in_the_working_folder(
    make: Any, fake_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = HFTrainer(make(arguments_={"save_strategy": "steps", "save_steps": 2, "report_to": "all"}))
    trainer.check(SPACE, "loss")
    trainer.train([fake_run({"lr": LR}, horizon=STEPS, until=4)])
    assert list(tmp_path.iterdir()) == []
    assert "{'loss'" not in capsys.readouterr().out


def test_no_run_leaves_its_model_in_memory(make: Any, fake_run: Any) -> None:
    """transformers issue 13019: models stayed in memory from one trial to the next."""
    held: list[weakref.ref[Any]] = []

    def remembered(hyperparameters: Any) -> Any:
        trainer = make(lora=True)(hyperparameters)
        held.extend(weakref.ref(thing) for thing in (trainer, trainer.model, trainer.accelerator))
        return trainer

    trainer = HFTrainer(remembered)
    for number in range(5):
        trainer.train([fake_run({"lr": LR}, horizon=STEPS, until=STEPS if number % 2 else 4)])
        assert [ref for ref in held if ref() is not None] == []
    assert len(held) == 15


def test_memory_does_not_grow_with_runs(bert: Path, reviews: Path, fake_run: Any) -> None:
    """Each run has a fresh model with a tensor of 16 MB; 6 runs may not take as much as 3 of them."""

    def large(hyperparameters: Any) -> Any:
        trainer = hf_makers.classifier(bert, reviews)(hyperparameters)
        trainer.model.register_buffer("ballast", torch.ones(4_000_000), persistent=False)
        return trainer

    trainer = HFTrainer(large)
    trainer.train([fake_run({"lr": LR}, horizon=STEPS, until=3)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(6):
        trainer.train([fake_run({"lr": LR}, horizon=STEPS, until=3)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * 16_000


def test_a_stopped_run_does_not_stay_in_memory(make: Any, fake_run: Any) -> None:
    held: list[weakref.ref[Any]] = []

    def remembered(hyperparameters: Any) -> Any:
        trainer = make()(hyperparameters)
        held.append(weakref.ref(trainer.model))
        return trainer

    trainer = HFTrainer(remembered)
    with contextlib.suppress(RunInterrupted):
        trainer.train([fake_run({"lr": LR}, horizon=STEPS, stop_at=5)])
    trainer.train([fake_run({"lr": LR}, horizon=STEPS, until=2)])
    gc.collect()
    assert [ref() for ref in held] == [None, None]


# What is refused


def check(maker: Any) -> None:
    HFTrainer(maker).check(SPACE, "loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_best_model_at_end": True}, "compared by its last evaluation.*EarlyStoppingCallback works without"),
        ({"push_to_hub": True}, "would push every run"),
        ({"auto_find_batch_size": True}, "batch size and number of steps would change"),
        ({"ignore_data_skip": True}, "would see other data"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(make(arguments_=options))


def test_a_function_that_fails_is_told_with_its_hyperparameters() -> None:
    def failing(hyperparameters: Any) -> Any:
        raise TypeError("no such file")

    with pytest.raises(ConfigError, match=r"make_trainer failed with lr = 0\.00\d+: TypeError: no such file"):
        check(failing)


def test_what_is_no_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a function from hyperparameters to a Trainer, not a Trainer"):
        HFTrainer("a trainer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"returned a dict: it must return a transformers\.Trainer"):
        check(dict)


def test_a_trainer_without_an_eval_dataset_is_refused(make: Any) -> None:
    def blind(hyperparameters: Any) -> Any:
        trainer = make()(hyperparameters)
        trainer.eval_dataset = None
        return trainer

    with pytest.raises(ConfigError, match="no eval_dataset: give it one"):
        check(blind)


def test_arguments_from_outside_are_refused(make: Any, tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), use_cpu=True)

    def outside(hyperparameters: Any) -> Any:
        trainer = make()(hyperparameters)
        return Trainer(trainer.model, args, train_dataset=trainer.train_dataset, eval_dataset=trainer.eval_dataset)

    with pytest.raises(ConfigError, match="were made outside of make_trainer"):
        check(outside)


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time")
@pytest.mark.filterwarnings("ignore:Already found a .peft_config.")
@pytest.mark.parametrize("lora", [False, True])
def test_a_model_that_is_shared_between_runs_is_refused(make: Any, bert: Path, fake_run: Any, lora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    shared = transformers.AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)

    def closure(hyperparameters: Any) -> Any:
        built = make()(hyperparameters)
        config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
        model: Any = get_peft_model(shared, config) if lora else shared
        args = TrainingArguments(**hf_makers.arguments(hyperparameters))
        data = {"train_dataset": built.train_dataset, "eval_dataset": built.eval_dataset}
        return Trainer(model, args, processing_class=built.processing_class, **data)

    with pytest.raises(ConfigError, match="same object that an earlier call of make_trainer returned"):
        check(closure)


def test_the_fingerprint_follows_the_source(make: Any) -> None:
    first, second = make(), lambda hyperparameters: None
    assert HFTrainer(first).describe() == HFTrainer(first).describe()
    assert HFTrainer(first).describe() != HFTrainer(second).describe()
