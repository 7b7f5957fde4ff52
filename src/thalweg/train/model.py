"""Models: where they are, loading them, their adapters.

Weights are read from safetensors or GGUF only, never from a pickle, and no code that comes with a model is run.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from thalweg.errors import ConfigError, nearest
from thalweg.train.data import Task
from thalweg.train.sources import package_path

_CLASSES: dict[Task, Any] = {
    "classification": transformers.AutoModelForSequenceClassification,
    "causal": transformers.AutoModelForCausalLM,
}


def locate(model: str) -> str:
    """The local folder, or the hub id, that transformers loads; a GGUF file is converted once, into the user's cache.

    Raises:
        ConfigError: there is no such folder or file, or it has no weights that can be read safely.
    """
    path = package_path("model", model) if model.startswith("package:") else Path(model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            beside = [p.name for p in path.parent.glob("*.gguf")]
            raise ConfigError(f"model = {model!r}: there is no such file. {nearest(path.name, beside)}")
        return str(_converted(model, path))
    if path.is_dir():
        _check_folder(model, path)
        return str(path)
    looks_like_path = path.is_file() or model.startswith((".", "/", "~")) or model.count("/") > 1
    if looks_like_path:
        raise ConfigError(
            f"model = {model!r}: there is no such folder; give a folder with config.json and model.safetensors,"
            " a .gguf file, package:NAME/path, or a hub id such as 'HuggingFaceTB/SmolLM2-135M'"
        )
    return model


def _check_folder(model: str, path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ConfigError(f"model = {model!r}: the folder has no config.json, so it is not a transformers model")
    if any(path.glob("*.safetensors")):
        return
    if any(path.glob("pytorch_model*.bin")):
        raise ConfigError(
            f"model = {model!r}: the folder has its weights as pytorch_model.bin only, a pickle, which could run any"
            " code; save them as model.safetensors with save_pretrained in a place that you trust"
        )
    raise ConfigError(f"model = {model!r}: the folder has no weights; it needs model.safetensors")


def _converted(model: str, path: Path) -> Path:
    """A folder with the GGUF file's weights as safetensors (13-16 s for 135M parameters, read in 0.2 s afterwards)."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{transformers.__version__}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "thalweg" / "gguf"
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache))
    try:
        with _reading(model):
            where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
            _dense(where).save_pretrained(temporary)
            transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process has done the same meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _dense(where: dict[str, str]) -> Any:
    """A GGUF file's model with plain float32 weights, in a form that can be saved."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # since 5.24 weights would stay in their blocks, which cannot be trained
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(**where, **options)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # What came from a GGUF file refuses to be saved, dense or not: its weights move to a model that did not.
    with torch.device("meta"):
        plain: Any = _CLASSES["causal"].from_config(config)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    return plain


@contextlib.contextmanager
def _reading(model: str) -> Iterator[None]:
    """Without progress bars; what transformers raises where it cannot read a model becomes a ConfigError."""
    progress: Any = transformers.utils.logging
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # whatever a damaged file makes of it; `tokenizers` has no type of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"model = {model!r} cannot be loaded: {reason}") from error
    finally:
        if shown:
            progress.enable_progress_bar()


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer, with a padding token.

    Raises:
        ConfigError: it has none.
    """
    with _reading(model):
        tokenizer = transformers.AutoTokenizer.from_pretrained(locate(model))
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"model = {model!r}: its tokenizer has neither a padding nor an end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def max_positions(model: str, tokenizer: Any) -> int:
    """The longest row that the model and its tokenizer take, in tokens."""
    with _reading(model):
        config = transformers.AutoConfig.from_pretrained(locate(model)).get_text_config()
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    # Tokenizers without a limit say 10^30.
    known = [int(limit) for limit in limits if limit and limit < 10**9]
    return min(known, default=10**9)


def skeleton(model: str, task: Task, num_classes: int) -> Any:
    """The model without memory for its weights, to count and to check by."""
    with _reading(model), torch.device("meta"):
        config = _config(model, task, num_classes)
        return _CLASSES[task].from_config(config)


def load(model: str, task: Task, num_classes: int, pad_id: int) -> tuple[Any, list[str]]:
    """Load a model in float32.

    Returns:
        The model, and the names of its modules that the file has no weights for: a new classification head, which
        `reset_modules` sets for each run.
    Raises:
        ConfigError: it cannot be loaded.
    """
    config = _config(model, task, num_classes)
    config.get_text_config().pad_token_id = pad_id
    with _reading(model), _held_report() as report:
        loaded, info = _CLASSES[task].from_pretrained(
            locate(model),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        body = f"{loaded.base_model_prefix}."
        is_new_head = all(not key.startswith(body) for key in info["missing_keys"])
        if not is_new_head or (task == "causal" and info["missing_keys"]):
            report()
    new = sorted({key.rpartition(".")[0] for key in info["missing_keys"]})
    return loaded, new


def _config(model: str, task: Task, num_classes: int) -> Any:
    with _reading(model):
        labels = {"num_labels": num_classes} if task == "classification" else {}
        config = transformers.AutoConfig.from_pretrained(locate(model), trust_remote_code=False, **labels)
    if task == "classification":
        config.problem_type = "single_label_classification"
    elif hasattr(type(config), "is_decoder") and not config.is_decoder:
        raise ConfigError(
            f"model = {model!r}: a {config.model_type} model sees the words that it shall predict; task = 'causal'"
            " needs a decoder such as Llama, or set task = 'classification'"
        )
    config.use_cache = False
    return config


@contextlib.contextmanager
def _held_report() -> Iterator[Callable[[], None]]:
    """Hold back transformers' load report, since a new head is what was asked for. Call what this gives to show it."""
    logger = logging.getLogger("transformers.modeling_utils")
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        is_report = "LOAD REPORT" in record.getMessage()
        if is_report:
            held.append(record)
        return not is_report

    def show() -> None:
        logger.removeFilter(hold)
        for record in held:
            logger.handle(record)

    logger.addFilter(hold)
    try:
        yield show
    finally:
        logger.removeFilter(hold)


def copy_for_run(base: Any, new_modules: list[str], *, share_weights: bool) -> Any:
    """A model that a run may change, with its new modules set by torch's random generator.

    Args:
        share_weights: the copy has the very weights of the base, to be left untrained; new modules are its own.
    """
    own = [parameter for name in new_modules for parameter in base.get_submodule(name).parameters()]
    kept = {id(parameter) for parameter in own}
    shared = [p for p in (*base.parameters(), *base.buffers()) if id(p) not in kept] if share_weights else []
    model = copy.deepcopy(base, {id(tensor): tensor for tensor in shared})
    for name in new_modules:
        module = model.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            # transformers marks what it has set, and then leaves it alone.
            parameter._is_hf_initialized = False
        model._init_weights(module)
    return model


def set_dropout(model: Any, probability: float) -> None:
    """Give all dropout in the model one probability.

    Raises:
        ConfigError: the model has none.
    """
    found = False
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
            found = True
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, probability)
                found = True
    if not found:
        raise ConfigError(f"dropout = {probability}: {type(model).__name__} has no dropout; leave it out")


def attach_lora(model: Any, task: Task, *, r: int, alpha: float, dropout: float) -> Any:
    """Freeze the model and put a LoRA adapter on all its linear layers; a classification head is trained whole.

    Source: Hu et al. 2021, arXiv:2106.09685; PEFT's `all-linear`.
    """
    kind = peft.TaskType.SEQ_CLS if task == "classification" else peft.TaskType.CAUSAL_LM
    options: dict[str, Any] = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": "all-linear"}
    with warnings.catch_warnings():
        # PEFT asks transformers in a way that transformers calls deprecated: nothing that a user could mend.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return peft.get_peft_model(model, peft.LoraConfig(task_type=kind, **options))


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
