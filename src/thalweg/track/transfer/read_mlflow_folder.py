"""MLflow's folder of runs (`mlruns`): read as it lies, file by file.

MLflow refuses such folders since version 3.17 unless told otherwise. It gives up a whole experiment where one line of
one metric is damaged, passes over a run without its `meta.yaml` without a word, and forgets the step of a point that
names a dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thalweg.errors import ConfigError
from thalweg.track.transfer.incoming import Outline, Record, Skipped
from thalweg.track.transfer.mlflow_run import Point, artifacts, run_record, series_records

_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


def read_mlflow_folder(folder: Path) -> Iterator[Record]:
    """A run for each active run of each active experiment.

    Raises:
        ConfigError: the package PyYAML is missing, or there is no experiment.
    """
    try:
        import yaml  # noqa: F401
    except ImportError as error:
        raise ConfigError("reading an MLflow folder needs pyyaml: pip install 'thalweg[import]'") from error
    experiments = [place.parent for place in sorted(folder.glob("*/meta.yaml"))]
    if not experiments:
        raise ConfigError(f"{str(folder)!r} is no MLflow folder: no experiment (NUMBER/meta.yaml) is in it")
    runs = {place: [run for run in sorted(place.glob("*/")) if _looks_like_a_run(run)] for place in experiments}
    yield Outline(num_runs=sum(len(found) for found in runs.values()))
    for place, found in runs.items():
        about, problem = _read_yaml(place / "meta.yaml")
        if problem is not None:
            yield problem
        name = str(about.get("name") or place.name)
        num_deleted = 0
        for run in found:
            info, problem = _read_yaml(run / "meta.yaml")
            if problem is not None:
                yield problem
            if info.get("lifecycle_stage") == "deleted":
                num_deleted += 1
                continue
            yield from _read_run(run, name, info)
        if num_deleted:
            yield Skipped(place=f"experiment {name!r}", reason=f"{num_deleted:,} deleted runs")


def _looks_like_a_run(folder: Path) -> bool:
    return (folder / "metrics").is_dir() or (folder / "params").is_dir()


def _read_yaml(file: Path) -> tuple[dict[str, Any], Skipped | None]:
    import yaml

    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, Skipped(place=str(file), reason=f"cannot be read: {error}")
    if not isinstance(found, dict):
        return {}, Skipped(place=str(file), reason="damaged: it holds no table")
    return found, None


def _read_run(folder: Path, experiment: str, meta: dict[str, Any]) -> Iterator[Record]:
    tags = {name: _text(file) for name, file in _files(folder / "tags")}
    info = {
        "run_id": folder.name,
        "run_name": str(meta["run_name"]) if meta.get("run_name") else None,
        "status": _STATUS.get(meta.get("status", 0), "RUNNING"),
        "start_time": _milliseconds(meta.get("start_time")),
        "end_time": _milliseconds(meta.get("end_time")),
        "artifact_uri": str(meta.get("artifact_uri", "")),
    }
    parameters = {name: _text(file) for name, file in _files(folder / "params")}
    # The folder may have been moved since its runs wrote down where their artifacts are.
    files = artifacts(str(folder / "artifacts")) or artifacts(str(meta.get("artifact_uri", "")))
    yield run_record(experiment, info, parameters, tags, files)
    for metric, file in _files(folder / "metrics"):
        points, problems = _points(file)
        yield from problems
        if points:
            yield from series_records(folder.name, metric, points)


def _files(folder: Path) -> list[tuple[str, Path]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "replace")


def _milliseconds(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _points(file: Path) -> tuple[list[Point], list[Skipped]]:
    """The points of a metric's file, a line each: time, value, step, and for a dataset its name and digest."""
    points: list[Point] = []
    problems: list[Skipped] = []
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.strip().split(" ")
        try:
            points.append((int(fields[2]) if len(fields) > 2 else 0, int(fields[0]), float(fields[1])))
        except (ValueError, IndexError):
            problems.append(Skipped(place=f"{file}, line {number}", reason=f"not a point: {line[:40]!r}"))
    return points, problems
