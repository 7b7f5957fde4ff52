"""What clipping costs, beside torch's own, on the parameters of a 135M Llama.

    make bench NAME=clip

Writes result.json beside this file. Numbers are medians over repeats; what is compared takes turns within a repeat, in
an order that is turned round each time. The gradients are put back before each call, outside the clock.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from thalweg.optim.clipping import Clipper

sys.path.append(str(Path(__file__).parents[1]))
import result

ACTIVE, IDLE = 0.01, 1e9
"""Thresholds: one that every component, and the largest elements of each tensor, are beyond; and one that none is."""
PATTERNS = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "feed_forward": "mlp",
    "norm": "norm",
    "embedding": "embed",
}

Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1, help="of torch; a worker has one")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    named = smollm_parameters()
    claims = by_norm(named, ACTIVE, options.repeats) + by_norm(named, IDLE, options.repeats)
    claims += by_value(named, ACTIVE, options.repeats) + by_value(named, IDLE, options.repeats)
    result.write(options.out, claims, ["torch"])


def smollm_parameters() -> dict[str, torch.nn.Parameter]:
    """The trainable tensors of SmolLM2-135M (Llama, 30 layers, width 576, 9 heads of 64, 3 of them for keys and values,
    feed-forward 1,536, 49,152 words, tied output), with normally distributed gradients of size 0.01."""
    width, kv_width, inner = 576, 192, 1536
    layer = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (kv_width, width),
        "self_attn.v_proj": (kv_width, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (49_152, width), "model.norm": (width,)}
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(30) for name, shape in layer.items()}
    generator = torch.Generator().manual_seed(0)
    named = {}
    for name, shape in shapes.items():
        named[f"{name}.weight"] = parameter = torch.nn.Parameter(torch.empty(shape))
        parameter.grad = torch.randn(shape, generator=generator).mul_(0.01)
    assert sum(parameter.numel() for parameter in named.values()) == 134_515_008
    return named


def by_norm(named: Mapping[str, torch.nn.Parameter], threshold: float, repeats: int) -> list[dict[str, Any]]:
    """The norm of all, and of each component, against torch's `clip_grad_norm_`."""
    calls: dict[str, Call] = {
        "torch_ms": lambda: torch.nn.utils.clip_grad_norm_(named.values(), threshold, foreach=True),
        "norm_ms": Clipper(named, threshold=threshold).clip,
        "component_ms": Clipper(named, by="component", threshold=threshold).clip,
        "groups_ms": Clipper(named, by="component", threshold=threshold, components=PATTERNS).clip,
    }
    times, clipped = measure(named, calls, repeats)
    same = clipped["norm_ms"] == clipped["torch_ms"]
    when = describe(threshold)
    return [
        ratio(
            f"time to clip by the global norm, {when}, equal bit for bit", times, "norm_ms", at_most=1.05, holds=same
        ),
        ratio(f"time to clip each of {len(named)} tensors, {when}", times, "component_ms", at_most=1.3),
        ratio(f"time to clip {len(PATTERNS)} groups of tensors, {when}", times, "groups_ms", at_most=1.3),
    ]


def by_value(named: Mapping[str, torch.nn.Parameter], threshold: float, repeats: int) -> list[dict[str, Any]]:
    """Ours also measures the norm, and refuses what is not finite; torch's `clip_grad_value_` does neither."""
    calls: dict[str, Call] = {
        "torch_ms": lambda: torch.nn.utils.clip_grad_value_(named.values(), threshold, foreach=True),
        "value_ms": Clipper(named, by="value", threshold=threshold).clip,
    }
    times, clipped = measure(named, calls, repeats)
    same = clipped["value_ms"] == clipped["torch_ms"]
    text = f"time to clip by value, {describe(threshold)}, equal bit for bit"
    return [ratio(text, times, "value_ms", at_most=1.05, holds=same)]


def describe(threshold: float) -> str:
    return "all beyond the threshold" if threshold == ACTIVE else "none beyond the threshold"


def ratio(text: str, times: Mapping[str, float], ours: str, *, at_most: float, holds: bool = True) -> dict[str, Any]:
    measured = {name: round(times[name], 3) for name in (ours, "torch_ms")}
    return result.claim(
        f"{text}, against torch's foreach", measured, times[ours] / times["torch_ms"], at_most=at_most, holds=holds
    )


def measure(
    named: Mapping[str, torch.nn.Parameter], calls: Mapping[str, Call], repeats: int
) -> tuple[dict[str, float], dict[str, str]]:
    """The median milliseconds of each call, and a digest of the gradients that its first one left."""
    gradients = [parameter.grad for parameter in named.values() if parameter.grad is not None]
    originals = [gradient.clone() for gradient in gradients]
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    left: dict[str, str] = {}
    for repeat in range(repeats + 1):  # the first is to warm up
        names = list(calls) if repeat % 2 else list(reversed(calls))
        for name in names:
            torch._foreach_copy_(gradients, originals)
            start = time.perf_counter()
            calls[name]()
            taken = (time.perf_counter() - start) * 1e3
            if repeat:
                milliseconds[name].append(taken)
            else:
                left[name] = digest(gradients)
    torch._foreach_copy_(gradients, originals)
    print({name: round(statistics.median(taken), 2) for name, taken in milliseconds.items()}, flush=True)
    return {name: statistics.median(taken) for name, taken in milliseconds.items()}, left


def digest(tensors: list[torch.Tensor]) -> str:
    """Of every bit of them."""
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.numpy())
    return content.hexdigest()


if __name__ == "__main__":
    main()
