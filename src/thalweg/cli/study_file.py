"""Study files: a search written down in TOML."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from thalweg.budget import Budget
from thalweg.errors import ConfigError, nearest
from thalweg.scaling.stopping import Stopping
from thalweg.space import Space
from thalweg.tree import Metric

if TYPE_CHECKING:
    from thalweg.study import Study
    from thalweg.trainer import Trainer


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_TableT = TypeVar("_TableT", bound=_Table)


class StudyTable(_Table):
    """`[study]`"""

    metric: str
    """What to improve: `accuracy`, or `max reward`, `min regret` for a metric whose direction is not known."""
    name: str | None = None
    """By default the file's name without its ending."""
    seed: int = 0
    store: str | None = None
    """A file, or a database URL. By default `.thalweg/store.db` in the working directory."""
    workers: int | None = None
    checkpoint_seconds: float = 60.0
    keep_checkpoints: Literal["needed", "all"] = "needed"
    objectives: list[str] = []
    """Further metrics to improve: `min latency_ms`, or `min cost`, which is what a run takes and needs no report."""
    warm_start: list[str] = []
    """Earlier studies to learn from: `STUDY`, of the same store, or `STORE:STUDY`."""


class ConstraintsTable(_Table):
    """`[constraints]`"""

    memory_gb: float
    """Most memory that a run may need, in 10^9 bytes, as the trainer predicts it."""


class StoppingTable(_Table):
    """`[stopping]`: see `thalweg.scaling.stopping.Stopping`."""

    min_improvement: float | None = None
    max_runs_without_improvement: int | None = None
    target: float | None = None


class FunctionTable(_Table):
    """`[trainer]` with `kind = "function"`: a function in a Python file."""

    kind: Literal["function"]
    file: str
    function: str = "train"
    horizon: int = 1
    unit: Literal["steps", "samples", "tokens"] = "steps"


class HFTrainerTable(_Table):
    """`[trainer]` with `kind = "hf_trainer"`: a function in a Python file that builds a Hugging Face Trainer."""

    kind: Literal["hf_trainer"]
    file: str
    function: str = "make_trainer"
    horizon: int | None = None


class StudyFile(_Table):
    """A whole study file."""

    study: StudyTable
    budget: dict[str, Any]
    space: dict[str, Any]
    trainer: dict[str, Any]
    strategy: dict[str, Any] = {"name": "auto"}
    baseline: dict[str, Any] | None = None
    constraints: ConstraintsTable | None = None
    stopping: StoppingTable | None = None


def read(path: Path, *, warm_start: Sequence[str] | None = None) -> tuple[Study, str]:
    """Read and check a study file.

    Args:
        warm_start: earlier studies to learn from, in place of the file's.
    Returns:
        The study, and where its store is.
    Raises:
        ConfigError: naming the field, the value, and what would work.
    """
    return parse(_tables(path), folder=path.absolute().parent, default_name=path.stem, warm_start=warm_start)


def read_trainer(path: Path) -> tuple[Trainer, Mapping[str, Any]]:
    """The trainer of a study file that need not have anything else yet.

    Returns:
        The trainer, and what `[space]` has.
    Raises:
        ConfigError: there is no `[trainer]`, or it is wrong.
    """
    tables = _tables(path)
    trainer, space = tables.get("trainer"), tables.get("space", {})
    if not isinstance(trainer, dict):
        raise ConfigError(f"{path}: trainer: is missing")
    if not isinstance(space, dict):
        raise ConfigError(f"{path}: space = {space!r} must be a table")
    return _trainer(trainer, path.absolute().parent), space


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None


def parse(
    tables: Mapping[str, Any],
    *,
    folder: Path,
    default_name: str,
    warm_start: Sequence[str] | None = None,
    stored: Mapping[str, Any] | None = None,
) -> tuple[Study, str]:
    """Check a study file's tables. Relative paths of data and models begin at `folder`.

    Args:
        warm_start: earlier studies to learn from, in place of the file's.
        stored: the configuration of the study where it was begun before: it keeps its space and what it learnt from.
    """
    from thalweg import warm_start as earlier_studies
    from thalweg.study import DEFAULT_STORE, Study
    from thalweg.suggested import read_space

    try:
        file = StudyFile.model_validate(dict(tables))
    except ValidationError as error:
        raise explain(error, StudyFile) from None
    if not isinstance(file.strategy.get("name"), str):
        raise ConfigError("strategy.name is missing; for example name = 'halving'")
    name = file.study.name or default_name
    location = file.study.store or DEFAULT_STORE
    trainer, metric = _trainer(file.trainer, folder), Metric.parse(file.study.metric)
    if stored is not None:
        space = Space.parse(stored["space"])
        earlier = earlier_studies.from_config(stored.get("warm_start") or [])
    else:
        space = read_space(file.space, trainer)
        references = file.study.warm_start if warm_start is None else warm_start
        earlier = earlier_studies.gather(references, study=name, space=space, metric=metric, store=location)
    study = Study(
        name=name,
        space=space,
        metric=metric,
        trainer=trainer,
        budget=Budget.parse(file.budget),
        strategy=file.strategy,
        seed=file.study.seed,
        baseline=file.baseline,
        workers=file.study.workers,
        checkpoint_seconds=file.study.checkpoint_seconds,
        keep_checkpoints=file.study.keep_checkpoints,
        earlier=earlier,
        objectives=tuple(map(Metric.parse, file.study.objectives)),
        max_memory_bytes=None if file.constraints is None else file.constraints.memory_gb * 1e9,
        stopping=None if file.stopping is None else Stopping.parse(file.stopping.model_dump()),
        file={"tables": dict(tables), "folder": str(folder), "name": name},
    )
    return study, location


def from_config(config: Mapping[str, Any], name: str) -> Study:
    """The study that a store holds, from the file that it was read from.

    Raises:
        ConfigError: it was started from Python: its function is not in the store.
    """
    file = config.get("file")
    if file is None:
        raise ConfigError(f"study {name!r} was started from Python: run that script again to go on with it")
    study, _ = parse(file["tables"], folder=Path(file["folder"]), default_name=file["name"], stored=config)
    return study


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> ConfigError:
    """pydantic's findings as one error: a line per field, with its value and what would work."""
    lines = []
    for problem in error.errors(include_url=False)[:5]:
        where = ".".join([prefix, *map(str, problem["loc"])] if prefix else map(str, problem["loc"]))
        match problem["type"]:
            case "extra_forbidden":
                known = _fields(model, problem["loc"][:-1])
                lines.append(f"{where}: unknown key. {nearest(str(problem['loc'][-1]), known)}")
            case "missing":
                lines.append(f"{where}: is missing")
            case "value_error":
                lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
            case _:
                wanted = problem["msg"].removeprefix("Input ")
                lines.append(f"{where} = {problem['input']!r}: {wanted}")
    return ConfigError("\n".join(lines))


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for step in location:
        field = model.model_fields.get(str(step))
        inner = (
            [
                candidate
                for candidate in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(candidate, type) and issubclass(candidate, BaseModel)
            ]
            if field
            else []
        )
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _finetune(table: Mapping[str, Any], folder: Path) -> Trainer:
    from thalweg.train.finetune import FineTune

    return _validated(FineTune, _resolved(table, folder, ("model",)), folder, ("train", "validation", "test"))


def _pretrain(table: Mapping[str, Any], folder: Path) -> Trainer:
    from thalweg.train.pretrain import Pretrain

    return _validated(Pretrain, table, folder, ("train", "validation", "test", "tokenizer"))


def _validated(kind: Any, table: Mapping[str, Any], folder: Path, sources: tuple[str, ...]) -> Trainer:
    """A trainer that is a pydantic model; the sources in its table `data` may begin at the folder."""
    options = {key: value for key, value in table.items() if key != "kind"}
    if isinstance(options.get("data"), dict):
        options["data"] = _resolved(options["data"], folder, sources)
    try:
        made: Trainer = kind.model_validate(options)
    except ValidationError as error:
        raise explain(error, kind, "trainer") from None
    return made


def _resolved(table: Mapping[str, Any], folder: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Paths that begin at the study file's folder, made whole; hub ids and the like stay as they are."""

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(entry) for entry in value]
        return str(folder / value) if isinstance(value, str) and (folder / value).exists() else value

    return {key: whole(value) if key in keys else value for key, value in table.items()}


def _function(table: Mapping[str, Any], folder: Path) -> Trainer:
    from thalweg.train.function import FunctionTrainer

    options = _options(FunctionTable, table)
    return FunctionTrainer(_load(options.file, options.function, folder), horizon=options.horizon, unit=options.unit)


def _hf_trainer(table: Mapping[str, Any], folder: Path) -> Trainer:
    from thalweg.train.hf_trainer import HFTrainer

    options = _options(HFTrainerTable, table)
    return HFTrainer(_load(options.file, options.function, folder), horizon=options.horizon)


def _options(kind: type[_TableT], table: Mapping[str, Any]) -> _TableT:
    try:
        return kind.model_validate(dict(table))
    except ValidationError as error:
        raise explain(error, kind, "trainer") from None


def _load(file: str, function: str, folder: Path) -> Any:
    """A function of a Python file, such that it can be sent to workers."""
    path = folder / file
    if not path.is_file():
        raise ConfigError(f"trainer.file = {file!r}: there is no such file in {folder}")
    spec = importlib.util.spec_from_file_location(f"thalweg_study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"trainer.file = {file!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    if function not in functions:
        raise ConfigError(f"trainer.function: no {function!r} in {path}. {nearest(function, functions)}")
    # By value: the workers do not have this module.
    import cloudpickle

    sys.modules[spec.name] = module
    cloudpickle.register_pickle_by_value(module)
    return getattr(module, function)


_TRAINERS: dict[str, Callable[[Mapping[str, Any], Path], Trainer]] = {
    "finetune": _finetune,
    "pretrain": _pretrain,
    "hf_trainer": _hf_trainer,
    "function": _function,
}


def _trainer(table: Mapping[str, Any], folder: Path) -> Trainer:
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in _TRAINERS:
        raise ConfigError(f"trainer.kind = {kind!r} is not known. {nearest(str(kind), _TRAINERS)}")
    return _TRAINERS[kind](table, folder)
