"""The coordinate check: it passes the right muP and finds what is wrong in a broken one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from thalweg.errors import ConfigError
from thalweg.optim.coordinate_check import (
    MODULES,
    CoordinateCheck,
    Coordinates,
    Finding,
    Make,
    coordinate_check,
    judge,
    measure,
    slope,
)

SMALL = CoordinateCheck(widths=(32, 64, 256), layers=1, steps=3, seeds=2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def coordinates(**changes: Any) -> Coordinates:
    """Flat at widths 16, 64 and 128, but for a module's values after the last step."""
    size = {module: np.ones((3, 3)) for module in MODULES}
    change = {module: np.ones((2, 3)) for module in MODULES if module != "scores"}
    for name, values in changes.items():
        table, _, module = name.partition("__")
        {"size": size, "change": change}[table][module][-1] = values
    return Coordinates(widths=(16, 64, 128), size=size, change=change)


def found(findings: list[Finding] | Any, module: str) -> Finding:
    return next(finding for finding in findings if finding.module == module)


def broken(how: Callable[[CoordinateCheck, int, Any, list[dict[str, Any]]], None]) -> Make:
    def make(width: int) -> tuple[Any, list[dict[str, Any]]]:
        model, groups = SMALL.mup(width)
        how(SMALL, width, model, groups)
        return model, groups

    return make


def test_slopes_are_powers() -> None:
    widths = (16, 64, 128)
    assert slope(widths, [w**0.5 for w in widths]) == pytest.approx(0.5)
    assert slope(widths, [3.0 / w for w in widths]) == pytest.approx(-1)
    assert slope(widths, [0.0, 1.0, 2.0]) is None


def test_a_module_is_judged_by_what_is_farthest_from_flat() -> None:
    assert all(finding.passed for finding in judge(coordinates()))
    findings = judge(coordinates(size__q_proj=[4, 8, 8 * 2**0.5], change__lm_head=[16, 64, 128]))
    failed = {f.module: (f.quantity, f.step, pytest.approx(f.slope)) for f in findings if not f.passed}
    assert failed == {"q_proj": ("size", 2, 0.5), "lm_head": ("change", 2, 1.0)}
    assert "logits" in found(findings, "lm_head").sentence
    falling = judge(coordinates(change__embed_tokens=[1, 1 / 4, 1 / 8]))
    assert "falls as width^-1.00; look at the initial variance or" in found(falling, "embed_tokens").sentence


def test_the_start_is_named_first_and_noise_of_the_readout_may_shrink() -> None:
    given = coordinates(size__v_proj=[16, 64, 128])
    given.size["v_proj"][0] = [4, 8, 8 * 2**0.5]
    given.size["lm_head"][0] = [1 / 4, 1 / 8, 1 / 12]
    failed = [finding for finding in judge(given) if not finding.passed]
    assert [(f.module, f.step) for f in failed] == [("v_proj", 0)]
    assert "initial variance" in failed[0].sentence


def test_a_module_that_learns_nothing_fails() -> None:
    given = coordinates(change__o_proj=[0, 0, 0], size__o_proj=[0, 0, 0])
    given.size["o_proj"][0] = 0
    finding = found(judge(given), "o_proj")
    assert not finding.passed
    assert "nothing was learned" in finding.sentence


def test_measuring_is_the_same_each_time_and_leaves_the_generator_alone() -> None:
    check = CoordinateCheck(widths=(16, 32, 128), layers=1, steps=1, seeds=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = measure(check.mup, check), measure(check.mup, check)
    assert torch.equal(torch.get_rng_state(), before)
    for module in MODULES:
        np.testing.assert_array_equal(first.size[module], second.size[module])
    assert first.size["residual"].shape == (2, 3)
    assert first.change["residual"].shape == (1, 3)


def test_what_is_recorded_is_what_the_modules_give() -> None:
    """Before the first step: an embedding's mean |x| of N(0, 0.02^2) is 0.02 sqrt(2/pi), queries and logits begin at 0,
    a value's is that of a sum over a normalised input with the base width's variance."""
    measured = measure(SMALL.mup, SMALL)
    np.testing.assert_allclose(measured.size["embed_tokens"][0], 0.02 * (2 / np.pi) ** 0.5, rtol=0.05)
    assert not measured.size["q_proj"][0].any()
    assert not measured.size["lm_head"][0].any()
    np.testing.assert_allclose(measured.size["v_proj"][0], 0.02 * (32 * 2 / np.pi) ** 0.5, rtol=0.1)
    # The first step has no gradient behind a read-out of 0, so that Adam's second has moments of one gradient:
    # 0.1 g / (1 - 0.9^2) over the root of 0.05 g^2 / (1 - 0.95^2).
    moved = SMALL.lr * (0.1 / 0.19) / (0.05 / 0.0975) ** 0.5
    assert not measured.change["embed_tokens"][0].any()
    np.testing.assert_allclose(measured.change["embed_tokens"][1], moved, rtol=1e-3)


def test_mup_is_flat_and_the_standard_parametrisation_grows() -> None:
    progress: list[tuple[int, int]] = []
    verdict = coordinate_check(SMALL, on_progress=lambda done, total: progress.append((done, total)))
    assert (verdict.passed, verdict.standard_grows) == (True, True)
    assert [finding.module for finding in verdict.findings] == list(MODULES)
    assert progress == [(i, 12) for i in range(1, 13)]
    # By hand: a sum over n inputs of constant variance grows as sqrt(n).
    at_start = verdict.standard.slopes()["size"]
    for module in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head"):
        assert at_start[module][0] == pytest.approx(0.5, abs=0.1), module
    after = verdict.standard.slopes()["change"]
    for module in ("q_proj", "v_proj", "up_proj", "residual", "lm_head"):
        power = after[module][-1]
        assert power is not None
        assert power > 0.5, module


def unscaled_rates(check: CoordinateCheck, width: int, model: Any, groups: list[dict[str, Any]]) -> None:
    for group in groups:
        group["lr"] = check.lr


def shrunk_embedding_rate(check: CoordinateCheck, width: int, model: Any, groups: list[dict[str, Any]]) -> None:
    for group in groups:
        if group["name"] == "embedding":
            group["lr"] = check.lr * check.base_width / width


def plain_attention(check: CoordinateCheck, width: int, model: Any, groups: list[dict[str, Any]]) -> None:
    for layer in model.model.layers:
        layer.self_attn.scaling = layer.self_attn.head_dim**-0.5


def plain_logits(check: CoordinateCheck, width: int, model: Any, groups: list[dict[str, Any]]) -> None:
    model.lm_head._forward_pre_hooks.clear()


def plain_initialisation(check: CoordinateCheck, width: int, model: Any, groups: list[dict[str, Any]]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers" in name and parameter.dim() == 2:
                parameter.mul_((width / check.base_width) ** 0.5)


@pytest.mark.parametrize(
    ("how", "module", "power"),
    [
        (unscaled_rates, "up_proj", 1.0),
        (shrunk_embedding_rate, "embed_tokens", -1.0),
        (plain_attention, "scores", 0.5),
        (plain_logits, "lm_head", 1.0),
        (plain_initialisation, "v_proj", 0.5),
    ],
)
def test_a_broken_mup_is_found(how: Any, module: str, power: float) -> None:
    """The expected powers follow from the rule that is left out."""
    findings = judge(measure(broken(how), SMALL))
    finding = found(findings, module)
    assert not finding.passed
    assert finding.slope == pytest.approx(power, abs=0.3)


def test_too_large_a_rate_is_an_error() -> None:
    check = CoordinateCheck(widths=(16, 32, 128), layers=1, steps=3, seeds=1, lr=1e30)
    with pytest.raises(ConfigError, match=r"is not finite with lr = 1e\+30"):
        measure(check.standard, check)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (64, 128)}, "widths = 64,128 must be three or more"),
        ({"widths": (64, 64, 512)}, "different ones"),
        ({"widths": (64, 128, 256)}, "at least 8 times the smallest"),
        ({"widths": ()}, "three or more"),
        ({"widths": (20, 64, 256)}, "width 20 must be a multiple of 8"),
        ({"widths": (0, 64, 256)}, "width 0 must be a multiple of 8"),
        ({"layers": 0}, "layers = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"seeds": -1}, "seeds = -1"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"lr": float("nan")}, "lr = nan"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CoordinateCheck(**changes)
