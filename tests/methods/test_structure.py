"""Weights are looked up where the model holds them; what was moved, replaced or wrapped is named."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.tensor
import torch.nn.functional as F
from attached_model import Block, attach, backward, sgd
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, prune
from two_processes import in_two_processes

import methods

METHODS = ["dense", "static", "dst"]


def replace_head(model: Block) -> None:
    model.head = nn.Linear(8, 9)


def resize_head(model: Block) -> None:
    model.head.weight = nn.Parameter(torch.randn(9, 8))


CHANGES: dict[str, tuple[Callable[[Block], object], str]] = {
    "replaced": (replace_head, r"the layer of head\.weight was replaced since attach"),
    "resized": (resize_head, r"head\.weight has another shape since attach, \[9, 8\] for \[3, 8\]"),
    "removed": (lambda model: delattr(model, "head"), r"the layer of head\.weight was replaced since attach"),
}
CALLS: dict[str, Callable[[methods.Attachment], object]] = {
    "bind": sgd,
    "state_dict": lambda attached: attached.state_dict(),
    "density": lambda attached: attached.density(),
    "set_masks": lambda attached: attached.set_masks({}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", METHODS)
def test_a_changed_layer_is_named(method: str, change: str, call: str) -> None:
    model = Block()
    attached = attach(model, method)
    write, message = CHANGES[change]
    write(model)
    with pytest.raises(ValueError, match=message):
        CALLS[call](attached)


def test_a_layer_replaced_during_training_is_named_at_the_next_step() -> None:
    model = Block()
    attached = attach(model)
    sgd(attached)
    backward(model, attached)
    attached.step()
    replace_head(model)
    with pytest.raises(ValueError, match=r"head\.weight was replaced"):
        attached.step()


@pytest.mark.parametrize(
    "reparametrize",
    [parametrizations.weight_norm, parametrizations.spectral_norm, lambda m: prune.l1_unstructured(m, "weight", 0.2)],
    ids=["weight_norm", "spectral_norm", "prune"],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_layer_reparametrized_after_attach_is_named(method: str, reparametrize: Callable[[nn.Module], Any]) -> None:
    model = Block()
    attached = attach(model, method)

    def go_on() -> None:
        reparametrize(model.head)
        sgd(attached)

    with pytest.raises(ValueError, match=r"head\.weight is computed from"):
        go_on()


def test_a_layer_that_a_wrapper_holds_is_still_the_models() -> None:
    class Wrapper(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x)
            return y

    model = Block()
    attached = attach(model, density=0.5)
    model.head = Wrapper(model.head)  # type: ignore[assignment]
    sgd(attached)
    backward(model, attached)
    attached.step()
    assert attached.density() == pytest.approx(0.5, abs=0.01)


def test_thresholds_that_were_assigned_are_the_ones_that_are_trained() -> None:
    model = Block()
    attached = attach(model, "dst", alpha=0.1)
    model.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()}, assign=True)
    optimizer = sgd(attached)
    backward(model, attached)
    attached.step()
    own = dict(model.named_parameters())
    for name, threshold in attached.thresholds().items():
        assert torch.equal(threshold, own[f"{name}_threshold"])
        assert not torch.equal(threshold, torch.full_like(threshold, 0.01))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_an_optimizer_of_tensors_that_were_replaced_is_refused(method: str) -> None:
    model = Block()
    attached = attach(model, method)
    sgd(attached)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    with pytest.raises(RuntimeError, match=r"features\.0\.weight is another tensor since bind"):
        attached.step()


@pytest.mark.parametrize("method", METHODS)
def test_weights_without_data_are_refused(method: str) -> None:
    with torch.device("meta"):
        model = Block()
    with pytest.raises(ValueError, match=r"features\.0\.weight is on the meta device and has no data"):
        attach(model, method)


def test_sharded_weights_are_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        model = Block()
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        model.head.weight = nn.Parameter(dist.tensor.distribute_tensor(model.head.weight.detach(), mesh))
        with pytest.raises(ValueError, match=r"head\.weight is a DTensor, sharded over processes"):
            attach(model)
    finally:
        dist.destroy_process_group()


def test_names_of_a_wrapped_model_are_explained() -> None:
    attached = attach(Block(), density=0.5)
    wrapped = {f"module.{name}": mask for name, mask in attached.masks().items()}
    with pytest.raises(ValueError, match=r"names of a wrapped model: remove 'module\.'"):
        attached.set_masks(wrapped)
    with pytest.raises(ValueError, match=r"names of a wrapped model: remove 'module\.'"):
        attached.load_state_dict(attached.state_dict() | {"masks": wrapped})


def test_an_attach_that_fails_leaves_the_model_as_it_was() -> None:
    class Fails(methods.Method):
        name, version, reference, density_promise = "fails", 1, "none", "exact"

        def enter_phase(self, ctx: methods.Context) -> None:
            ctx.masks.set({n: torch.zeros_like(w.parameter, dtype=torch.bool) for n, w in ctx.weights.items()})
            raise ValueError("no data to score on")

    model = Block()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="no data to score on"):
        attach(model, Fails())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    attach(model)


@pytest.mark.parametrize(
    ("target", "source", "names"),
    [("a", "b", r"a\.weight and b\.weight"), ("a", "e", r"a\.weight and e\.weight"), ("e", "b", r"b\.weight and e\.w")],
)
def test_weights_tied_after_attach_are_refused_by_name(target: str, source: str, names: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "e": nn.Embedding(4, 4)})
    attached = attach(model)
    model[target].weight = model[source].weight
    for call in (sgd, methods.Attachment.density, methods.Attachment.state_dict):
        with pytest.raises(ValueError, match=rf"{names}.* were tied since attach"):
            call(attached)


def test_a_layer_under_a_second_name_since_attach_is_one_layer() -> None:
    model = Block()
    attached = attach(model, density=0.5)
    model.alias = model.head
    sgd(attached)
    assert attached.density() == pytest.approx(0.5, abs=0.01)


# ---- one life at a time


@pytest.mark.parametrize("method", METHODS)
def test_after_finalize_training_calls_raise_and_the_masks_still_answer(method: str) -> None:
    model = Block()
    attached = attach(model, method)
    optimizer = sgd(attached)
    for _ in range(3):
        backward(model, attached)
        attached.step()
    masks, density = attached.masks(), attached.density()
    methods.finalize(model)
    for call in (attached.step, attached.penalty, attached.state_dict, lambda: attached.bind(optimizer)):
        with pytest.raises(RuntimeError, match=r"\(\) after finalize: the model carries no method now"):
            call()
    assert all(torch.equal(mask, masks[name]) for name, mask in attached.masks().items())
    assert attached.density() == density


@pytest.mark.parametrize("method", METHODS)
def test_finalizing_a_copy_leaves_the_original_in_training(method: str) -> None:
    model = Block()
    attached = attach(model, method)
    sgd(attached)
    methods.finalize(copy.deepcopy(model))
    backward(model, attached)
    attached.step()


# ---- several processes


def _train(rank: int, case: str) -> str:
    """The error of the training; empty where there is none."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = Block()
    network: nn.Module = DistributedDataParallel(model) if case == "wrapped first" else model
    method, seed = ("static", rank) if case == "other seeds" else ("dst", 0)
    attached = attach(model, method, seed=seed)
    if case == "attached first":
        network = DistributedDataParallel(model)
    try:
        sgd(attached)
        torch.manual_seed(rank)
        for _ in range(3):
            loss = F.cross_entropy(network(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
            model.zero_grad()
            loss.backward()
            attached.step()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("attached first", ""),
        ("wrapped first", "processes hold different masks or thresholds: a wrapper does not know of the thresholds"),
        ("other seeds", "processes hold different masks or thresholds: attach with the same seed"),
    ],
)
def test_processes_hold_the_same_or_say_why_not(case: str, message: str) -> None:
    found = in_two_processes(_train, case)
    assert all(text.startswith(message) and bool(text) == bool(message) for text in found)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_wrapped_for_several_processes_is_refused(method: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="wrapped in DistributedDataParallel: attach the method first, then wrap"):
            attach(DistributedDataParallel(Block()), method)
    finally:
        dist.destroy_process_group()


# ---- conversions by torch.ao


def quantize_dynamic(model: nn.Module) -> nn.Module:
    return quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


def prepare_qat(model: nn.Module) -> nn.Module:
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model.train())


def fuse(model: nn.Module) -> nn.Module:
    return quantization.fuse_modules(model.eval(), [["0", "1"]])


def test_a_model_of_inference_mode_can_be_attached_to() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        attach(model, "static", density=0.3)
        assert model(torch.randn(2, 6)).shape == (2, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("convert", [quantize_dynamic, prepare_qat, fuse])
@pytest.mark.parametrize("method", ["set", "top_kast", "dst"])
def test_quantization_and_fusion_say_to_finalize_first(method: str, convert: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    attach(model, method, **({} if method == "dst" else {"density": 0.3}))
    x = torch.randn(4, 6)
    if (method, convert) in (("top_kast", fuse), ("dst", fuse)):
        with pytest.raises(AssertionError, match=r"did not find fuser method for.*Masked"):
            convert(copy.deepcopy(model))
    else:
        with pytest.raises(RuntimeError, match=r"call methods\.finalize\(model\) first"):
            convert(copy.deepcopy(model))(x)
    assert convert(methods.finalize(model))(x).shape == (4, 3)
