"""The figures that need no training: schedules, decay forms, published runs, weight decay, clipping, a river valley."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from thalweg import schedules
from thalweg.optim.clipping import ClipKind, Clipper
from thalweg.optim.weight_decay import KINDS, shrinkage
from thalweg.report.chart import Chart, Line, Mark
from thalweg.report.palette import BLUE, GREEN, ORANGE
from thalweg.report.wording import number
from thalweg.scaling.river_valley import Valley, expected_loss, simulate

HORIZON = 1000
THRESHOLDS: Mapping[ClipKind, float] = {"norm": 1.0, "component": 1.0, "value": 0.5}
LARGE = {10**12: "trillion", 10**9: "billion", 10**6: "million", 10**3: "thousand"}


def _rates(schedule: schedules.Schedule, positions: Sequence[float]) -> list[float]:
    return [schedule(position) for position in positions]


def _named(name: str, label: str = "", **settings: float | str) -> Line:
    """A run's schedule, drawn over its horizon."""
    positions = [float(position) for position in range(HORIZON + 1)]
    schedule = schedules.for_run(name, horizon=HORIZON, **settings)  # type: ignore[arg-type]
    return Line(name=label or name, x=positions, y=_rates(schedule, positions))


def all_schedules() -> list[Chart]:
    """Those that a run can have by name: without cycles above, with cycles below."""
    axes: dict[str, Any] = {"x_label": "position", "y_label": "share of the peak learning rate"}
    whole = ("constant", "linear", "polynomial", "inverse_sqrt", "cosine", "wsd")
    cycles = {"num_cycles": 3, "warmup": 0.05}
    return [
        Chart(
            title="Schedules of a run of 1,000 positions, warmup = 0.05",
            lines=[
                *(_named(name, warmup=0.05) for name in whole),
                _named("wsd", "wsd, decay = 0.3,\ndecay_form = 1-sqrt", warmup=0.05, decay=0.3, decay_form="1-sqrt"),
            ],
            **axes,
        ),
        Chart(
            title="Cyclic schedules, num_cycles = 3",
            lines=[
                _named("cyclic_cosine", "cyclic_cosine, cycle_growth = 2", cycle_growth=2, **cycles),
                _named("cyclic_wsd", "cyclic_wsd, cycle_peak = 0.8", cycle_peak=0.8, **cycles),
            ],
            **axes,
        ),
    ]


def decay_forms() -> list[Chart]:
    """How the learning rate can fall."""
    shares = [i / 200 for i in range(201)]
    floor = 0.1
    lines = [
        Line(name=name, x=shares, y=[form(share, floor) for share in shares], dash=i >= 7)
        for i, (name, form) in enumerate(schedules.DECAY_FORMS.items())
    ]
    chart = Chart(
        title="decay_form, with floor = 0.1",
        x_label="share of the decay that is done",
        y_label="share of the peak learning rate",
        lines=lines,
    )
    return [chart]


def published() -> list[Chart]:
    """Four published runs, in the units that they were published in."""
    return [_preset(schedules.preset(name)) for name in ("bloom-176b", "llama-3-405b", "deepseek-v3", "minicpm-2.4b")]


def _preset(found: schedules.Preset) -> Chart:
    # Evenly, and densely where the warm-up and the last annealing are.
    shares = sorted(
        {i / 1000 for i in range(1001)} | {i / 50_000 for i in range(1000)} | {1 - i / 1e6 for i in range(9)}
    )
    positions = [share * found.length for share in shares]
    scale = next(scale for scale in LARGE if found.length >= scale)
    return Chart(
        title=f"{found.name}: peak {number(found.peak)}",
        x_label=f"{LARGE[scale]} {found.unit}",
        y_label="learning rate",
        lines=[
            Line(
                name="", x=[p / scale for p in positions], y=[found.peak * r for r in _rates(found.schedule, positions)]
            )
        ],
    )


def batch_ramp() -> list[Chart]:
    """BLOOM's first samples: its schedule is in samples, and its batch grows, so by step the warm-up is another."""
    found = schedules.preset("bloom-176b")
    assert found.batch is not None
    by_step = schedules.in_steps(found.schedule, found.batch)
    steps = [float(step) for step in range(0, 20_001, 20)]
    return [
        Chart(
            title="bloom-176b: batch size and learning rate over its first 20,000 steps",
            x_label="step",
            y_label="share of the largest",
            lines=[
                Line(name="learning rate", x=steps, y=_rates(by_step, steps)),
                Line(
                    name="batch size, 16 to 2,048 sequences",
                    x=steps,
                    y=[found.batch.size_at(found.batch.samples_at(step)) / found.batch.final for step in steps],
                ),
                Line(
                    name="learning rate, had the batch been 2,048 from the start",
                    x=steps,
                    y=[found.schedule(step * found.batch.final) for step in steps],
                    dash=True,
                ),
            ],
        )
    ]


def weight_decay() -> list[Chart]:
    """A weight whose gradient has a size and no direction, under three forms of weight decay."""
    steps, lr, decay = 300, 0.01, 0.3
    linear = schedules.linear(horizon=steps)
    looks: Mapping[str, tuple[float, str]] = {
        "decoupled": (decay, BLUE),
        "independent": (decay * lr, ORANGE),
        "l2": (decay, GREEN),
    }
    lines = []
    for kind in KINDS:
        value, colour = looks[kind]
        sizes = (10.0, 0.1) if kind == "l2" else (1.0,)
        for scale in sizes:
            weights = shrinkage(kind, lr=lr, weight_decay=value, gradient_scale=scale, num_steps=steps, schedule=linear)
            label = f"{kind}, weight_decay = {value:g}" + (f", gradient ±{scale:g}" if kind == "l2" else "")
            dash = kind == "independent" or scale < 1
            lines.append(Line(name=label, x=list(range(steps + 1)), y=weights.tolist(), dash=dash, colour=colour))
    return [
        Chart(
            title="Adam with weight decay: peak learning rate 0.01, linear schedule",
            x_label="step",
            y_label="weight",
            lines=lines,
        )
    ]


def clipping() -> list[Chart]:
    """Two matrices: one's gradient grows, the other's has the norm 0.5. What does clipping leave of each?"""
    sizes = [10 ** (i / 50 - 1) for i in range(101)]
    colours: Mapping[ClipKind, str] = {"norm": BLUE, "component": ORANGE, "value": GREEN}
    charts = []
    for index, name in ((0, "The gradient that grows"), (1, "The gradient whose norm is 0.5 throughout")):
        lines = [
            Line(
                name=f'clip_by = "{by}", clip = {THRESHOLDS[by]:g}',
                x=sizes,
                y=[_clipped(size, by)[index] for size in sizes],
                colour=colour,
                dash=by == "value",
            )
            for by, colour in colours.items()
        ]
        charts.append(
            Chart(
                title=name,
                x_label="norm of the growing gradient",
                y_label="norm after clipping",
                lines=lines,
                log_x=True,
            )
        )
    return charts


def _clipped(size: float, by: ClipKind) -> tuple[float, float]:
    # Few elements carry most of the growing gradient, as in practice; those of the other are all alike.
    shares = 1 / torch.arange(1, 101)
    growing, steady = torch.nn.Parameter(torch.zeros(100)), torch.nn.Parameter(torch.zeros(100))
    growing.grad, steady.grad = size * shares / shares.norm(), torch.full((100,), 0.05)
    Clipper({"growing": growing, "steady": steady}, by=by, threshold=THRESHOLDS[by]).clip()
    return float(growing.grad.norm()), float(steady.grad.norm())


def river_valley() -> list[Chart]:
    """Expected loss in a river valley under four schedules, and a path of SGD seen from above."""
    valley, peak, steps = Valley(slope=0.03, curvature=4.0, noise=1.0), 0.2, HORIZON
    named = {
        "constant": schedules.for_run("constant", horizon=steps),
        "wsd": schedules.for_run("wsd", horizon=steps),
        "cyclic_wsd, 4 cycles": schedules.for_run("cyclic_wsd", horizon=steps, num_cycles=4),
        "cosine": schedules.for_run("cosine", horizon=steps),
        "constant, a tenth of the rate": lambda _: 0.1,
    }
    x = list(range(1, steps + 1))
    losses = [
        Line(
            name=name,
            x=x,
            y=expected_loss(valley, [peak * schedule(step) for step in range(steps)]).tolist(),
            dash=name.startswith("constant,"),
        )
        for name, schedule in named.items()
    ]
    return [
        Chart(title="Expected loss in a river valley", x_label="step", y_label="loss", lines=losses),
        _paths(valley, peak, num_steps=300, decay=60),
    ]


def _paths(valley: Valley, peak: float, *, num_steps: int, decay: int) -> Chart:
    lines = []
    for name, colour in (("constant", BLUE), ("wsd", ORANGE)):
        schedule = schedules.for_run(name, horizon=num_steps, decay=decay)
        along, across = simulate(valley, [peak * schedule(step) for step in range(num_steps)], seed=0)
        # Until the decay begins the two are one.
        begin = num_steps - decay if name == "wsd" else 0
        lines.append(Line(name=name, x=along[begin:].tolist(), y=across[0, begin:].tolist(), colour=colour))
    return Chart(
        title="The way of one run from above, while the river flows to the right",
        x_label="way along the river",
        y_label="place on the hillsides",
        lines=lines,
        marks=[Mark(position=lines[1].x[0], text="the decay begins")],
    )


FIGURES: Mapping[str, Callable[[], list[Chart]]] = {
    "schedules": all_schedules,
    "decay-forms": decay_forms,
    "published": published,
    "batch-ramp": batch_ramp,
    "weight-decay": weight_decay,
    "clipping": clipping,
    "river-valley": river_valley,
}
"""Name of the file -> what is drawn."""
