"""Learning-rate schedules: pure functions of the position, one per file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from thalweg.schedules.compose import join, repeat, scale, stretch
from thalweg.schedules.constant import constant
from thalweg.schedules.cosine import cosine
from thalweg.schedules.cyclic_cosine import cyclic_cosine
from thalweg.schedules.cyclic_wsd import cyclic_wsd
from thalweg.schedules.decay_forms import DECAY_FORMS
from thalweg.schedules.exponential import lr_range
from thalweg.schedules.inverse_sqrt import inverse_sqrt
from thalweg.schedules.lengths import BatchRamp, batch_ramp, constant_batch, convert, in_steps
from thalweg.schedules.linear import linear
from thalweg.schedules.multi_stage import Stage, multi_stage
from thalweg.schedules.polynomial import polynomial
from thalweg.schedules.preset import Preset, preset, preset_names, presets, read_preset
from thalweg.schedules.run_schedule import RUN_SCHEDULES, decay_start, for_run, run_schedule_names
from thalweg.schedules.schedule import Schedule
from thalweg.schedules.toml_text import from_toml, parse_toml, to_toml
from thalweg.schedules.wsd import wsd

SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "polynomial": polynomial,
    "inverse_sqrt": inverse_sqrt,
    "cosine": cosine,
    "wsd": wsd,
    "cyclic_cosine": cyclic_cosine,
    "cyclic_wsd": cyclic_wsd,
    "multi_stage": multi_stage,
    "lr_range": lr_range,
    "join": join,
    "scale": scale,
    "repeat": repeat,
    "stretch": stretch,
    "in_steps": in_steps,
}
"""By the name that TOML uses, `kind`. The names that a run can have are those of `run_schedule_names`."""

__all__ = [
    "DECAY_FORMS",
    "RUN_SCHEDULES",
    "SCHEDULES",
    "BatchRamp",
    "Preset",
    "Schedule",
    "Stage",
    "batch_ramp",
    "constant",
    "constant_batch",
    "convert",
    "cosine",
    "cyclic_cosine",
    "cyclic_wsd",
    "decay_start",
    "for_run",
    "from_toml",
    "in_steps",
    "inverse_sqrt",
    "join",
    "linear",
    "lr_range",
    "multi_stage",
    "parse_toml",
    "polynomial",
    "preset",
    "preset_names",
    "presets",
    "read_preset",
    "repeat",
    "run_schedule_names",
    "scale",
    "stretch",
    "to_toml",
    "wsd",
]
