"""Default devices and types of torch change nothing that `attach` makes, and NumPy's scalars are plain values."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods import conformance
from methods.algorithms.dst import DST
from methods.algorithms.set import SET
from methods.conformance import check
from methods.conformance.networks import FAST

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "dense": {},
    "dst": {"alpha": 0.05},
    "static": {"density": 0.4},
    "set": {"density": 0.4, "update_every": 2},
    "dsr": {"density": 0.4, "update_every": 2},
    "sparse_momentum": {"density": 0.4, "update_every": 2},
    "rigl": {"density": 0.4, "update_every": 2},
    "gradual": {"density": 0.4, "update_every": 2},
    "deep_r": {"density": 0.4, "noise": 0.1},
    "dns": {"threshold_scale": 0.5, "pretraining": 0.5, "frequency_decay": 1.0},
    "prune_finetune": {"density": 0.4},
    "lottery": {"density": 0.4},
}


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def trained(method: str, context: contextlib.AbstractContextManager[Any]) -> list[Tensor]:
    """Parameters, masks and outputs of a training whose every call to `methods` is inside the context."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    again = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    with context:
        attached = methods.attach(model, method, total_steps=6, steps_per_epoch=2, **HYPERPARAMETERS[method])
        attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9))
        for _ in range(6):
            model.zero_grad()
            (F.cross_entropy(model(x), y) + attached.penalty()).backward()
            attached.step()
        resumed = methods.attach(again, method, total_steps=6, steps_per_epoch=2, **HYPERPARAMETERS[method])
        resumed.load_state_dict(attached.state_dict())
        again.load_state_dict(model.state_dict())
        masks, counts = resumed.masks(), resumed.kept_counts()
        assert resumed.density() == attached.density()
        methods.finalize(model, compact=True)
        out = methods.finalize(again)(x)
    return [*model.state_dict().values(), *masks.values(), counts, out]


@pytest.mark.parametrize("method", HYPERPARAMETERS)
def test_what_is_made_for_a_model_lies_where_the_model_does(method: str) -> None:
    """ "meta" stands in for a GPU, and float64 is no model's type here."""
    want = trained(method, contextlib.nullcontext())
    for context in (torch.device("meta"), default_dtype(torch.float64)):
        for found, expected in zip(trained(method, context), want, strict=True):
            assert found.device == expected.device
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


def test_the_conformance_kit_makes_its_networks_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAST", FAST[:1])
    with torch.device("meta"):
        conformance.check_method("static")


@pytest.mark.parametrize(
    "number", [np.float32(0.25), np.float64(0.25), np.array(0.25, np.float16), torch.tensor(0.25)], ids=repr
)
def test_scalars_of_numpy_and_torch_are_plain_hyperparameters(number: Any) -> None:
    every = np.int64(3)
    by_class = SET(density=number, update_every=every)
    for made in (methods.create("set", density=number, update_every=every), by_class):
        attached = methods.attach(
            nn.Linear(4, 3), made, total_steps=np.int32(6), steps_per_epoch=np.int64(2), seed=np.uint8(5)
        )
        assert made.hyperparameters() == methods.create("set", density=0.25, update_every=3).hyperparameters()
        assert [type(made.hyperparameters()[name]) for name in ("density", "update_every")] == [float, int]
        file = io.BytesIO()
        torch.save(attached.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        plain = methods.attach(
            nn.Linear(4, 3), "set", total_steps=6, steps_per_epoch=2, seed=5, density=0.25, update_every=3
        )
        plain.load_state_dict(state)
        assert type(attached.total_steps) is int
        assert torch.equal(plain.context.generator.get_state(), attached.context.generator.get_state())


def test_a_hyperparameter_of_another_kind_is_refused_from_numpy_too() -> None:
    with pytest.raises(ValueError, match=r"set: update_every is 2\.5: it must be int"):
        methods.create("set", density=0.5, update_every=np.float32(2.5))
    with pytest.raises(ValueError, match="dst: alpha is True: it must be float"):
        methods.create("dst", alpha=np.bool_(True))
    assert methods.create("dst", alpha=np.float32(1e-3)).hyperparameters()["alpha"] == 0.0010000000474974513
    assert methods.create("dst", alpha=np.int64(1)).hyperparameters()["alpha"] == 1.0


def test_a_penalty_takes_a_method_with_a_scalar_of_numpy() -> None:
    attached = methods.attach(nn.Linear(4, 3), DST(alpha=np.float32(0.5)), total_steps=1, steps_per_epoch=1)  # type: ignore[arg-type]
    assert float(attached.penalty().detach()) == 1.5


def test_thresholds_of_a_model_on_two_devices_are_counted_on_the_first() -> None:
    """Groups of one device behave as a model of one: here the device is a name for half of the layers."""
    model = nn.Sequential(*(nn.Linear(4, 3) for _ in range(2)))
    attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1, alpha=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("threshold"):
                parameter.fill_(10.0 if name.startswith("1") else 0.0)
    thresholds = attached.context.thresholds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "names_by_device", lambda: {"cpu": ["0.weight"], torch.device("cpu"): ["1.weight"]})
        torch.testing.assert_close(float(attached.penalty().detach()), 0.5 * (3 + 3 * np.exp(-10)))
        thresholds.update_(reset_below=0.01)
    assert attached.kept_counts().tolist() == [12, 12]
    assert int(attached.threshold_resets()) == 1
