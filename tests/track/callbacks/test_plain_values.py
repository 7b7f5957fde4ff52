from __future__ import annotations

import enum

import numpy as np
import torch

from thalweg.track.callbacks.plain_values import numbers_in, plain


class Kind(enum.Enum):
    FAST = "fast"


def test_numbers_of_all_kinds_are_kept_and_the_rest_is_not() -> None:
    given = {
        "int": 3,
        "tensor": torch.tensor(0.25),
        "gradient": torch.tensor(2.0, requires_grad=True) * 2,
        "numpy": np.float32(0.5),
        "nested": {"deep": {"x": 1}},
        "text": "1.0",
        "list": [1.0],
        "vector": torch.ones(3),
        "none": None,
    }
    expected = {"int": 3.0, "tensor": 0.25, "gradient": 4.0, "numpy": 0.5, "nested/deep/x": 1.0}
    assert numbers_in(given) == expected


def test_what_is_not_finite_is_a_number() -> None:
    found = numbers_in({"inf": float("inf"), "nan": float("nan")})
    assert found["inf"] == float("inf")
    assert found["nan"] != found["nan"]


def test_hyperparameters_are_texts_numbers_and_truth_values() -> None:
    given = {"kind": Kind.FAST, "modules": {"q", "k"}, "x": np.int64(3), "t": torch.tensor(0.5), "on": True, "no": None}
    assert plain(given) == {"kind": "fast", "modules": ["k", "q"], "x": 3, "t": 0.5, "on": True, "no": None}
