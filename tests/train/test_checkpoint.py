"""A checkpoint comes back bit for bit, or not at all."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.errors import CheckpointError, ConfigError
from thalweg.train import checkpoint


def same(a: Any, b: Any) -> bool:
    """Equal in type and in every bit, not-a-number included."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.contiguous().flatten().view(torch.uint8).equal(b.contiguous().flatten().view(torch.uint8))
        )
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)


def round_trip(folder: Path, state: Any) -> dict[str, Any]:
    digest, num_bytes = checkpoint.write(folder, state)
    assert num_bytes == sum(path.stat().st_size for path in folder.iterdir())
    return checkpoint.read(folder, digest)


def test_every_kind_of_value_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {
        "floats": [1.5, -0.0, float("nan"), float("inf"), float("-inf"), 5e-324],
        "others": [None, True, 0, 2**200, "ü\n", (1, (2, [3])), [], {}, ()],
        "keys": {0: "int", "0": "str", True: "bool", None: "none", (1, 2): "tuple", 1.5: "float"},
        "tagged": {"$tensor": "0", "$map": 1},
        "tensors": {
            str(dtype): torch.arange(6).reshape(2, 3).to(dtype)
            for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool)
        },
        "shapes": [torch.tensor(3.0), torch.zeros(0, 3), torch.arange(6).reshape(2, 3).T, torch.arange(8)[::2]],
        "arrays": [np.array(2.5), np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, np.arange(3, dtype=np.uint32)],
        "numbers": [np.float32(1.1), np.int64(-3), np.bool_(True)],
    }
    assert same(round_trip(tmp_path / "c", state), state)


def test_an_optimizer_goes_on_as_if_it_had_not_been_saved(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).pow(2).sum().backward()
        optimizer.step()

    model, optimizer = make()
    step(model, optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = round_trip(tmp_path / "c", state)
    assert set(loaded["optimizer"]["state"]) == {0, 1}
    other_model, other_optimizer = make()
    other_model.load_state_dict(loaded["model"])
    other_optimizer.load_state_dict(loaded["optimizer"])
    step(model, optimizer)
    step(other_model, other_optimizer)
    assert torch.equal(model.weight, other_model.weight)


def test_tied_and_overlapping_tensors(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    state = {"a": whole, "tied": whole, "part": whole[2:4], "shifted": whole[1:], "view": whole.reshape(2, 3)}
    loaded = round_trip(tmp_path / "c", state)
    assert same(loaded, state)
    assert loaded["a"].data_ptr() == loaded["tied"].data_ptr()
    loaded["part"][0] = 100.0
    assert loaded["a"][2] == 2.0


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
arrays = st.lists(st.floats(width=32), max_size=4)
leaves = scalars | arrays.map(lambda v: np.array(v, dtype=np.float32)) | arrays.map(torch.tensor)
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(state=st.dictionaries(st.text(max_size=5), states, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_comes_back(tmp_path: Path, state: dict[str, Any]) -> None:
    assert same(round_trip(tmp_path / "c", state), state)


def test_the_same_state_has_the_same_digest_and_another_a_different_one(tmp_path: Path) -> None:
    def digest(value: float) -> str:
        return checkpoint.write(tmp_path / str(value), {"w": torch.full((3,), value), "n": 1})[0]

    assert digest(1.0) == checkpoint.write(tmp_path / "again", {"w": torch.ones(3), "n": 1})[0]
    assert digest(1.0) != digest(2.0)


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    first, _ = checkpoint.write(tmp_path / "c", {"w": torch.zeros(5), "old": np.zeros(2)})
    second, _ = checkpoint.write(tmp_path / "c", {"w": torch.ones(5)})
    assert same(checkpoint.read(tmp_path / "c", second), {"w": torch.ones(5)})
    assert len(list((tmp_path / "c").iterdir())) == 2
    with pytest.raises(CheckpointError, match="not the one that was recorded"):
        checkpoint.read(tmp_path / "c", first)


@pytest.mark.parametrize("stop_before", [1, 2])
def test_a_crash_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    """Dies before the first or the second rename: of the data file, of the index."""
    old, _ = checkpoint.write(tmp_path / "c", {"w": torch.zeros(5)})
    renames = []
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == stop_before:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path / "c", {"w": torch.ones(5)})
    monkeypatch.undo()
    assert same(checkpoint.read(tmp_path / "c", old), {"w": torch.zeros(5)})
    new, _ = checkpoint.write(tmp_path / "c", {"w": torch.ones(5)})
    assert same(checkpoint.read(tmp_path / "c", new), {"w": torch.ones(5)})
    assert len(list((tmp_path / "c").iterdir())) == 2


def data_file(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"{kind}-*.safetensors"))


@pytest.mark.parametrize("victim", ["tensors", "arrays", "state"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "longer"])
def test_damage_is_found(tmp_path: Path, victim: str, damage: str) -> None:
    folder = tmp_path / "c"
    digest, _ = checkpoint.write(folder, {"w": torch.ones(100), "a": np.ones(100), "n": 3})
    path = folder / "state.json" if victim == "state" else data_file(folder, victim)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "longer":
        path.write_bytes(content + b" ")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.read(folder, digest)


def test_every_single_byte_is_covered(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    digest, _ = checkpoint.write(folder, {"w": torch.ones(3), "n": [1, 2]})
    for path in folder.iterdir():
        content = path.read_bytes()
        for i in range(len(content)):
            path.write_bytes(content[:i] + bytes([content[i] ^ 0x10]) + content[i + 1 :])
            with pytest.raises(CheckpointError):
                checkpoint.read(folder, digest)
        path.write_bytes(content)
    checkpoint.read(folder, digest)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(tmp_path / "nowhere", "0" * 64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"state\['m'\]\[1\] is a object"),
        ({1, 2}, "is a set"),
        (b"x", "is a bytes"),
        (np.array(["a"]), "array of <U1"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros(2, 2).to_sparse(), "sparse"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checkpoint.write(tmp_path / "c", {"m": [0, value]})
    assert not (tmp_path / "c").exists()


def draw() -> list[Any]:
    return [random.random(), random.gauss(), float(np.random.rand()), float(np.random.randn()), torch.rand(2).tolist()]


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    checkpoint.seed_everything(3)
    draw()  # `gauss` and `randn` have drawn two numbers and given one: the other is state too
    saved = round_trip(tmp_path / "c", checkpoint.capture_rng())
    expected = draw()
    draw()
    checkpoint.restore_rng(saved)
    assert draw() == expected


def test_a_seed_decides_every_generator() -> None:
    checkpoint.seed_everything(2**40 + 1)
    first = draw()
    checkpoint.seed_everything(2**40 + 1)
    assert draw() == first
    checkpoint.seed_everything(2**40 + 2)
    assert draw() != first


def test_torch_is_not_imported_where_there_are_no_tensors(tmp_path: Path) -> None:
    program = f"""
import sys, json, pathlib, numpy as np
from thalweg.train import checkpoint
folder = pathlib.Path({str(tmp_path / "c")!r})
checkpoint.seed_everything(1)
digest, _ = checkpoint.write(folder, {{"rng": checkpoint.capture_rng(), "a": np.arange(3)}})
checkpoint.restore_rng(checkpoint.read(folder, digest)["rng"])
print(json.dumps("torch" in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(ran.stdout) is False
