"""What a run's curves say: findings, each a position and a plain sentence with what to try.

The curves may be short, out of order, or broken by values that are not finite. Pure noise gives no finding: how often
it does by mistake is held down by the tests, over hundreds of simulated curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.scaling import gradient_norms, trends
from thalweg.scaling.overfitting import compare
from thalweg.scaling.smoothing import Curve
from thalweg.scaling.spikes import Spike, find_jumps, find_spikes

Severity = Literal["note", "warning", "problem"]

MAX_SPIKES = 5
"""More than these are told in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the curves show."""

    kind: str
    """`divergence`, `not-finite`, `rise`, `spike`, `spikes`, `plateau`, `not-learning`, `overfitting`, `decay`,
    `gradient-growth`, `always-clipped`, `gradient-vanishing`."""
    position: float
    """Where it begins, in the run's unit."""
    severity: Severity
    text: str
    """One or two sentences: the numbers, and what they suggest."""


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """One run's curves over its lineage; None for what was not recorded."""

    training: Curve | None = None
    """The training loss."""
    validation: Curve | None = None
    """A validation loss, to minimise, of the same kind as the training loss."""
    gradient_norm: Curve | None = None
    """Before clipping."""
    rate: Curve | None = None
    """The learning rate."""
    clip: float | None = None
    """The largest global norm that a step keeps; None where there is no such limit."""
    forks: Sequence[float] = ()
    """Positions at which the lineage forked."""
    unit: str = "steps"


def find_all(curves: RunCurves) -> list[Finding]:
    """All findings, by position.

    >>> calm = Curve.of(range(100), [3.0 / (1 + p / 10) for p in range(100)])
    >>> find_all(RunCurves(training=calm))
    []
    """
    found = [*_of_training(curves), *_of_validation(curves), *_of_gradients(curves), *_of_decay(curves)]
    return sorted(found, key=lambda finding: finding.position)


def _of_training(curves: RunCurves) -> Iterator[Finding]:
    loss = curves.training
    if loss is None:
        return
    yield from _not_finite(curves, loss, "training loss")
    rise = trends.find_rise(loss)
    restarted = rise is not None and _restarted(curves, rise)
    if rise is not None and not restarted:
        yield _rise(curves, rise)
    risen_from = rise.start if rise is not None else np.inf
    yield from _spikes(curves, [spike for spike in find_spikes(loss) if spike.start < risen_from or spike.recovered])
    trained = curves.rate is not None and curves.rate.values.max(initial=0.0) > 0
    if trained and rise is None and trends.never_fell(loss):
        yield Finding(
            kind="not-learning",
            position=float(loss.positions[0]),
            severity="warning",
            text=f"The training loss is {_number(float(loss.values[-1]))} at the end, where it began: the run has"
            " learned nothing. Try a higher learning rate, and check labels, data and which parameters are trained.",
        )
    plateau = trends.find_plateau(loss, rate=curves.rate) if rise is None else None
    if plateau is not None:
        held = "though the learning rate is held" if curves.rate is not None else "if the learning rate was held"
        yield Finding(
            kind="plateau",
            position=plateau.start,
            severity="note",
            text=f"From {_at(plateau.start, curves)} to {_at(plateau.end, curves)} the training loss stays at"
            f" {_number(plateau.level)}, {held}: more of the same brings little. Decay the rate now, or stop.",
        )


def _not_finite(curves: RunCurves, curve: Curve, name: str) -> Iterator[Finding]:
    if not len(curve.broken):
        return
    first, last = float(curve.broken[0]), float(curve.positions[-1]) if len(curve) else -np.inf
    many = f"{len(curve.broken)} values" if len(curve.broken) > 1 else "a value"
    goes_on = last > float(curve.broken[-1])
    after = " and finite again after it" if goes_on else ": the run has diverged"
    yield Finding(
        kind="not-finite" if goes_on else "divergence",
        position=first,
        severity="warning" if goes_on else "problem",
        text=f"The {name} is not a finite number at {_at(first, curves)} ({many} in all){after}."
        " Try a lower learning rate, a longer warm-up or a smaller clip threshold"
        f"{', or fork from a checkpoint before it' if not goes_on else '; look at the data of that step'}.",
    )


def _restarted(curves: RunCurves, rise: trends.Rise) -> bool:
    """The rate has gone up again since the loss was best, after its first peak: a rise of the loss is expected."""
    rate = curves.rate
    if rate is None or not len(rate):
        return False
    first_peak = float(rate.positions[int(np.argmax(rate.values >= trends.HELD * rate.values.max()))])
    went_up = float(rate.values[-1]) > 1.2 * rate.at(rise.start)
    return went_up and rise.start > first_peak and rise.end - rise.best < 0.5 * (rise.first - rise.best)


def _rise(curves: RunCurves, rise: trends.Rise) -> Finding:
    lost = rise.end - rise.best >= 0.5 * (rise.first - rise.best)
    what = "has diverged" if lost else "rises"
    return Finding(
        kind="divergence" if lost else "rise",
        position=rise.start,
        severity="problem" if lost else "warning",
        text=f"The training loss {what} from {_at(rise.start, curves)} on: it was {_number(rise.best)} at best and is"
        f" {_number(rise.end)} at the end, and does not come back. Fork from a checkpoint before that with a lower"
        " learning rate, or try a longer warm-up or a smaller clip threshold.",
    )


def _spikes(curves: RunCurves, spikes: list[Spike]) -> Iterator[Finding]:
    jumps = find_jumps(curves.gradient_norm) if curves.gradient_norm is not None else []
    if len(spikes) > MAX_SPIKES:
        highest = max(spikes, key=lambda spike: spike.height)
        yield Finding(
            kind="spikes",
            position=spikes[0].start,
            severity="warning",
            text=f"The training loss spikes {len(spikes)} times between {_at(spikes[0].start, curves)} and"
            f" {_at(spikes[-1].start, curves)}, at most from {_number(highest.before)} to {_number(highest.peak)} at"
            f" {_at(highest.position, curves)}. Training is near its limit: try a lower learning rate,"
            " a smaller clip threshold or a smaller beta2.",
        )
        return
    for spike in spikes:
        yield _spike(curves, spike, jumps)


def _spike(curves: RunCurves, spike: Spike, jumps: list[Spike]) -> Finding:
    back = (
        f"is back by {_at(spike.recovered, curves)}"
        if spike.recovered is not None
        else "is not back by the end of the curve"
    )
    text = (
        f"The training loss spikes from {_number(spike.before)} to {_number(spike.peak)} at"
        f" {_at(spike.position, curves)} and {back}."
    )
    fork = max((fork for fork in curves.forks if fork < spike.start), default=None)
    loss = curves.training
    assert loss is not None
    reach = 10 * float(np.median(np.diff(loss.positions)))
    jump = next((jump for jump in jumps if spike.start - reach <= jump.start <= spike.position), None)
    raised = curves.rate is not None and curves.rate.at(spike.position) > 1.2 * curves.rate.at(spike.start - reach)
    if raised:
        text += " The learning rate goes up again there, so a jump is to be expected."
    elif fork is not None and spike.start - fork <= reach:
        text += f" It follows the fork at {_at(fork, curves)}: what was changed there is a likely cause."
    elif jump is not None:
        when = "before it, at" if jump.start < spike.start else "with it, at"
        text += (
            f" The gradient norm jumps {jump.peak / jump.before:.3g} times over {when} {_at(jump.start, curves)}:"
            " a smaller clip threshold may prevent it."
        )
    elif spike.recovered is None:
        text += " A lower learning rate, or a fork from a checkpoint before it, may help."
    else:
        text += " One that comes back does little harm; if more follow, try a lower learning rate."
    severity: Severity = "note" if spike.recovered is not None or raised else "warning"
    return Finding(kind="spike", position=spike.start, severity=severity, text=text)


def _of_validation(curves: RunCurves) -> Iterator[Finding]:
    if curves.validation is None:
        return
    yield from _not_finite(curves, curves.validation, "validation loss")
    if curves.training is None:
        return
    gap = compare(curves.training, curves.validation)
    if gap is None or gap.onset is None:
        return
    yield Finding(
        kind="overfitting",
        position=gap.onset,
        severity="warning",
        text=f"The run over-fits from {_at(gap.onset, curves)} on: the validation loss is best at"
        f" {_at(gap.best_position, curves)}, {_number(gap.best)}, and {_number(gap.rise)} higher at the end, while the"
        f" training loss falls by another {_number(gap.training_fall)}. Stop near the best position, train for fewer"
        " epochs, or try more data, dropout or weight decay.",
    )


def _of_gradients(curves: RunCurves) -> Iterator[Finding]:
    norms = curves.gradient_norm
    if norms is None:
        return
    yield from _not_finite(curves, norms, "gradient norm")
    growth = gradient_norms.find_growth(norms)
    if growth is not None:
        yield Finding(
            kind="gradient-growth",
            position=growth.start,
            severity="warning",
            text=f"The gradient norm grows {growth.factor:.3g} times over from {_at(growth.start, curves)} to"
            f" {_at(growth.end, curves)}, which often comes before instability. Try a lower learning rate or more"
            " weight decay; a clip threshold limits what a bad step can do.",
        )
    clipping = gradient_norms.find_clipping(norms, curves.clip) if curves.clip else None
    if clipping is not None:
        yield Finding(
            kind="always-clipped",
            position=clipping.start,
            severity="note",
            text=f"{clipping.share:.0%} of the steps from {_at(clipping.start, curves)} on are clipped: the gradient"
            f" norm is {_number(clipping.median_norm)} in the middle and the threshold {_number(curves.clip or 0.0)}."
            " Clipping then sets the size of every step rather than guarding against rare ones: raise the threshold"
            " above the usual norm.",
        )
    vanishing = gradient_norms.find_vanishing(norms)
    if vanishing is not None:
        yield Finding(
            kind="gradient-vanishing",
            position=vanishing.start,
            severity="warning",
            text=f"The gradient norm falls from {_number(vanishing.first)} to {_number(vanishing.last)}: from"
            f" {_at(vanishing.start, curves)} on hardly anything is learned. Either the training data are fitted, or"
            " activations saturate: look at the training loss, and try a lower learning rate.",
        )


def _of_decay(curves: RunCurves) -> Iterator[Finding]:
    if curves.training is None or curves.rate is None:
        return
    decay = trends.find_decay(curves.training, curves.rate)
    if decay is None:
        return
    change = decay.loss_before - decay.loss_after
    worked = (
        "took the swing off the hillsides, as it should" if change > 0 else "should lower it: is the data the same?"
    )
    yield Finding(
        kind="decay",
        position=decay.start,
        severity="note" if change > 0 else "warning",
        text=f"In the decay of the learning rate from {_at(decay.start, curves)} on, to {decay.rate_after:.0%} of its"
        f" peak, the training loss goes from {_number(decay.loss_before)} to {_number(decay.loss_after)}:"
        f" the decay {worked}.",
    )


def _at(position: float, curves: RunCurves) -> str:
    return f"{position:,.0f} {curves.unit}"


def _number(value: float) -> str:
    return f"{value:.4g}"
