"""`thalweg space suggest`: a space with priors, each number with its reason and its source."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.arguments import JsonOption, print_json
from thalweg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from thalweg.plan.priors import Subject, Suggestion

app = typer.Typer(help="Spaces to search.", no_args_is_help=True, rich_markup_mode=None)

_KINDS = ("encoder", "decoder")


@app.callback()
def _space() -> None:
    pass  # so that `suggest` stays a command of its own name, though it is the only one


@app.command("suggest")
def suggest(
    file: Annotated[
        Path | None, typer.Argument(help="A study file; its [trainer] is enough.", metavar="[FILE]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model: a hub id, a folder, a GGUF file or package:NAME/path.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="full (fine-tune all weights), lora, or pretrain. By default full.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Training rows, for fine-tuning.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens a run trains on, for pre-training.")] = None,
    parameters: Annotated[
        float | None, typer.Option(help="In place of a model: its parameters, for pre-training without the embedding.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="In place of a model: its hidden width.")] = None,
    family: Annotated[str | None, typer.Option(help="In place of a model: llama, qwen or another.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="In place of a model: encoder or decoder. By default decoder.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a training sequence, for pre-training.")] = None,
    toml: Annotated[bool, typer.Option("--toml", help="Print a [space] to paste into a study file.")] = False,
    json: JsonOption = False,
) -> None:
    """Suggest what to search and what to fix, from published laws and recipes.

    Example: thalweg space suggest --parameters 8e9 --width 4096 --family llama --mode lora --rows 20000
    """
    from thalweg.plan import priors

    sizes = {"parameters": parameters, "width": width, "family": family, "kind": kind}
    amounts = {"num_rows": rows, "num_tokens": tokens, "context": context}
    if file is not None:
        subject = _of_file(file, {"model": model, "mode": mode, **sizes}, amounts)
    elif model is not None:
        subject = _of_model(model, mode, sizes, amounts)
    else:
        subject = _of_sizes(mode, sizes, amounts)
    found = priors.suggest(subject)
    if toml:
        print(priors.as_toml(found), end="")
    elif json:
        print_json({"subject": dataclasses.asdict(subject), "suggestions": _as_dicts(found)})
    else:
        _show(subject, found, file)


def _of_file(file: Path, refused: dict[str, Any], amounts: dict[str, Any]) -> Subject:
    """What a study file trains; of its space nothing counts but what decides the length of a run."""
    from thalweg.cli import study_file
    from thalweg.suggested import subject_of

    for name, value in refused.items():
        if value is not None:
            raise ConfigError(f"--{name} = {value!r}: {file} says that already; give one of the two")
    trainer, space = study_file.read_trainer(file)
    subject = subject_of(trainer, space)
    return dataclasses.replace(subject, **{name: value for name, value in amounts.items() if value is not None})


def _of_model(model: str, mode: str | None, sizes: dict[str, Any], amounts: dict[str, Any]) -> Subject:
    from thalweg.suggested import subject_of_model

    for name, value in sizes.items():
        if value is not None:
            raise ConfigError(f"--{name} = {value!r}: the model says that already; give one of the two")
    _check_amounts(mode or "full", amounts)
    return subject_of_model(model, mode or "full", **amounts)  # type: ignore[arg-type]


def _of_sizes(mode: str | None, sizes: dict[str, Any], amounts: dict[str, Any]) -> Subject:
    from thalweg.plan.priors import Subject

    if sizes["parameters"] is None:
        raise ConfigError("nothing to suggest for: give a study file, --model, or --parameters such as 1e9")
    if sizes["kind"] not in (None, *_KINDS):
        raise ConfigError(f"--kind = {sizes['kind']!r} is not known. {nearest(sizes['kind'], _KINDS)}")
    _check_amounts(mode or "full", amounts)
    given = {name: value for name, value in (sizes | amounts).items() if value is not None and name != "parameters"}
    return Subject(mode=mode or "full", num_parameters=sizes["parameters"], **given)  # type: ignore[arg-type]


def _check_amounts(mode: str, amounts: dict[str, Any]) -> None:
    from thalweg.plan.priors import MODES

    if mode not in MODES:
        raise ConfigError(f"--mode = {mode!r} is not known. {nearest(mode, MODES)}")
    name, option = ("num_tokens", "--tokens 1e9") if mode == "pretrain" else ("num_rows", "--rows 5000")
    if amounts[name] is None:
        what = "the tokens that a run trains on" if mode == "pretrain" else "the number of training rows"
        raise ConfigError(f"--mode {mode} needs {what}: give {option}")


def _show(subject: Subject, found: list[Suggestion], file: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from thalweg.plan.suggestion import in_words
    from thalweg.space import Choice, Float, Integer

    how = {"full": "fine-tuning of all weights", "lora": "fine-tuning with LoRA", "pretrain": "pre-training"}
    print(f"For {how[subject.mode]}: {_in_short(subject, in_words)}\n")
    table = Table("name", "search", "prior", "confidence", box=None, pad_edge=False)
    for entry in found:
        if isinstance(entry.entry, Float | Integer | Choice):
            plain = dataclasses.replace(entry.entry, prior=None)
            table.add_row(entry.name, plain.describe(), f"{entry.entry.prior}", entry.entry.confidence)
        else:
            table.add_row(entry.name, f"fixed: {entry.entry}", "", "")
    Console().print(table, highlight=False)
    print()
    reasons = Table("why", "", box=None, pad_edge=False)
    for entry in found:
        reasons.add_row(entry.name, f"{entry.why} Source: {entry.source}.")
    Console().print(reasons, highlight=False)
    where = f"{file}" if file is not None else "a study file"
    print(f"\nTo search it: write 'suggested = true' under [space] of {where}, or paste what --toml prints.")


def _in_short(subject: Subject, in_words: Any) -> str:
    parts = [f"{in_words(subject.num_parameters)} parameters"]
    if subject.mode == "pretrain":
        assert subject.num_tokens is not None
        parts[0] += " without the embedding"
        return ", ".join([*parts, f"{in_words(subject.num_tokens)} tokens, sequences of {subject.context:,}"])
    if subject.width is not None:
        parts.append(f"width {subject.width:,}")
    family = f" of the family {subject.family}" if subject.family else ""
    return ", ".join([f"{subject.kind}{family}", *parts, f"{subject.num_rows:,} rows"])


def _as_dicts(found: list[Suggestion]) -> list[dict[str, Any]]:
    from thalweg.plan.priors import as_space

    space = as_space(found).to_dict()
    return [
        {"name": entry.name, "space": space[entry.name], "why": entry.why, "source": entry.source} for entry in found
    ]
