"""Parameters and FLOPs of a model.

FLOPs are those of the matrix products: 2 per weight and token forward, 2 for the gradient of the activations and 2 for
that of the weights, which frozen weights do not need. Attention's own products add 4·d per layer, token and token
attended to, forward, and twice that backward. An embedding lookup is no product; a tied output layer is one.
Source: Kaplan et al. 2020, arXiv:2001.08361, table 1, and 12·L·d·s for the attention of Chowdhery et al. 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a model costs."""

    num_parameters: int
    num_trainable: int
    num_frozen_product_weights: int
    """Frozen weights outside embedding lookups."""
    num_trained_product_weights: int
    """Trained weights outside embedding lookups."""
    num_layers: int
    attention_width: int
    """Heads times the width of a head."""

    def train_flops_per_token(self, length: float) -> float:
        """Forward and backward, in rows of `length` tokens."""
        weights = 6 * self.num_trained_product_weights + 4 * self.num_frozen_product_weights
        return weights + 12.0 * self.num_layers * self.attention_width * length

    def evaluate_flops_per_token(self, length: float) -> float:
        """Forward only."""
        weights = 2 * (self.num_trained_product_weights + self.num_frozen_product_weights)
        return weights + 4.0 * self.num_layers * self.attention_width * length


def measure(model: Any) -> Sizes:
    """The sizes of a model, with its adapter if it has one; one without memory (`meta`) will do."""
    everything = {id(parameter): parameter for parameter in model.parameters()}
    lookups = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    others = {id(p) for m in model.modules() if not isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    only_lookups = lookups - others
    products = [parameter for key, parameter in everything.items() if key not in only_lookups]
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Sizes(
        num_parameters=sum(p.numel() for p in everything.values()),
        num_trainable=sum(p.numel() for p in everything.values() if p.requires_grad),
        num_frozen_product_weights=sum(p.numel() for p in products if not p.requires_grad),
        num_trained_product_weights=sum(p.numel() for p in products if p.requires_grad),
        num_layers=config.num_hidden_layers,
        attention_width=heads * head_width,
    )
