"""Values that would fill the memory, or lose a method's numbers, are refused by name."""

from __future__ import annotations

from typing import Any

import attached_model
import pytest
import torch
from torch import nn

import methods


@pytest.mark.parametrize(
    ("method", "given", "match"),
    [
        ("lottery", {"prune_fraction": 1e-9}, "prune_fraction is 1e-09: it takes more than 1000 levels"),
        ("obd", {"rounds": 10**9}, "rounds is 1000000000: it must be a whole number of 1 to 1000"),
        ("prune_finetune", {"rounds": 10**9}, "rounds is 1000000000: it must be a whole number of 1 to 1000"),
        *(
            (name, {"update_every": "-1"}, "update_every: duration '-1' is not a number of steps")
            for name in ("set", "dsr", "rigl", "gradual", "granet", "narang", "top_kast", "soft_filter", "taylor")
        ),
    ],
)
def test_a_value_out_of_range_is_one_line_with_its_name(method: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        methods.create(method, **given)


def test_variational_dropout_refuses_float16() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)).half()
    with pytest.raises(ValueError, match=r"variances of 0\.weight, 1\.weight underflow in float16"):
        attached_model.attach(model, "variational_dropout")
    assert not any(isinstance(p, torch.nn.Parameter) and p.dtype != torch.float16 for p in model.parameters())
