"""A study: a space, a metric, a strategy, a trainer and a budget; `tune` runs one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from thalweg import warm_start as earlier_studies
from thalweg.budget import Budget, Cost, Ledger
from thalweg.errors import ConfigError, nearest
from thalweg.execute.local import LocalExecutor
from thalweg.loop import Loop
from thalweg.plan import forecast
from thalweg.report.plan import Plan, plan_table
from thalweg.report.progress import Progress
from thalweg.report.view import StudyView, read_view
from thalweg.scaling.stopping import Stopping
from thalweg.search import constraints
from thalweg.search import strategy as build_strategy
from thalweg.search.objectives import reported
from thalweg.search.strategy import Branch, Earlier, Problem, Strategy
from thalweg.space import Hyperparameters, Space
from thalweg.suggested import read_space
from thalweg.track.store import Store
from thalweg.train.function import FunctionRun, FunctionTrainer
from thalweg.trainer import Trainer
from thalweg.tree import Metric, Run, Tree, Unit
from thalweg.worker import StudyWorker

DEFAULT_STORE = ".thalweg/store.db"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search, checked and ready to run."""

    name: str
    """Letters, digits, `-`, `_` and `.`; unique in its store."""
    space: Space
    metric: Metric
    trainer: Trainer
    budget: Budget
    strategy: Mapping[str, Any]
    """The strategy's `name` and its options."""
    seed: int = 0
    """Decides what is proposed, and is every run's own seed: runs differ by their hyperparameters alone."""
    baseline: Hyperparameters | None = None
    """A run to compare with, trained first and whole; the search learns from it."""
    workers: int | None = None
    """Worker processes; by default one per GPU, or per core where there is no GPU."""
    checkpoint_seconds: float = 60.0
    """Time between the checkpoints of a run while it trains."""
    keep_checkpoints: Literal["needed", "all"] = "needed"
    """`needed`: the two newest of runs that may go on, of the best run and of the baseline, and where forks begin."""
    objectives: tuple[Metric, ...] = ()
    """Further metrics to improve beside `metric`, such as `min cost`: the best trade-offs are reported."""
    max_memory_bytes: float | None = None
    """Most memory that a run may need, as the trainer predicts it; what needs more is not proposed."""
    feasible: Callable[[Hyperparameters], bool] | None = None
    """A further constraint: whether a run with these hyperparameters is allowed."""
    stopping: Stopping | None = None
    """Rules that end the study before its budget does."""
    earlier: tuple[Earlier, ...] = ()
    """Earlier studies to learn from; see `thalweg tune --warm-start`."""
    hold_back: bool = True
    """Whether the best run and the baseline are evaluated on the test split at the end."""
    file: Mapping[str, Any] | None = None
    """The study file that it was read from, so that `thalweg resume` can."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ConfigError(
                f"study.name = {self.name!r} must be 1 to 64 letters, digits, '-', '_' or '.', a letter or digit first"
            )
        if self.max_memory_bytes is not None and not self.max_memory_bytes > 0:
            raise ConfigError(f"max_memory_bytes = {self.max_memory_bytes:g} must be above zero, such as 8e9")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers = {self.workers} must be at least 1")

    def check(self) -> Strategy:
        """Refuse what cannot work, before any compute is spent.

        Returns:
            The strategy, ready to decide.
        Raises:
            ConfigError: naming the field, the value, and what would work.
        """
        for metric in reported(self.metric, self.objectives):  # the study's metric last: some trainers remember it
            self.trainer.check(self.space, metric.name)
        if self.baseline is not None:
            for name in set(self.baseline) - set(self.space.names):
                raise ConfigError(f"baseline: unknown hyperparameter {name!r}. {nearest(name, self.space.names)}")
        problem = self.problem()
        self._check_constraints(problem)
        name = str(self.strategy["name"])
        options = {k: v for k, v in self.strategy.items() if k != "name"}
        strategy = build_strategy(name, options, problem, stopping=self.stopping)
        forecast.check_budget(self.budget, self.space, self.price)
        return strategy

    def problem(self) -> Problem:
        """What is searched, as strategies see it."""
        constrained = self.feasible is not None or self.max_memory_bytes is not None
        allowed = {"is_feasible": self.is_feasible} if constrained else {}
        return Problem(
            space=self.space,
            metric=self.metric,
            horizon=self.trainer.horizon,
            seed=self.seed,
            branch=self.branch,
            shortened=self.shortened,
            cost=self.relative_cost,
            fixed_at_start=self.trainer.fixed_at_start,
            objectives=self.objectives,
            earlier=self.earlier,
            **allowed,
        )

    def price(self, hyperparameters: Hyperparameters) -> Cost:
        """What a whole run will cost."""
        return self.trainer.cost(hyperparameters, 0, self.trainer.horizon(hyperparameters))

    def branch(self, hyperparameters: Hyperparameters, budget: int) -> Branch | None:
        """How a run with these hyperparameters is evaluated at a smaller budget; see `Problem.branch`."""
        trainer = self.trainer
        if trainer.stable_end(hyperparameters) is None:
            return None
        changes = trainer.extended(hyperparameters, budget)
        at = trainer.stable_end({**hyperparameters, **changes})
        return None if at is None or at >= budget else Branch(at, changes)

    def shortened(self, hyperparameters: Hyperparameters, budget: int) -> Hyperparameters | None:
        """The changes that make a run one of a smaller horizon; see `Problem.shortened`."""
        try:
            return self.trainer.extended(hyperparameters, budget)
        except ConfigError:
            return None

    def relative_cost(self, hyperparameters: Hyperparameters, start: int, until: int) -> float:
        """What training takes, in one unit for all runs of the study; see `Problem.cost`."""
        cost = self.trainer.cost(hyperparameters, start, until)
        return cost.flops or float(cost.tokens or cost.samples or until - start)

    def is_feasible(self, hyperparameters: Hyperparameters) -> bool:
        """Whether a run keeps the study's constraints."""
        if self.max_memory_bytes is not None:
            needed = self.trainer.memory_bytes(hyperparameters)
            if needed is not None and needed > self.max_memory_bytes:
                return False
        return self.feasible is None or bool(self.feasible(hyperparameters))

    def _check_constraints(self, problem: Problem) -> None:
        if self.max_memory_bytes is not None:
            constraints.check_memory(self.space, self.trainer.memory_bytes, self.max_memory_bytes, self.baseline)
        if problem.is_constrained:
            problem.sample(problem.rng(0))

    def config(self) -> dict[str, Any]:
        """All that makes the study what it is, as JSON values."""
        config = {
            "metric": str(self.metric),
            "unit": self.trainer.unit,
            "space": self.space.to_dict(),
            "strategy": dict(self.strategy),
            "budget": self.budget.limits(),
            "seed": self.seed,
            "baseline": dict(self.baseline) if self.baseline is not None else None,
            "trainer": dict(self.trainer.describe()),
            "file": dict(self.file) if self.file is not None else None,
        }
        if self.objectives:
            config["objectives"] = [str(metric) for metric in self.objectives]
        if self.max_memory_bytes is not None:
            config["max_memory_bytes"] = self.max_memory_bytes
        if self.stopping is not None:
            config["stopping"] = self.stopping.rules()
        if self.earlier:
            config["warm_start"] = earlier_studies.to_config(self.earlier)
        normal: dict[str, Any] = json.loads(json.dumps(config))
        return normal


@dataclass(frozen=True)
class Result:
    """A study as it stands in its store."""

    view: StudyView
    store: Path | str
    study: Study
    """What was run."""

    @property
    def tree(self) -> Tree:
        """All runs."""
        return self.view.tree

    @property
    def ledger(self) -> Ledger:
        """What was spent."""
        return self.view.ledger

    @property
    def best(self) -> Run | None:
        """The finished run with the best metric; None where none has finished."""
        return self.view.best

    @property
    def front(self) -> list[Run]:
        """The best trade-offs: finished runs that no other beats in one objective without being worse in another.

        With one objective the best run alone."""
        from thalweg.report.front import front

        return front(self.view)

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        """Of the best run.

        Raises:
            ConfigError: no run has finished.
        """
        if self.best is None:
            raise ConfigError(f"study {self.view.name!r} has no finished run: give it a larger budget")
        return dict(self.best.hyperparameters)

    @property
    def best_value(self) -> float:
        """The study's metric of the best run, on the validation data."""
        if self.best is None:
            raise ConfigError(f"study {self.view.name!r} has no finished run: give it a larger budget")
        return self.best.reports[-1].metrics[self.view.metric.name]

    def extend(self, run: str, *, to: int, changes: Hyperparameters | None = None, progress: bool = True) -> Result:
        """Extend a run to a larger horizon, from the end of its stable phase; see `thalweg.extension`.

        Args:
            run: its id.
            to: the new horizon, a position in the trainer's unit.
            changes: further hyperparameters to change.
            progress: show a live display.
        Returns:
            The study with the new run, a fork of the old one and the last in `tree`.
        Raises: see `thalweg.extension`.
        """
        from thalweg.extension import carry_out, extension

        with Store.open(self.store) as store:
            fork = extension(self.study.trainer, store, store.read_run(run), to, changes)
        carry_out(fork, self.study, self.store, quiet=not progress)
        with Store.open(self.store, read_only=True) as store:
            return Result(read_view(store, self.study.name), self.store, self.study)

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the report, one self-contained page."""
        from thalweg.report.page import write_report

        with Store.open(self.store, read_only=True) as store:
            return write_report(store, self.view.name, Path(path))

    def __str__(self) -> str:
        from rich.console import Console

        from thalweg.report.summary import summary

        console = Console(width=100, no_color=True)
        with console.capture() as capture:
            console.print(summary(self.view))
        return capture.get()


def tune(
    trainer: Trainer | Callable[[FunctionRun], object],
    *,
    space: Mapping[str, Any] | Space | Literal["suggested"],
    metric: str,
    budget: str | Mapping[str, float] | Budget,
    strategy: str | Mapping[str, Any] = "auto",
    name: str | None = None,
    horizon: int | Callable[[Hyperparameters], int] | None = None,
    unit: Unit | None = None,
    baseline: Hyperparameters | None = None,
    warm_start: str | Sequence[str] = (),
    objectives: Sequence[str | Metric] = (),
    stopping: Mapping[str, Any] | Stopping | None = None,
    seed: int = 0,
    store: str | Path = DEFAULT_STORE,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Find good hyperparameters.

    The same call again, with the same `name`, goes on where it stopped.

    Args:
        trainer: a `FineTune` or another trainer, or a function of your own that takes a run (see `FunctionRun`).
        space: a dimension per hyperparameter: `{"lr": thalweg.log(1e-5, 1e-2), "batch_size": thalweg.choice([8, 16])}`.
            Or "suggested", for a `FineTune` or a `Pretrain`: what `thalweg space suggest` shows. To give some yourself:
            `{"suggested": True, "epochs": 3}`.
        metric: what to improve, as the trainer reports it: "accuracy", or "max reward" / "min regret".
        budget: "20 min", "12 runs, 1e15 flops", or a mapping such as `{"minutes": 20}`. What is used up first ends
            the study.
        strategy: a name, or a mapping of a name and options: `{"name": "halving", "sampler": "tpe", "eta": 3}`. The
            default, `auto`, is described in `thalweg.search.auto`.
        name: of the study in its store; by default the trainer's or the function's.
        horizon: for a function: the position at which a run is complete, or a function of the hyperparameters.
        unit: for a function: what its positions count.
        baseline: hyperparameters to compare with; trained first.
        warm_start: names of earlier studies to learn from, of this store, or of another as "STORE:STUDY".
        objectives: further metrics to improve beside `metric`, such as `["min latency_ms", "min cost"]`: the result's
            `front` has the best trade-offs. `min cost` is what a run takes, and needs no report.
        stopping: rules that end the study before its budget does, such as `{"min_improvement": 0.002}`; see
            `thalweg.scaling.stopping.Stopping`.
        seed: decides what is proposed, and seeds every run.
        store: a file, or a database URL.
        progress: show a live display.
        options: `workers`, `checkpoint_seconds`, `keep_checkpoints`, `max_memory_bytes`, `feasible`: see `Study`.
    Raises:
        ConfigError: something in the above cannot work; nothing was trained.
        StudyFailed: runs keep failing with the same error, or the time that is left once workers have loaded is too
            short for a first run.
        KeyboardInterrupt: after the runs have written their checkpoints; call again to go on.
    """
    if not hasattr(trainer, "train"):
        extra = ({} if horizon is None else {"horizon": horizon}) | ({} if unit is None else {"unit": unit})
        function = trainer
        trainer = FunctionTrainer(function, **extra)  # type: ignore[arg-type]
        default_name = getattr(function, "__name__", "study")
    else:
        if horizon is not None or unit is not None:
            raise ConfigError("horizon and unit are for functions: this trainer knows its own")
        default_name = type(trainer).__name__.lower()
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", default_name).strip("-") or "study"
    parsed = read_space(space, trainer)  # type: ignore[arg-type]
    goal = Metric.parse(metric)
    study = Study(
        name=name,
        space=parsed,
        metric=goal,
        trainer=trainer,  # type: ignore[arg-type]
        budget=Budget.parse(budget),
        strategy={"name": strategy} if isinstance(strategy, str) else dict(strategy),
        seed=seed,
        baseline=baseline,
        earlier=earlier_studies.gather(warm_start, study=name, space=parsed, metric=goal, store=store),
        objectives=tuple(map(Metric.parse, objectives)),
        stopping=None if stopping is None else Stopping.parse(stopping),
        **options,
    )
    return run_study(study, store, quiet=not progress)


def run_study(study: Study, location: str | Path, *, console: Console | None = None, quiet: bool = False) -> Result:
    """Run a study, or go on with it, until its strategy or its budget ends it.

    Args:
        location: the store: a file, or a database URL.
        console: where the plan and the progress are shown; stdout by default.
        quiet: show nothing.
    Raises: see `tune`.
    """
    console = console or Console(quiet=quiet)
    with console.status("checking the study, loading the model and the data ..."), ExitStack() as undo:
        strategy = study.check()
        store = undo.enter_context(Store.open(location))
        enter(study, store)
        session = undo.enter_context(store.open_session(study.name))
        executor = start_workers(study, location)
        undo.callback(lambda: executor.close(grace_seconds=1.0))
        watch = Progress(study.name, study.metric, study.trainer.unit, study.budget, console=console, quiet=quiet)
        loop = Loop(study, strategy, store, session, executor, watch)
        loop.wait_until_ready()
        plan = make_plan(study, strategy, loop, location)
        opened = undo.pop_all()
    with opened:
        if not quiet:
            console.print(plan_table(plan))
        with watch:
            loop.run()
        return Result(read_view(store, study.name), location, study)


def enter(study: Study, store: Store) -> None:
    """Enter a new study into the store, or make sure that the one of this name is the same.

    Raises:
        ConfigError: a study of this name exists and differs; the message says in what.
    """
    config = study.config()
    if study.name not in {record.name for record in store.studies()}:
        store.create_study(study.name, config)
        return
    before = store.study(study.name).config
    if changes := _differences(before, config):
        raise ConfigError(
            f"study {study.name!r} exists in this store with other settings:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nGive the new one another name, or undo the change to go on with the old one"
            f" (for a larger budget: thalweg resume {study.name} --budget '...')."
        )


def make_plan(study: Study, strategy: Strategy, loop: Loop, location: str | Path) -> Plan:
    """What is about to happen, at the speed that the workers have.

    Raises:
        ConfigError: at this speed the budget's time is too short for a single run.
    """
    trainer, speed = study.trainer, loop.speed

    def timed(hyperparameters: Hyperparameters) -> Cost:
        return speed.timed(study.price(hyperparameters), trainer.horizon(hyperparameters))

    loading_seconds = 0.0 if len(loop.tree) else loop.ledger.wall_seconds
    forecast.check_budget(study.budget, study.space, timed, loading_seconds=loading_seconds)
    left = study.budget.left(loop.ledger)
    baseline = timed(study.baseline) if study.baseline is not None and not len(loop.tree) else Cost()
    each = forecast.scale(forecast.average_cost(study.space, timed, study.seed), strategy.share)
    room = forecast.reduced(left, baseline, num_workers=loop.executor.num_workers)
    num_runs = forecast.expected_runs(room.amounts, each, loop.executor.num_workers, at_most=strategy.num_roots)
    total = baseline + forecast.scale(each, num_runs or 0)
    return Plan(
        study=study.name,
        strategy=" ".join(f"{v}" if k == "name" else f"{k}={v}" for k, v in study.strategy.items()),
        metric=study.metric,
        space=study.space,
        budget=study.budget,
        num_runs=None if num_runs is None else num_runs + (1 if baseline.device_seconds else 0),
        cost=total,
        expected_seconds=total.device_seconds / loop.executor.num_workers if total.device_seconds else None,
        workers=loop.executor.num_workers,
        facts={
            **trainer.facts(),
            **earlier_studies.facts(study.earlier),
            "store": str(location),
            "recorded so far": f"{len(loop.tree)} runs",
        },
    )


def start_workers(study: Study, location: str | Path) -> LocalExecutor:
    """The worker processes, which load what runs share."""
    folder = checkpoint_folder(location)
    work = StudyWorker(
        study.trainer, study.metric.name, str(location), folder, study.checkpoint_seconds, study.keep_checkpoints
    )
    return LocalExecutor(work, num_workers=study.workers, preload=["thalweg.worker", *study.trainer.preload])


def checkpoint_folder(location: str | Path) -> Path:
    """Where a store's checkpoints are: beside its file, or in the working directory where it is a database server."""
    beside = Path(DEFAULT_STORE) if "://" in str(location) else Path(location)
    return beside.absolute().parent / "checkpoints"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """What changed between two configurations, a line per value."""
    changes = []
    for key in sorted({*before, *now}):
        path = f"{where}{key}"
        old, new = before.get(key), now.get(key)
        if path == "file" or old == new:
            continue
        if path == "warm_start":
            was, now_is = (earlier_studies.in_short(earlier_studies.from_config(value or [])) for value in (old, new))
            changes.append(f"warm_start: was {was}, is now {now_is}")
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += _differences(old, new, f"{path}.")
        else:
            changes.append(f"{path}: was {json.dumps(old)}, is now {json.dumps(new)}")
    return changes
