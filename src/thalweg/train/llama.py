"""Llama-like decoders by their shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from thalweg.optim.mup import MuP

_ROUND_TO = 32


class ModelShape(BaseModel):
    """A decoder with RMSNorm, rotary positions, SwiGLU and no biases, as Llama's."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    layers: int = Field(ge=1)
    """Transformer layers."""
    width: int = Field(ge=2)
    """Of the residual stream."""
    heads: int = Field(ge=1)
    """Attention heads; each is `width / heads` wide, an even number."""
    kv_heads: int | None = Field(None, ge=1)
    """Heads for keys and values, which divide `heads`. None: as many as heads."""
    vocabulary: int | None = Field(None, ge=1)
    """Tokens. None: as many as a given tokenizer knows; a larger number pads it."""
    context: int = Field(ge=1)
    """Tokens of a training sequence, and the most that the model is made for."""
    feed_forward: int | None = Field(None, ge=1)
    """Width of the feed-forward layer. None: 8/3 of the width, rounded up to a multiple of 32."""
    tied: bool = True
    """The output layer is the token embedding."""
    rope_theta: float = Field(10_000.0, gt=1)
    """Base of the rotary positions' wavelengths."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            near = [h for h in range(1, self.width + 1) if self.width % h == 0 and self.width // h % 2 == 0]
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}; {_listed(near)} would")
        if self.width // self.heads % 2:
            raise ValueError(
                f"heads = {self.heads} makes each of width = {self.width} {self.width // self.heads} wide; rotary"
                " positions turn pairs, so a head must be an even number wide"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            near = [h for h in range(1, self.heads + 1) if self.heads % h == 0]
            raise ValueError(f"kv_heads = {self.kv_heads} does not divide heads = {self.heads}; {_listed(near)} would")
        return self

    @property
    def num_kv_heads(self) -> int:
        """Heads for keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def feed_forward_width(self) -> int:
        """Width of the feed-forward layer.

        >>> ModelShape(layers=1, width=64, heads=4, context=8).feed_forward_width  # int(8/3 * 64) = 170
        192
        """
        if self.feed_forward is not None:
            return self.feed_forward
        return -(-(8 * self.width // 3) // _ROUND_TO) * _ROUND_TO

    def num_non_embedding(self) -> int:
        """Parameters without the embedding and the output layer: layers and the last norm.

        >>> ModelShape(layers=32, width=4096, heads=32, kv_heads=8, context=8, feed_forward=14336).num_non_embedding()
        6979588096
        """
        d, head_width = self.width, self.width // self.heads
        attention = 2 * d * d + 2 * d * self.num_kv_heads * head_width
        return self.layers * (attention + 3 * d * self.feed_forward_width + 2 * d) + d

    def num_parameters(self, vocabulary: int) -> int:
        """All parameters.

        >>> llama_3 = ModelShape(layers=32, width=4096, heads=32, kv_heads=8, context=8, feed_forward=14336, tied=False)
        >>> llama_3.num_parameters(128256)
        8030261248
        """
        return self.num_non_embedding() + vocabulary * self.width * (1 if self.tied else 2)

    def config(self, *, vocabulary: int, end_of_text: int | None = None) -> Any:
        """The `transformers.LlamaConfig` of this shape."""
        import transformers

        return transformers.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feed_forward_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.num_kv_heads,
            max_position_embeddings=self.context,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=self.tied,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=end_of_text,
            pad_token_id=None,
        )


class MuPBase(BaseModel):
    """The model on which the learning rate was tuned, or will be: muP transfers it to this one's width and depth."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_width: int = Field(ge=1)
    """Width of the base model."""
    base_head_dim: int | None = Field(None, ge=1)
    """Width of its heads. None: as here, where wider models have more heads."""
    base_layers: int | None = Field(None, ge=1)
    """Its layers, to transfer over depth too. None: depth is left alone."""
    alpha: float = Field(1.0, ge=0.5, le=1.0)
    """How fast residual branches shrink with depth: 1 is CompleteP, 0.5 depth-muP."""
    input_multiplier: float = Field(1.0, gt=0)
    """Of the embeddings."""
    output_multiplier: float = Field(1.0, gt=0)
    """Of the logits."""

    def settings(self, shape: ModelShape) -> MuP:
        """What `thalweg.optim.mup` takes."""
        from thalweg.optim.mup import MuP

        head_dim = self.base_head_dim or shape.width // shape.heads
        return MuP(**{**self.model_dump(), "base_head_dim": head_dim})


def build(config: Any, mup: MuP | None = None) -> Any:
    """A model with random weights, drawn from torch's generator."""
    import transformers

    model = transformers.LlamaForCausalLM(config)
    if mup is not None:
        from thalweg.optim.mup import apply_mup

        apply_mup(model, mup)
    return model


def skeleton(config: Any) -> Any:
    """The model without memory for its weights, to count by."""
    import torch

    with torch.device("meta"):
        return build(config)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:12]))
