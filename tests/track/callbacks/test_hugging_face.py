from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

import thalweg
from thalweg.errors import ConfigError
from thalweg.track.callbacks.hugging_face import ThalwegCallback, checkpoint_folder
from thalweg.track.callbacks.hugging_face_settings import apply_changes, hyperparameters_of, settings
from thalweg.track.store import Store
from thalweg.tree import Stop

sys.path.insert(0, str(Path(__file__).parent))
from hf_training import small_model, trainer

QUIET = {"system_seconds": 0, "code": False}
Curves = Callable[..., dict[float, float]]


def test_all_that_the_trainer_logs_is_kept(store: Store, curve: Curves) -> None:
    callback = ThalwegCallback("demo", name="first", **QUIET)
    teacher = trainer([callback], eval_strategy="steps", eval_steps=4)
    teacher.train()
    (row,) = store.run_rows("demo")
    assert (row.name, row.status) == ("first", "finished")
    # The Trainer's own record, an entry per log, with its own names.
    expected: dict[str, dict[float, float]] = {}
    for entry in teacher.state.log_history:
        for name, value in entry.items():
            if name != "step":
                shown = name.replace("eval_", "eval/") if name.startswith("eval_") else f"train/{name}"
                expected.setdefault(shown, {})[entry["step"]] = value
    assert set(store.metrics(row.id)) == set(expected)
    for name, points in expected.items():
        assert curve(row.id, name) == points, name
    assert {"train/loss", "train/learning_rate", "train/grad_norm", "eval/accuracy", "eval/loss"} <= set(expected)
    assert sorted(expected["train/loss"]) == list(range(1, 9))


def test_hyperparameters_are_what_was_chosen(store: Store) -> None:
    callback = ThalwegCallback("demo", hyperparameters={"mine": 1}, **QUIET)
    trainer([callback], lr_scheduler_kwargs={}, weight_decay=0.1, max_steps=1, save_strategy="no").train()
    (row,) = store.run_rows("demo")
    shape = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"vocab_size": 50, "num_labels": 2, "num_parameters": small_model().num_parameters()}
    assert dict(row.hyperparameters) == {
        "mine": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3.0,
        "max_steps": 1,
        "weight_decay": 0.1,
        "seed": 42,
        **{f"model/{name}": value for name, value in shape.items()},
    }


def test_defaults_and_secrets_are_not_shown() -> None:
    args = TrainingArguments("out", hub_token="hf_secret", report_to="none", use_cpu=True)
    shown = hyperparameters_of(args, None)
    assert set(shown) == {"learning_rate", "per_device_train_batch_size", "num_train_epochs", "seed"}
    assert "hf_secret" not in json.dumps(shown)


def test_an_adapter_is_shown() -> None:
    import peft

    adapter = peft.LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=6, target_modules=["query", "value"])
    args = TrainingArguments("out", report_to="none", use_cpu=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers under an old name
        adapted = peft.get_peft_model(small_model(), adapter)
    shown = hyperparameters_of(args, adapted)
    assert (shown["peft/r"], shown["peft/lora_alpha"], shown["peft/target_modules"]) == (3, 6, ["query", "value"])


def test_a_stopped_run_goes_on(store: Store, curve: Curves) -> None:
    whole = ThalwegCallback("whole", **QUIET)
    trainer([whole], "whole").train()

    first = ThalwegCallback("demo", **QUIET)
    assert first.checkpoint() is None
    trainer([first], max_steps=4).train()
    again = ThalwegCallback("demo", run=first.run.id, **QUIET)
    assert again.checkpoint() == str(Path("out/checkpoint-4").absolute())
    trainer([again]).train(resume_from_checkpoint=again.checkpoint())

    (row,) = store.run_rows("demo")
    assert row.status == "finished"
    assert curve(row.id, "train/loss") == curve("whole-0", "train/loss")
    assert [file.position // 10**6 for file in store.files(row.id)] == [4, 8]
    assert not any(file.copied for file in store.files(row.id))


def test_an_unchanged_fork_equals_its_parent(store: Store, curve: Curves) -> None:
    trainer([ThalwegCallback("demo", **QUIET)], lr_scheduler_type="linear").train()
    fork = ThalwegCallback("demo", fork_of="demo-0", at=4, **QUIET)
    trainer([fork], "forked", lr_scheduler_type="linear").train(resume_from_checkpoint=fork.checkpoint())
    for metric in ("train/loss", "train/learning_rate", "train/grad_norm"):
        assert curve("demo-1", metric) == curve("demo-0", metric), metric
        assert sorted(curve("demo-1", metric, inherited=False)) == [5, 6, 7, 8]
    assert store.run_details("demo-1").lineage == ("demo-0", "demo-1")


def linear(peak: float, steps: range, num: int) -> dict[float, float]:
    """The learning rate that each of so many steps is taken with: from the peak down to 0 after the last."""
    return {step: peak * (num - step + 1) / num for step in steps}


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_fork_trains_with_its_own_learning_rate(store: Store, curve: Curves, schedule: str) -> None:
    def expected(peak: float, steps: range) -> Any:
        points = dict.fromkeys(steps, peak) if schedule == "constant" else linear(peak, steps, 8)
        return pytest.approx(points, rel=1e-12, abs=1e-18)

    trainer([ThalwegCallback("demo", **QUIET)], lr_scheduler_type=schedule).train()
    assert curve("demo-0", "train/learning_rate") == expected(1e-3, range(1, 9))

    def fork(folder: str, callback: TrainerCallback | None, path: str | None) -> Any:
        callbacks = [callback] if callback is not None else []
        built = trainer(callbacks, folder, lr_scheduler_type=schedule, learning_rate=1e-5)
        built.train(resume_from_checkpoint=path)
        return built

    callback = ThalwegCallback("demo", fork_of="demo-0", at=4, **QUIET)
    path = callback.checkpoint()
    forked = fork("forked", callback, path)
    assert curve("demo-1", "train/learning_rate", inherited=False) == expected(1e-5, range(5, 9))
    assert all(group["initial_lr"] == 1e-5 for group in forked.optimizer.param_groups)
    # Not only said: with a hundredth of the rate, the weights move less from where the fork began.
    alone = fork("alone", None, path)
    # And it is the callback that does it: the Trainer alone goes on at the old rate.
    assert alone.state.log_history[-2]["learning_rate"] == curve("demo-0", "train/learning_rate")[8]
    start = torch.load(Path(str(path)) / "optimizer.pt", weights_only=True)["param_groups"][0]["initial_lr"]
    assert start == 1e-3
    assert curve("demo-1", "train/loss")[8] != alone.state.log_history[-2]["loss"]


def test_a_forks_own_checkpoints_are_not_changed_again(store: Store, curve: Curves) -> None:
    trainer([ThalwegCallback("demo", **QUIET)], max_steps=4).train()
    fork = ThalwegCallback("demo", fork_of="demo-0", **QUIET)
    trainer([fork], "forked", learning_rate=1e-4).train(resume_from_checkpoint=fork.checkpoint())
    again = ThalwegCallback("demo", run="demo-1", **QUIET)
    trainer([again], "forked", learning_rate=1e-4, max_steps=12).train(resume_from_checkpoint=again.checkpoint())
    # A fork of the fork that goes back to the first rate, from the checkpoint that both share.
    third = ThalwegCallback("demo", fork_of="demo-1", at=4, **QUIET)
    trainer([third], "third", learning_rate=1e-2).train(resume_from_checkpoint=third.checkpoint())
    rates = {f"demo-{i}": set(curve(f"demo-{i}", "train/learning_rate", inherited=False).values()) for i in (0, 1, 2)}
    assert rates == {"demo-0": {1e-3}, "demo-1": {1e-4}, "demo-2": {1e-2}}
    assert store.run_details("demo-2").lineage == ("demo-0", "demo-1", "demo-2")


def test_weight_decay_betas_and_epsilon_of_a_fork_are_in_force(store: Store) -> None:
    trainer([ThalwegCallback("demo", **QUIET)], max_steps=4, weight_decay=0.1).train()
    fork = ThalwegCallback("demo", fork_of="demo-0", **QUIET)
    changed = {"weight_decay": 0.2, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6}
    teacher = trainer([fork], "forked", **changed)
    teacher.train(resume_from_checkpoint=fork.checkpoint())
    groups = teacher.optimizer.param_groups
    # Biases and norms are not decayed, and stay so.
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert {(group["betas"], group["eps"], group["lr"]) for group in groups} == {((0.8, 0.9), 1e-6, 1e-3)}


def test_rates_per_layer_keep_their_ratio() -> None:
    layers = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [layers[0]], "lr": 0.01}, {"params": [layers[1]], "lr": 0.001}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    optimizer.step()
    scheduler.step()
    args = TrainingArguments("out", learning_rate=0.01, report_to="none", use_cpu=True)
    before = settings(args)
    args.learning_rate = 0.04
    assert apply_changes(args, before, optimizer, scheduler) == {"learning_rate": (0.01, 0.04)}
    assert scheduler.base_lrs == pytest.approx([0.04, 0.004])
    assert scheduler.get_last_lr() == pytest.approx([0.02, 0.002])
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.04 / 3, 0.004 / 3])


def test_a_checkpoint_that_does_not_say_its_settings_is_spoken_of(
    store: Store, curve: Curves, caplog: pytest.LogCaptureFixture
) -> None:
    trainer([], max_steps=4).train()
    callback = ThalwegCallback("demo", **QUIET)
    trainer([callback], learning_rate=1e-5).train(resume_from_checkpoint="out/checkpoint-4")
    assert "written without ThalwegCallback" in caplog.text
    assert set(curve("demo-0", "train/learning_rate").values()) == {1e-3}


def test_a_fork_may_not_overwrite_its_parents_checkpoints(store: Store) -> None:
    trainer([ThalwegCallback("demo", **QUIET)]).train()
    fork = ThalwegCallback("demo", fork_of="demo-0", at=4, **QUIET)
    with pytest.raises(ConfigError, match=r"holds the checkpoints of demo-0.*output_dir='demo-1'"):
        trainer([fork], "out").train(resume_from_checkpoint=fork.checkpoint())


def test_a_fork_without_a_place_begins_at_the_newest_checkpoint(store: Store) -> None:
    trainer([ThalwegCallback("demo", **QUIET)], max_steps=6, save_steps=5).train()
    assert [file.position // 10**6 for file in store.files("demo-0")] == [5, 6]
    for path in Path("out/checkpoint-6").iterdir():
        path.unlink()
    Path("out/checkpoint-6").rmdir()  # as save_total_limit does
    fork = ThalwegCallback("demo", fork_of="demo-0", **QUIET)
    assert fork.checkpoint() == str(Path("out/checkpoint-5").absolute())
    assert fork.run.fork_step == 5
    fork.run.finish()


def test_a_fork_between_checkpoints_is_spoken_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    trainer([ThalwegCallback("demo", **QUIET)]).train()
    fork = ThalwegCallback("demo", fork_of="demo-0", at=6, **QUIET)
    assert fork.checkpoint() == str(Path("out/checkpoint-4").absolute())
    assert "a fork at step 6, and the newest checkpoint before it is at step 4" in caplog.text
    fork.run.finish()


@pytest.mark.slow
def test_a_rewound_run_goes_on_from_the_checkpoint_before(store: Store, curve: Curves) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from hf_training import trainer
from thalweg.track.callbacks.hugging_face import ThalwegCallback
trainer([ThalwegCallback("demo", system_seconds=0, code=False)]).train()
"""
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], check=True, capture_output=True)
    again = ThalwegCallback("demo", run="demo-0", at=5, **QUIET)
    assert again.checkpoint() == str(Path("out/checkpoint-4").absolute())
    trainer([again], learning_rate=1e-4, max_steps=7).train(resume_from_checkpoint=again.checkpoint())
    assert [row.id for row in store.run_rows("demo")] == ["demo-0"]
    rates = dict.fromkeys(range(1, 5), 1e-3) | dict.fromkeys(range(5, 8), 1e-4)
    assert curve("demo-0", "train/learning_rate") == rates
    assert [file.position // 10**6 for file in store.files("demo-0")] == [4, 7]


def test_other_processes_find_the_same_checkpoint_and_make_no_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer([ThalwegCallback("demo", **QUIET)]).train()
    monkeypatch.setenv("RANK", "1")
    place = Path("out").absolute()
    assert ThalwegCallback("demo", fork_of="demo-0", at=5, **QUIET).checkpoint() == str(place / "checkpoint-4")
    assert ThalwegCallback("demo", fork_of="demo-0", **QUIET).checkpoint() == str(place / "checkpoint-8")
    assert ThalwegCallback("demo", run="demo-0", **QUIET).checkpoint() == str(place / "checkpoint-8")
    assert ThalwegCallback("demo", **QUIET).checkpoint() is None
    assert [row.id for row in store.run_rows("demo")] == ["demo-0"]


def test_a_stop_that_is_asked_for_saves_and_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from thalweg.track.client import TrackedRun

    steps: list[int] = []

    class Counts(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append(state.global_step)

    # How a request reaches a run is the client's part; here somebody asks during the third step.
    monkeypatch.setattr(TrackedRun, "should_stop", property(lambda _: len(steps) >= 3))
    callback = ThalwegCallback("demo", **QUIET)
    trainer([Counts(), callback], save_steps=100).train()
    assert steps == [1, 2, 3]
    (row,) = store.run_rows("demo")
    assert row.status == "stopped"
    assert [file.position // 10**6 for file in store.files(row.id)] == [3]


def test_an_evaluation_after_training_adds_to_the_run(store: Store, curve: Curves) -> None:
    callback = ThalwegCallback("demo", **QUIET)
    teacher = trainer([callback], max_steps=2)
    teacher.train()
    result = teacher.evaluate()
    predicted = teacher.predict(teacher.eval_dataset)
    (row,) = store.run_rows("demo")
    assert row.status == "finished"
    assert curve(row.id, "eval/accuracy") == {2: result["eval_accuracy"]}
    assert curve(row.id, "test/loss") == {2: predicted.metrics["test_loss"]}
    assert callback.run.id == row.id


def test_training_anew_is_another_run(store: Store) -> None:
    callback = ThalwegCallback("demo", **QUIET)
    teacher = trainer([callback], max_steps=2)
    teacher.train()
    teacher.train()
    rows = store.run_rows("demo")
    assert [(row.id, row.status) for row in rows] == [("demo-0", "finished"), ("demo-1", "finished")]


def test_a_given_run_is_not_ended(store: Store, curve: Curves) -> None:
    with thalweg.init("demo", **QUIET) as run:
        trainer([ThalwegCallback(run=run)], max_steps=4).train()
        assert store.run_rows("demo")[0].status == "running"
        run.log({"mine": 1}, step=9)
        assert checkpoint_folder(run) == str(Path("out/checkpoint-4").absolute())
    assert curve("demo-0", "mine") == {9: 1}


@pytest.mark.slow
def test_a_stop_that_a_person_asks_for_arrives(store: Store) -> None:
    class Asks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                store.add_request("demo", Stop("demo-0"), "somebody")

    callback = ThalwegCallback("demo", **QUIET)
    teacher = trainer([Asks(), callback], max_steps=100_000, logging_steps=100, save_steps=100_000)
    teacher.train()
    (row,) = store.run_rows("demo")
    assert row.status == "stopped"
    assert [file.position // 10**6 for file in store.files(row.id)] == [teacher.state.global_step]
    assert store.pending_requests("demo") == []


PROCESSES = """
import sys, os
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from hf_training import trainer
from thalweg.track.callbacks.hugging_face import ThalwegCallback
from thalweg.track.client import TrackedRun

class Asked:
    def __get__(self, run, kind):
        return run.last_step is not None and run.last_step >= 2

TrackedRun.should_stop = Asked()
callback = ThalwegCallback("demo", system_seconds=0, code=False)
built = trainer([callback], ddp_backend="gloo", save_strategy="no", per_device_train_batch_size=4)
built.train()
print("rank", os.environ["RANK"], "stopped at", built.state.global_step)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_of_two_processes_one_writes_and_both_stop(store: Store, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(PROCESSES.format(folder=str(Path(__file__).parent)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    places = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert [place.split(" stopped")[0] for place in places] == ["rank 0", "rank 1"]
    # Both at the same step, long before the eighth.
    assert len({place.split("at ")[1] for place in places}) == 1
    assert int(places[0].split("at ")[1]) < 8
    (row,) = store.run_rows("demo")
    assert row.status == "stopped"


def test_without_transformers_the_message_says_how_to_get_it() -> None:
    code = """
import sys
sys.modules["transformers"] = None
try:
    import thalweg.track.callbacks.hugging_face
except Exception as error:
    print(type(error).__name__, error)
"""
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.strip() == "ConfigError ThalwegCallback needs transformers: pip install 'thalweg[train]'"
