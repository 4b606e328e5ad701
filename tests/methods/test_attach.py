"""The fixed public face: which weights attach masks, the values it accepts, and the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attached_model import Block, attach, backward, sgd
from processor import need_bfloat16_lstm
from torch import nn

import methods

# ---- which weights


@pytest.mark.parametrize(
    ("patterns", "want"),
    [
        ({}, ["features.0.weight", "features.1.0.weight", "head.weight"]),
        ({"exclude": ["head"]}, ["features.0.weight", "features.1.0.weight"]),
        ({"exclude": ["features"]}, ["head.weight"]),
        ({"include": ["features"]}, ["features.0.weight", "features.1.0.weight"]),
        ({"include": ["features.1"]}, ["features.1.0.weight"]),
        ({"include": ["feat*", "head"], "exclude": ["features.[0]"]}, ["features.1.0.weight", "head.weight"]),
        ({"exclude": ["*.1"]}, ["features.0.weight", "head.weight"]),
    ],
)
def test_patterns_cover_what_is_inside_the_modules_they_match(patterns: dict[str, Any], want: list[str]) -> None:
    attached = attach(Block(), density=0.5, **patterns)
    assert list(attached.masks()) == want
    assert len(attached.kept_counts()) == len(want)


@pytest.mark.parametrize("side", ["include", "exclude"])
def test_a_pattern_that_matches_no_module_is_refused_with_the_modules_there_are(side: str) -> None:
    with pytest.raises(ValueError, match=r"pattern 'haed' matches no module; modules: features, .*head"):
        attach(Block(), **{side: ["features", "haed"]})


@pytest.mark.parametrize("method", ["static", "set", "dst"])
def test_an_excluded_layer_trains_dense(method: str) -> None:
    model = Block()
    before = model.head.weight.detach().clone()
    attached = attach(model, method, exclude=["head"])
    assert torch.equal(model.head.weight, before)
    assert type(model.head) is nn.Linear
    assert "head.weight" not in attached.thresholds()


def test_density_counts_the_maskable_weights_alone() -> None:
    attached = attach(Block(), density=0.25, exclude=["head"])
    assert attached.density() == round(0.25 * 112) / 112


def test_a_model_with_nothing_to_prune_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to prune"):
        attach(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()))
    with pytest.raises(ValueError, match="nothing to prune"):
        attach(Block(), exclude=["features", "head"])


def test_tied_weights_are_refused_by_both_names_and_may_be_excluded() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 2)})
    model["b"].weight = model["a"].weight
    with pytest.raises(ValueError, match=r"one tensor is the weight of a\.weight and b\.weight: exclude all of these"):
        attach(model)
    assert list(attach(model, density=0.5, exclude=["a", "b"]).masks()) == ["c.weight"]


def test_a_weight_tied_to_an_embedding_is_left_out_as_an_embedding() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "out": nn.Linear(4, 5)})
    model["out"].weight = model["embedding"].weight
    with pytest.raises(ValueError, match=r"nothing to prune.*out\.weight \(embedding\)"):
        attach(model)
    model["hidden"] = nn.Linear(4, 4)
    attached = attach(model)
    assert list(attached.masks()) == ["hidden.weight"]
    assert attached.coverage().aside == {"embedding.weight": "embedding", "out.weight": "embedding"}


def test_a_lazy_layer_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.weight has no data yet: run one batch"):
        attach(nn.Sequential(nn.LazyLinear(3)))


def test_a_weight_computed_from_others_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match=r"1\.weight is computed from other parameters .*exclude its module"):
        attach(model)
    assert list(attach(model, density=0.5, exclude=["1"]).masks()) == ["0.weight"]


@pytest.mark.parametrize("second", ["dense", "static", "dst"])
@pytest.mark.parametrize("first", ["dense", "static", "dst"])
def test_a_second_method_is_refused_until_the_first_is_finalized(first: str, second: str) -> None:
    model = Block()
    attach(model, first)
    with pytest.raises(ValueError, match=r"attached to features\.0\.weight already: call methods\.finalize\(model\)"):
        attach(nn.Sequential(model, nn.Linear(3, 3)), second)
    attach(methods.finalize(model), second)


@pytest.mark.parametrize("name", ["prune_finetune", "deep_r", "dsr", "lottery", "static"])
def test_a_method_that_was_attached_is_refused_for_another_model(name: str) -> None:
    method = methods.create(name)
    attached, model = attach(Block(), method), Block()
    with pytest.raises(ValueError, match=r"was attached before .*: give each attach a method of its own, by name or"):
        attach(model, method)
    assert attached.method is method
    attach(model, methods.create(name, **method.hyperparameters()))


def test_a_method_whose_attach_failed_may_be_attached() -> None:
    method = methods.create("snip")
    with pytest.raises(ValueError, match="give attach"):
        attach(Block(), method, train_batches=None)
    attach(Block(), method)


@pytest.mark.parametrize("bad", [{"loss_fn": "cross_entropy"}, {"train_batches": 3}])
def test_a_model_whose_attach_was_refused_is_free(bad: dict[str, Any]) -> None:
    model = Block()
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        attach(model, "static", **bad)
    attach(model, "static")


# ---- names and values


def test_an_unknown_method_is_answered_with_the_nearest_and_the_valid_names() -> None:
    with pytest.raises(
        ValueError, match=rf"unknown method 'statik': did you mean 'static'\? valid: {', '.join(methods.available())}$"
    ):
        attach(Block(), "statik")
    with pytest.raises(ValueError, match=f"unknown method 'xyzzy': valid: {methods.available()[0]}"):
        methods.create("xyzzy")


def test_an_unknown_hyperparameter_is_answered_with_the_nearest_and_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"dst has no hyperparameter 'alpa': did you mean 'alpha'\? valid: alpha, "):
        attach(Block(), "dst", alpa=0.1)
    with pytest.raises(ValueError, match="dense has no hyperparameter 'density': valid: none"):
        methods.create("dense", density=0.1)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("dst", {"alpha": "0.1"}, "dst: alpha is '0.1': it must be float"),
        ("dst", {"reset_density": "no"}, "dst: reset_density is 'no': it must be float or none"),
        ("set", {"update_every": 1.5}, "set: update_every is 1.5: it must be int or str"),
        ("set", {"density": True}, "set: density is True: it must be float"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create(name, **values)


def test_an_int_serves_for_a_float() -> None:
    alpha = methods.create("dst", alpha=1).hyperparameters()["alpha"]
    assert (alpha, type(alpha)) == (1.0, float)


def test_hyperparameters_report_defaults_and_given_values() -> None:
    given = {"density": 0.3, "allocation": "erk", "pattern": None}
    assert methods.create("static", density=0.3).hyperparameters() == given


def test_hyperparameters_beside_a_method_object_are_refused() -> None:
    with pytest.raises(ValueError, match="hyperparameters go with a method's name"):
        attach(Block(), methods.create("static"), density=0.1)


def test_a_method_object_without_its_class_attributes_is_refused() -> None:
    class Bare(methods.Method):
        name, reference = "bare", "none"

    message = "^method Bare lacks the class attributes 'version', 'density_promise': write .* version = 1, density_pro"
    with pytest.raises(ValueError, match=message):
        methods.attach(Block(), Bare(), total_steps=3, steps_per_epoch=1)


@pytest.mark.parametrize("name", ["total_steps", "steps_per_epoch"])
def test_step_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0: it must be at least 1"):
        attach(Block(), **{name: 0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_steps": 6.5}, "total_steps is 6.5: it must be a whole number"),
        ({"steps_per_epoch": "2"}, "steps_per_epoch is '2': it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number of 64 bits"),
        ({"seed": 2**80}, "it must be a whole number of 64 bits"),
    ],
)
def test_a_number_that_is_refused_leaves_the_model_free(given: dict[str, Any], message: str) -> None:
    model = Block()
    with pytest.raises(ValueError, match=message):
        attach(model, "set", density=0.3, **given)
    assert attach(model, "set", density=0.3, total_steps=6.0).total_steps == 6


@pytest.mark.parametrize("method", ["set", "dsr", "sparse_momentum"])
def test_a_layer_that_is_frozen_during_training_keeps_its_weights(method: str) -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method, density=0.3, total_steps=20, **({"update_every": 2} if method == "dsr" else {}))
    sgd(attached)
    for step in range(12):
        if step == 3:
            model.head.requires_grad_(False)
            before = model.head.weight.clone()
        backward(model, attached)
        attached.step()
    assert torch.equal(model.head.weight, before)
    assert attached.density() == pytest.approx(0.3, abs=0.01)


def test_every_available_method_is_described() -> None:
    described = methods.describe()
    assert list(described) == methods.available()
    assert {"dense", "dst", "set", "static"} <= set(described)
    assert all(len(line) > 10 and "cannot be used" not in line for line in described.values())


# ---- the loop


def test_a_step_before_bind_is_refused() -> None:
    model = Block()
    attached = attach(model)
    backward(model, attached)
    with pytest.raises(RuntimeError, match=r"call attached\.bind\(optimizer\) before step"):
        attached.step()


@pytest.mark.parametrize("method", ["dense", "static", "set", "dst"])
def test_the_penalty_is_a_scalar_and_zero_where_a_method_has_none(method: str) -> None:
    penalty = attach(Block(), method).penalty()
    assert penalty.shape == ()
    assert penalty.dtype == torch.float32
    assert (penalty.item() > 0) == (method == "dst")


def test_dense_trains_as_if_no_method_were_there() -> None:
    results = []
    for method in ("dense", None):
        torch.manual_seed(0)
        model = Block()
        if method:
            attached = attach(model, method)
            sgd(attached)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(4):
            loss = F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3)
            model.zero_grad()
            loss.backward()
            attached.step() if method else optimizer.step()
        results.append(model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[1])


def test_parameter_groups_hold_every_parameter_that_wants_a_gradient_once() -> None:
    model = Block()
    model.head.bias.requires_grad_(False)
    (group,) = attach(model).parameter_groups(weight_decay=1e-4)
    assert group["weight_decay"] == 1e-4
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters() if p is not model.head.bias]


@pytest.mark.parametrize("method", ["static", "set", "dst"])
def test_a_grad_scaler_carries_the_step(method: str) -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method)
    optimizer = sgd(attached)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = model.features[0].bias.detach().clone()
    loss = F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    gradient = model.features[0].bias.grad.clone()
    attached.step(scaler.step)
    scaler.update()
    torch.testing.assert_close(model.features[0].bias, before - 0.1 * gradient)
    if method != "dst":
        assert all(not model.get_parameter(n)[~mask].any() for n, mask in attached.masks().items())


def test_a_grad_scaler_skips_the_update_where_a_gradient_is_infinite() -> None:
    model = Block()
    attached = attach(model)
    optimizer = sgd(attached)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = model.head.weight.detach().clone()
    scaler.scale(F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3)).backward()
    model.head.weight.grad.fill_(float("inf"))
    scaler.unscale_(optimizer)
    attached.step(scaler.step)
    scaler.update()
    assert torch.equal(model.head.weight, before)
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize("layer", ["linear", "conv", "lstm"])
def test_dst_trains_under_bfloat16_autocast(layer: str) -> None:
    if layer == "lstm":
        need_bfloat16_lstm()
    torch.manual_seed(0)
    made = {
        "linear": (nn.Linear(6, 4), (5, 6)),
        "conv": (nn.Conv2d(2, 4, 3), (2, 2, 5, 5)),
        "lstm": (nn.LSTM(6, 4), (3, 2, 6)),
    }
    model, shape = made[layer]
    attached = attach(model, "dst")
    x = torch.randn(shape)
    want = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(x)
    want, got = (out[0] if isinstance(out, tuple) else out for out in (want, got))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=0.02, atol=0.02)
    got.float().square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients.values())
    assert all(gradients[f"{name}_threshold"].any() for name in attached.masks())
