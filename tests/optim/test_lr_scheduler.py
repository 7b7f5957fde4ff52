"""The bridge from a schedule to torch and to Hugging Face's Trainer."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ConfigError
from thalweg.optim.lr_scheduler import ScheduledLR, use_schedule
from thalweg.schedules import Schedule, constant, linear


def make_optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": rate} for rate in rates]
    return torch.optim.AdamW(groups, lr=9.0)


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def advance(scheduler: Any, num_steps: int) -> list[list[float]]:
    """The rates at each step that is made."""
    used = []
    for _ in range(num_steps):
        used.append(rates_of(scheduler.optimizer))
        scheduler.optimizer.step()
        scheduler.step()
    return used


def test_every_group_keeps_its_own_peak() -> None:
    scheduler = ScheduledLR(make_optimizer(1.0, 0.1), linear(warmup=2, horizon=6))
    expected = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert advance(scheduler, 8) == [[pytest.approx(m), pytest.approx(0.1 * m)] for m in expected]


@given(
    warmup=st.integers(1, 20),
    decay=st.integers(1, 60),
    peak=st.floats(1e-6, 1.0),
)
def test_it_is_lambda_lr_on_every_step(warmup: int, decay: int, peak: float) -> None:
    schedule = linear(warmup=warmup, horizon=warmup + decay)
    ours = ScheduledLR(make_optimizer(peak), schedule)
    theirs = torch.optim.lr_scheduler.LambdaLR(make_optimizer(peak), schedule)
    assert advance(ours, warmup + decay + 3) == advance(theirs, warmup + decay + 3)
    assert ours.get_last_lr() == theirs.get_last_lr()


def test_a_schedule_in_samples_moves_by_samples() -> None:
    scheduler = ScheduledLR(make_optimizer(1.0), linear(horizon=64), per_step=16)
    assert advance(scheduler, 5) == [[1.0], [0.75], [0.5], [0.25], [0.0]]
    assert scheduler.position == 80


def test_last_epoch_is_counted_as_torch_does() -> None:
    optimizers = make_optimizer(1.0), make_optimizer(1.0)
    for optimizer in optimizers:
        optimizer.param_groups[0]["initial_lr"] = 1.0
    schedule = linear(horizon=10)
    ours = ScheduledLR(optimizers[0], schedule, last_epoch=3)
    theirs = torch.optim.lr_scheduler.LambdaLR(optimizers[1], schedule, last_epoch=3)
    assert ours.last_epoch == theirs.last_epoch == 4
    assert rates_of(optimizers[0]) == rates_of(optimizers[1]) == [0.6]


def test_a_state_is_plain_numbers_and_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = advance(ScheduledLR(make_optimizer(0.3), linear(warmup=3, horizon=11)), 12)
    first = ScheduledLR(make_optimizer(0.3), linear(warmup=3, horizon=11))
    begun = advance(first, 5)
    torch.save(first.state_dict(), tmp_path / "scheduler.pt")
    assert set(map(type, first.state_dict().values())) <= {int, float}
    second = ScheduledLR(make_optimizer(0.3), linear(warmup=3, horizon=11))
    second.load_state_dict(torch.load(tmp_path / "scheduler.pt", weights_only=True))
    assert begun + advance(second, 7) == whole


def saved(peak: float, schedule: Schedule, num_steps: int, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    scheduler = ScheduledLR(make_optimizer(peak), schedule, **options)
    advance(scheduler, num_steps)
    return scheduler.optimizer.state_dict(), scheduler.state_dict()


def test_a_changed_peak_is_in_force_after_a_load() -> None:
    optimizer_state, state = saved(1.0, linear(horizon=10), 4)
    optimizer = make_optimizer(0.5)
    scheduler = ScheduledLR(optimizer, linear(horizon=10))
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    assert rates_of(optimizer) == [0.3]
    assert advance(scheduler, 2) == [[0.3], [0.25]]
    # What torch and Hugging Face do: the peak of the state comes back.
    classic = make_optimizer(0.5)
    theirs = torch.optim.lr_scheduler.LambdaLR(classic, linear(horizon=10))
    classic.load_state_dict(optimizer_state)
    theirs.load_state_dict({"last_epoch": 4, "base_lrs": [1.0], "lr_lambdas": [None]})
    assert advance(theirs, 2)[1] == [0.5]


def test_a_changed_schedule_is_in_force_after_a_load() -> None:
    optimizer_state, state = saved(1.0, constant(), 4)
    optimizer = make_optimizer(1.0)
    scheduler = ScheduledLR(optimizer, linear(horizon=8))
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    assert advance(scheduler, 3) == [[0.5], [0.375], [0.25]]


def test_a_changed_batch_size_keeps_the_position() -> None:
    _, state = saved(1.0, linear(horizon=100), 3, per_step=10)
    scheduler = ScheduledLR(make_optimizer(1.0), linear(horizon=100), per_step=20)
    scheduler.load_state_dict(state)
    assert scheduler.position == 30
    assert advance(scheduler, 3) == [[0.7], [0.5], [pytest.approx(0.3)]]
    again = ScheduledLR(make_optimizer(1.0), linear(horizon=100), per_step=5)
    again.load_state_dict(scheduler.state_dict())
    assert (again.last_epoch, again.position) == (6, 90)


def test_the_state_of_another_scheduler_gives_its_steps() -> None:
    theirs = transformers.get_linear_schedule_with_warmup(make_optimizer(1.0), 2, 10)
    advance(theirs, 4)
    scheduler = ScheduledLR(make_optimizer(1.0), linear(horizon=100), per_step=5)
    scheduler.load_state_dict(theirs.state_dict())
    assert rates_of(scheduler.optimizer) == [0.8]


def test_a_rate_that_is_a_tensor_stays_that_tensor() -> None:
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=rate, capturable=False, foreach=False)
    scheduler = ScheduledLR(optimizer, linear(horizon=4))
    advance(scheduler, 1)
    assert (optimizer.param_groups[0]["lr"] is rate, float(rate)) == (True, 0.375)
    scheduler.load_state_dict({"last_epoch": 2})
    assert (optimizer.param_groups[0]["lr"] is rate, float(rate)) == (True, 0.25)


@pytest.mark.parametrize("per_step", [0, -1, math.nan, math.inf])
def test_a_step_must_move(per_step: float) -> None:
    with pytest.raises(ConfigError, match="must be a positive number"):
        ScheduledLR(make_optimizer(1.0), constant(), per_step=per_step)


@pytest.mark.parametrize("state", [{}, {"last_epoch": "3"}, {"last_epoch": -2}, {"step": 3}])
def test_a_state_without_a_count_is_refused(state: dict[str, Any]) -> None:
    scheduler = ScheduledLR(make_optimizer(1.0), constant())
    with pytest.raises(ConfigError, match="needs last_epoch"):
        scheduler.load_state_dict(state)
    assert scheduler.last_epoch == 0


class Noise(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(20, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def tiny_llama() -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
    )


class KeepRates(transformers.TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        self.rates.append(known["optimizer"].param_groups[0]["lr"])


def make_trainer(folder: Path, model: Any, **options: Any) -> tuple[transformers.Trainer, list[float]]:
    named = {"learning_rate": 0.01, "max_steps": 8, "save_strategy": "no", **options}
    optimizers = named.pop("optimizers", (None, None))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
        **named,
    )
    keep = KeepRates()
    trainer = transformers.Trainer(model, arguments, train_dataset=Noise(), optimizers=optimizers, callbacks=[keep])
    return trainer, keep.rates


def expected_rates(peak: float) -> list[float]:
    return [pytest.approx(peak * m) for m in (0.0, 0.5, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]


def test_a_trainer_takes_it_with_the_users_optimizer(tmp_path: Path) -> None:
    model = tiny_llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = ScheduledLR(optimizer, linear(warmup=2, horizon=8))
    trainer, rates = make_trainer(tmp_path, model, optimizers=(optimizer, scheduler))
    trainer.train()
    assert rates == expected_rates(0.02)


def test_a_trainer_builds_its_optimizer_and_is_given_a_schedule(tmp_path: Path) -> None:
    trainer, rates = make_trainer(tmp_path, tiny_llama())
    horizons: list[float] = []

    def schedule(horizon: float) -> Schedule:
        horizons.append(horizon)
        return linear(warmup=0.25 * horizon, horizon=horizon)

    use_schedule(trainer, schedule, per_step=2)
    trainer.train()
    assert (rates, horizons) == (expected_rates(0.01), [16.0])
    # Trained again, to another horizon.
    rates.clear()
    trainer.args.max_steps = 4
    trainer.train()
    assert (rates, horizons) == ([0.0, 0.01, pytest.approx(0.02 / 3), pytest.approx(0.01 / 3)], [16.0, 8.0])


def test_a_trainer_resumes_with_a_changed_rate_and_schedule(tmp_path: Path) -> None:
    trainer, rates = make_trainer(tmp_path, tiny_llama(), save_strategy="steps", save_steps=4)
    use_schedule(trainer, lambda horizon: constant(warmup=2))
    trainer.train()
    assert rates == [0.0, 0.005, *[0.01] * 6]
    resumed, rates = make_trainer(tmp_path, tiny_llama(), learning_rate=0.1)
    use_schedule(resumed, lambda horizon: linear(horizon=horizon))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert rates == [pytest.approx(0.1 * m) for m in (0.5, 0.375, 0.25, 0.125)]


def test_a_plain_trainer_resumes_with_the_old_rate(tmp_path: Path) -> None:
    """Why the bridge exists: Hugging Face's own schedule takes the old rate back from the checkpoint."""
    named = {"lr_scheduler_type": "constant", "save_strategy": "steps", "save_steps": 4}
    trainer, _ = make_trainer(tmp_path, tiny_llama(), **named)
    trainer.train()
    plain, rates = make_trainer(tmp_path, tiny_llama(), learning_rate=0.1, **named)
    plain.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert rates == [0.01] * 4


def test_a_trainer_with_a_scheduler_is_refused(tmp_path: Path) -> None:
    model = tiny_llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    given = torch.optim.lr_scheduler.ConstantLR(optimizer)
    trainer, _ = make_trainer(tmp_path, model, optimizers=(optimizer, given))
    with pytest.raises(ConfigError, match="has an LR scheduler already, a ConstantLR"):
        use_schedule(trainer, lambda horizon: constant())


def test_a_step_costs_next_to_nothing() -> None:
    """A training step of a 1M-parameter model takes about 0.1 s on a core; 1 ms would be 1% of it."""
    scheduler = ScheduledLR(make_optimizer(*[0.1] * 4), linear(warmup=10, horizon=1000))
    scheduler.optimizer.step()
    times = []
    for _ in range(200):
        begin = time.perf_counter()
        scheduler.step()
        times.append(time.perf_counter() - begin)
    assert sorted(times)[100] < 1e-3
