"""Is muP right? Train a few steps at several widths, and see whether activations, and how they change, depend on width.

In muP every coordinate of every activation, and what training changes of it, is as large in a wide model as in a narrow
one. In the standard parametrisation they grow by a power of the width, and a learning rate that is right for one width
is wrong for the next.

Source: Yang et al. 2022 (Tensor Programs V), arXiv:2203.03466, and the check in microsoft/mup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers

from thalweg.errors import ConfigError
from thalweg.optim.mup import MuP, apply_mup, mup_groups

Make = Callable[[int], tuple[Any, list[dict[str, Any]]]]
"""width -> a new Llama-like causal model and its parameter groups for Adam."""

THRESHOLD = 0.25
"""The largest slope that is taken for flat. What is wrong in a parametrisation shows as a power of the width of a half
or more, and this is half of the smallest; finite widths make a right one come out within about 0.12."""

MODULES = (
    "embed_tokens",
    "q_proj",
    "k_proj",
    "scores",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "residual",
    "lm_head",
)
"""What is measured: the outputs of a Llama's modules over all layers, in their order; `residual` is the input of the
last norm, `scores` the largest score that a query and a key of their sizes can have, |q| |k| scaling."""

_VOCABULARY = 256
# Few of the vocabulary's tokens occur. The first thing to learn, which those are, is common to all positions, and the
# change that it makes is not hidden by the noise of narrow models.
_NUM_TOKENS = 16
_BATCH, _CONTEXT = 8, 32


@dataclass(frozen=True, kw_only=True)
class CoordinateCheck:
    """What is trained: Llamas of several widths, with as many heads each, whose size grows with the width."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Hidden sizes; the smallest is the base."""
    layers: int = 2
    """Layers of every model."""
    heads: int = 4
    """Heads of every model."""
    lr: float = 0.005
    """Adam's learning rate at the base width. Rather large, so that a few steps change much."""
    steps: int = 4
    """Optimizer steps. After many, models of any width go ways of their own, and slopes are noise."""
    seeds: int = 3
    """Models per width, each with its own initialisation and data; the geometric mean over them is taken."""

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "steps", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"coordinate check: {name} = {getattr(self, name)} must be 1 or more")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError(f"coordinate check: lr = {self.lr} must be a positive number, such as 0.005")
        num_widths, span = len(set(self.widths)), max(self.widths, default=0) / max(1, min(self.widths, default=1))
        if num_widths != len(self.widths) or num_widths < 3 or span < 8:
            # With fewer or closer ones, the noise of a single width can make a slope of a half.
            raise ConfigError(
                f"coordinate check: widths = {_listed(self.widths)} must be three or more different ones, the largest"
                " at least 8 times the smallest, such as 64,128,256,512"
            )
        for width in self.widths:
            # A head's size must be even for rotary embeddings.
            if width < 1 or width % (2 * self.heads):
                raise ConfigError(
                    f"coordinate check: width {width} must be a multiple of {2 * self.heads}, twice the number of heads"
                )

    @property
    def base_width(self) -> int:
        """The width at which muP is the standard parametrisation."""
        return min(self.widths)

    def standard(self, width: int) -> tuple[Any, list[dict[str, Any]]]:
        """A model as transformers initialises it, with one learning rate."""
        model = self._model(width)
        return model, [{"params": list(model.parameters()), "lr": self.lr}]

    def mup(self, width: int) -> tuple[Any, list[dict[str, Any]]]:
        """A model with muP; queries and read-out begin at 0, so that what is seen of them is what was learned."""
        model = self._model(width)
        base = MuP(base_width=self.base_width, base_head_dim=self.base_width // self.heads)
        apply_mup(model, base, zero_readout=True, zero_query=True)
        return model, mup_groups(model, lr=self.lr)

    def _model(self, width: int) -> Any:
        config = transformers.LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=3 * width,
            max_position_embeddings=_CONTEXT,
            tie_word_embeddings=False,
            use_cache=False,
        )
        return transformers.LlamaForCausalLM(config)


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """What was measured of one parametrisation."""

    widths: tuple[int, ...]
    size: Mapping[str, np.ndarray[Any, Any]]
    """Mean absolute activation by module, [steps + 1, widths], before the first step and after each; over seeds the
    geometric mean."""
    change: Mapping[str, np.ndarray[Any, Any]]
    """Mean absolute difference to the activation before the first step, [steps, widths]; none for `scores`."""

    def slopes(self) -> dict[str, dict[str, list[float | None]]]:
        """Quantity ("size", "change") -> module -> per step the power of the width; None where all is still 0."""
        table = {"size": self.size, "change": self.change}
        return {
            quantity: {module: [slope(self.widths, row) for row in rows] for module, rows in measured.items()}
            for quantity, measured in table.items()
        }


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The judgement of one module: the slope that is farthest from flat, of those that are judged."""

    module: str
    quantity: str
    """`size` or `change`."""
    step: int
    """After how many steps."""
    slope: float
    """The power of the width that the quantity follows; 0 is flat."""
    passed: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `coordinate_check` found."""

    check: CoordinateCheck
    standard: Coordinates
    mup: Coordinates
    findings: Sequence[Finding] = field(default_factory=tuple)
    """One per module of the muP model."""
    standard_grows: bool
    """Whether the standard parametrisation was seen to fail; if not, the check could not have seen muP fail either."""

    @property
    def passed(self) -> bool:
        """Whether every module of the muP model is flat."""
        return all(finding.passed for finding in self.findings)


def coordinate_check(
    check: CoordinateCheck, *, make: Make | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Verdict:
    """Measure the standard parametrisation and muP, and judge muP.

    Args:
        make: your own models, in place of this library's muP. They take tokens below 16.
        on_progress: called with the models trained so far and their number.
    Raises:
        ConfigError: activations are not finite.
    """
    num_models = 2 * len(check.widths) * check.seeds
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, num_models)

    standard = measure(check.standard, check, on_model=advance)
    mup = measure(make or check.mup, check, on_model=advance)
    grows = not all(finding.passed for finding in judge(standard))
    return Verdict(check=check, standard=standard, mup=mup, findings=judge(mup), standard_grows=grows)


def measure(make: Make, check: CoordinateCheck, *, on_model: Callable[[], None] | None = None) -> Coordinates:
    """Train the models that `make` gives on one batch each, and record activations on it before and after each step.

    torch's random generator is left as it was.

    Raises:
        ConfigError: activations are not finite.
    """
    size = {module: np.zeros((check.steps + 1, len(check.widths))) for module in MODULES}
    change = {module: np.zeros((check.steps, len(check.widths))) for module in MODULES if module != "scores"}
    with torch.random.fork_rng(devices=[]):
        for column, width in enumerate(check.widths):
            for seed in range(check.seeds):
                torch.manual_seed(seed)
                model, groups = make(width)
                _train(model, groups, seed, size, change, column)
                if on_model is not None:
                    on_model()
    for module, rows in size.items():
        if np.isnan(rows).any() or np.isposinf(rows).any():
            raise ConfigError(f"coordinate check: {module} is not finite with lr = {check.lr}; give a smaller lr")
    means = [{module: np.exp(rows / check.seeds) for module, rows in logs.items()} for logs in (size, change)]
    return Coordinates(widths=check.widths, size=means[0], change=means[1])


def _train(
    model: Any,
    groups: list[dict[str, Any]],
    seed: int,
    size: Mapping[str, np.ndarray[Any, Any]],
    change: Mapping[str, np.ndarray[Any, Any]],
    column: int,
) -> None:
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)
    # The same data at every width.
    tokens = torch.randint(_NUM_TOKENS, (_BATCH, _CONTEXT), generator=torch.Generator().manual_seed(seed))
    first: dict[str, torch.Tensor] = {}
    for step in range(len(size["residual"])):
        found, loss = _activations(model, tokens)
        first = first or found
        for module, activation in found.items():
            size[module][step, column] += _log(activation)
            if step > 0 and module in change:
                change[module][step - 1, column] += _log(activation - first[module])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def _log(activation: torch.Tensor) -> float:
    mean = float(activation.abs().mean())
    return math.log(mean) if mean != 0 else -math.inf


def _activations(model: Any, tokens: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A forward pass: the activations by module, all layers stacked, and the loss."""
    kept: dict[str, list[torch.Tensor]] = {}

    def keep(module: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: kept.setdefault(module, []).append(output.detach())

    hooks = [
        part.register_forward_hook(keep(name.rpartition(".")[2]))
        for name, part in model.named_modules()
        if name.rpartition(".")[2] in MODULES
    ]
    hooks.append(
        model.base_model.norm.register_forward_pre_hook(
            lambda _module, inputs: kept.setdefault("residual", []).append(inputs[0].detach())
        )
    )
    try:
        loss: torch.Tensor = model(input_ids=tokens, labels=tokens).loss
    finally:
        for hook in hooks:
            hook.remove()
    attentions = [part for part in model.modules() if hasattr(part, "q_proj") and hasattr(part, "scaling")]
    kept["scores"] = [
        _largest_scores(attention, query, key)
        for attention, query, key in zip(attentions, kept["q_proj"], kept["k_proj"], strict=True)
    ]
    return {module: torch.stack(kept[module]) for module in MODULES}, loss


def _largest_scores(attention: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """|q| |k| scaling of each token and head. After a few steps real scores are small and say little: queries and keys
    have not found each other yet. Once they have, this is what a score can be."""
    heads = (*query.shape[:-1], -1, attention.head_dim)
    queries, keys = query.view(heads).norm(dim=-1), key.view(heads).norm(dim=-1)
    repeats = queries.shape[-1] // keys.shape[-1]
    scores: torch.Tensor = queries * keys.repeat_interleave(repeats, dim=-1) * attention.scaling
    return scores


def slope(widths: Sequence[int], values: Sequence[float]) -> float | None:
    """The power of the width that the values follow, by least squares on logarithms; None where one is 0.

    >>> round(slope((64, 128, 256), (3.0, 6.0, 12.0)), 6)
    1.0
    """
    if min(values) <= 0:
        return None
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def judge(coordinates: Coordinates) -> list[Finding]:
    """Per module: does its size before the first step or after the last, or its change by the last, depend on width?

    Steps between are not judged: the first ones are often of the second order, with more noise than signal. Logits may
    begin smaller in wide models, where the read-out does not begin at 0: then they are noise that shrinks.

    >>> flat = {module: np.ones((3, 2)) for module in MODULES}
    >>> grown = {**flat, "q_proj": np.array([[1.0, 1.0], [1.0, 1.5], [1.0, 2.0]])}
    >>> [f.sentence for f in judge(Coordinates(widths=(64, 128), size=grown, change=flat)) if not f.passed]
    ['q_proj: its size after step 2 grows as width^1.00; look at the learning rate of the matrices in the blocks']
    """
    return [_finding(coordinates, module) for module in MODULES]


def _finding(coordinates: Coordinates, module: str) -> Finding:
    size = coordinates.size[module]
    judged = [("size", 0, size[0]), ("size", len(size) - 1, size[-1])]
    if module in coordinates.change:
        judged.append(("change", len(size) - 1, coordinates.change[module][-1]))
    slopes = [(slope(coordinates.widths, values), quantity, step) for quantity, step, values in judged]
    known = [
        (power, quantity, step)
        for power, quantity, step in slopes
        if power is not None and not (module == "lm_head" and quantity == "size" and power < 0)
    ]
    if not known:
        sentence = f"{module}: it is 0 throughout; nothing was learned"
        return Finding(module=module, quantity="change", step=len(size) - 1, slope=0.0, passed=False, sentence=sentence)
    # A wrong initialisation spoils what comes after it, so that it is named even where what comes after is worse.
    at_start = [entry for entry in known if entry[2] == 0 and abs(entry[0]) > THRESHOLD]
    power, quantity, step = at_start[0] if at_start else max(known, key=lambda entry: abs(entry[0]))
    passed = abs(power) <= THRESHOLD
    what = f"its {quantity} " + ("before the first step" if step == 0 else f"after step {step}")
    if passed:
        sentence = f"{module}: flat; {what} goes as width^{power:.2f}"
    else:
        verb = "grows" if power > 0 else "falls"
        sentence = f"{module}: {what} {verb} as width^{power:.2f}; look at {_cause(module, step)}"
    return Finding(module=module, quantity=quantity, step=step, slope=power, passed=passed, sentence=sentence)


def _cause(module: str, step: int) -> str:
    if module == "scores":
        return "the scaling of the attention, if q_proj and k_proj are flat"
    if module == "embed_tokens":
        return "the initial variance or the learning rate of the embedding"
    if module == "lm_head":
        return "the multiplier of the logits and the learning rate of the read-out"
    return (
        "the initial variance of the matrices in the blocks"
        if step == 0
        else ("the learning rate of the matrices in the blocks")
    )


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values))
