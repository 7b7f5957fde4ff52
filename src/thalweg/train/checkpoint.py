"""Checkpoints: a trainer's state as safetensors and JSON, whole or not at all.

    folder/state.json                 the nested state, naming tensors and arrays, and the sha256 of the files below
    folder/tensors-HASH.safetensors   torch tensors
    folder/arrays-HASH.safetensors    numpy arrays

Data files are named by their content and `state.json` is renamed into place last. So a folder always holds the old
checkpoint or the new one, never a mixture, and the sha256 of `state.json` vouches for every byte.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from thalweg.errors import CheckpointError, ConfigError
from thalweg.trainer import State

_INDEX = "state.json"
_FORMAT = 1


def write(folder: Path, state: State) -> tuple[str, int]:
    """Write a checkpoint, replacing one that is there already.

    Args:
        folder: where it goes; made if absent, and holding nothing but the checkpoint.
        state: nested mappings, lists and tuples of torch tensors, numpy arrays and scalars, numbers, strings, booleans
            and None. Tensors come back on the CPU; two views of the very same memory come back as one tensor.
    Returns:
        The digest that `read` asks for, and the size in bytes.
    Raises:
        ConfigError: the state holds something else; the message says where.
        OSError: the disk is full or read-only.
    """
    packer = _Packer()
    packed = packer.pack(state, "state")
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    if packer.tensors:
        files["tensors"] = _write_tensors(folder, "tensors", packer.tensors)
    if packer.arrays:
        files["arrays"] = _write_tensors(folder, "arrays", packer.arrays)
    index = json.dumps({"format": _FORMAT, "files": files, "state": packed}, allow_nan=False).encode()
    temporary = folder / f"{_INDEX}.{os.getpid()}.tmp"
    temporary.write_bytes(index)
    _sync(temporary)
    _sync(folder)  # the data files' names reach the disk before the index that names them does
    temporary.replace(folder / _INDEX)
    _sync(folder)
    _sync(folder.parent)
    keep = {_INDEX, *(file["name"] for file in files.values())}
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink(missing_ok=True)
    return hashlib.sha256(index).hexdigest(), len(index) + sum(file["bytes"] for file in files.values())


def read(folder: Path, digest: str) -> dict[str, Any]:
    """Read a checkpoint and check every byte of it.

    Raises:
        CheckpointError: it is missing, truncated, damaged, or not the one that the digest belongs to.
    """
    index = _read_bytes(folder / _INDEX)
    if hashlib.sha256(index).hexdigest() != digest:
        raise CheckpointError(f"checkpoint {folder}: {_INDEX} is damaged, or is not the one that was recorded")
    content = json.loads(index)
    loaded: dict[str, Mapping[str, Any]] = {}
    for kind, file in content["files"].items():
        data = _read_bytes(folder / file["name"])
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise CheckpointError(
                f"checkpoint {folder}: {file['name']} is damaged ({len(data)} of {file['bytes']} bytes)"
            )
        # Torch takes seconds to import: only for a state that has tensors.
        module = importlib.import_module("safetensors.torch") if kind == "tensors" else safetensors.numpy
        loaded[kind] = module.load(data)
    state = _unpack(content["state"], loaded)
    assert isinstance(state, dict)
    return state


def capture_rng() -> dict[str, Any]:
    """The state of every global random generator in use: Python's, numpy's legacy one, torch's on the CPU and on each
    CUDA device. Generators of modules that are not imported have given no number yet, and are left out."""
    state: dict[str, Any] = {"python": random.getstate()}
    if "numpy.random" in sys.modules:
        state["numpy"] = np.random.get_state()
    if torch := sys.modules.get("torch"):
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: State) -> None:
    """Put the generators back to what `capture_rng` saw; those that are not in the state are left alone."""
    random.setstate(_tuples(state["python"]))
    if "numpy" in state:
        np.random.set_state(_tuples(state["numpy"]))
    if "torch" in state:
        torch = importlib.import_module("torch")
        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            devices = state["cuda"][: torch.cuda.device_count()]
            torch.cuda.set_rng_state_all(devices)


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's legacy and (where imported) torch's generators, CUDA's included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


class _Packer:
    """Turns a state into JSON values, and collects the tensors and arrays that these name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self.arrays: dict[str, Any] = {}
        self._views: dict[tuple[object, ...], tuple[str, Any]] = {}
        self._storages: set[int] = set()

    def pack(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int) and not isinstance(value, np.generic):
            return int(value)
        if isinstance(value, float) and not isinstance(value, np.generic):
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, Mapping):
            return self._pack_mapping(value, where)
        if isinstance(value, list | tuple):
            items = [self.pack(item, f"{where}[{i}]") for i, item in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, np.ndarray | np.generic):
            kind = "$array" if isinstance(value, np.ndarray) else "$number"
            return {kind: self._add_array(np.asarray(value), where)}
        if (torch := sys.modules.get("torch")) and isinstance(value, torch.Tensor):
            return {"$tensor": self._add_tensor(value.detach(), where)}
        raise ConfigError(
            f"checkpoint: {where} is a {type(value).__name__}, which cannot be saved. A state holds mappings, lists,"
            " tensors, numpy arrays, numbers, strings, booleans and None"
        )

    def _pack_mapping(self, value: Mapping[Any, Any], where: str) -> Any:
        packed = [(key, self.pack(item, f"{where}[{key!r}]")) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in packed):
            return dict(packed)
        return {"$map": [[self.pack(key, f"{where}, key {key!r}"), item] for key, item in packed]}

    def _add_array(self, array: np.ndarray[Any, Any], where: str) -> str:
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ConfigError(f"checkpoint: {where} is an array of {array.dtype}; save numbers or booleans")
        name = str(len(self.arrays))
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        # `ascontiguousarray` alone would turn a single number into an array of one.
        self.arrays[name] = np.ascontiguousarray(native).reshape(array.shape)
        return name

    def _add_tensor(self, tensor: Any, where: str) -> str:
        if tensor.layout != importlib.import_module("torch").strided or tensor.is_complex() or tensor.is_quantized:
            raise ConfigError(
                f"checkpoint: {where} is a {tensor.layout} tensor of {tensor.dtype}; save dense real ones"
            )
        storage = tensor.untyped_storage()
        view = (storage.data_ptr(), tensor.storage_offset(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and view in self._views:
            return self._views[view][0]
        name = str(len(self.tensors))
        # A view of a larger or an already saved storage is copied: safetensors has no shared storage.
        whole = tensor.is_contiguous() and storage.nbytes() == tensor.numel() * tensor.element_size()
        self.tensors[name] = (
            tensor if whole and storage.data_ptr() not in self._storages else tensor.clone().contiguous()
        )
        self._storages.add(storage.data_ptr())
        self._views[view] = (name, tensor)  # held, so that its address is not given to another tensor meanwhile
        return name


def _unpack(value: Any, loaded: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, loaded) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "") if len(value) == 1 else ""
    match tag:
        case "$float":
            return float(value[tag])
        case "$tuple":
            return tuple(_unpack(item, loaded) for item in value[tag])
        case "$map":
            return {_unpack(key, loaded): _unpack(item, loaded) for key, item in value[tag]}
        case "$tensor":
            return loaded["tensors"][value[tag]]
        case "$array":
            return loaded["arrays"][value[tag]]
        case "$number":
            return loaded["arrays"][value[tag]][()]
    return {key: _unpack(item, loaded) for key, item in value.items()}


def _write_tensors(folder: Path, kind: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    temporary = folder / f"{kind}.{os.getpid()}.tmp"
    module = importlib.import_module("safetensors.torch") if kind == "tensors" else safetensors.numpy
    try:
        module.save_file(tensors, temporary)
    except safetensors.SafetensorError as error:  # how it reports a full disk
        temporary.unlink(missing_ok=True)
        raise OSError(f"checkpoint {folder}: {error}") from error
    with temporary.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    name = f"{kind}-{digest[:16]}.safetensors"
    num_bytes = temporary.stat().st_size
    temporary.replace(folder / name)
    return {"name": name, "sha256": digest, "bytes": num_bytes}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.parent}: {path.name} cannot be read ({error.strerror})") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tuples(value: Any) -> Any:
    """Lists as tuples: `random.setstate` insists, and a state may have been through JSON."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
