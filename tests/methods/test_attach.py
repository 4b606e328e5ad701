"""The fixed public face: attach, bind, penalty, step, masks, states, plug-ins."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from processor import need_bfloat16_lstm
from torch import Tensor, nn

import methods
from methods import Context, Method, Phase, registry


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def attach(model: nn.Module, method: str | Method = "static", **options: Any) -> methods.Attachment:
    return methods.attach(model, method, **({"total_steps": 6, "steps_per_epoch": 2} | options))


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def sgd(attached: methods.Attachment, lr: float = 0.1) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=lr, momentum=0.9)
    attached.bind(optimizer)
    return optimizer


def backward(model: nn.Module, attached: methods.Attachment) -> Tensor:
    loss = F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
    model.zero_grad()
    loss.backward()
    return loss


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


def test_a_weight_tied_to_an_embedding_is_refused() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "out": nn.Linear(4, 5)})
    model["out"].weight = model["embedding"].weight
    with pytest.raises(ValueError, match=r"embedding\.weight and out\.weight"):
        attach(model)


def test_a_lazy_layer_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.weight has no data yet: run one batch"):
        attach(nn.Sequential(nn.LazyLinear(3)))


def test_a_weight_computed_from_others_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match=r"1\.weight is computed from other parameters .*exclude its module"):
        attach(model)
    assert list(attach(model, density=0.5, exclude=["1"]).masks()) == ["0.weight"]


def test_a_second_reparametrization_is_refused() -> None:
    model = Block()
    attach(model, "dst")
    with pytest.raises(ValueError, match=r"features\.0\.weight is reparametrized already: call methods\.finalize"):
        attach(model, "dst")
    attach(methods.finalize(model), "dst")


# ---- names and values


def test_an_unknown_method_is_answered_with_the_nearest_and_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'statik': did you mean 'static'\? valid: dense, dsr, dst, "):
        attach(Block(), "statik")
    with pytest.raises(ValueError, match="unknown method 'xyzzy': valid: dense"):
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
    assert methods.create("static", density=0.3).hyperparameters() == {"density": 0.3, "allocation": "erk"}


def test_hyperparameters_beside_a_method_object_are_refused() -> None:
    with pytest.raises(ValueError, match="hyperparameters go with a method's name"):
        attach(Block(), methods.create("static"), density=0.1)


@pytest.mark.parametrize("name", ["total_steps", "steps_per_epoch"])
def test_step_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0: it must be at least 1"):
        attach(Block(), **{name: 0})


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


# ---- masks


def test_masks_are_bool_copies_by_the_parameters_original_names() -> None:
    model = Block()
    attached = attach(model, density=0.5)
    masks = attached.masks()
    assert all(mask.dtype == torch.bool and mask.shape == model.get_parameter(n).shape for n, mask in masks.items())
    masks["head.weight"].fill_(True)
    assert not attached.masks()["head.weight"].all()


def test_dense_masks_are_all_true() -> None:
    attached = attach(Block(), "dense")
    assert all(mask.all() for mask in attached.masks().values())
    assert attached.density() == 1
    assert attached.kept_counts().tolist() == [48, 64, 24]


def test_set_masks_starts_from_known_masks_and_the_models_own_values() -> None:
    torch.manual_seed(0)
    model = Block()
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    attached = attach(model, density=0.1)
    known = {name: torch.rand_like(p) < 0.6 for name, p in first.items() if name in attached.masks()}
    attached.set_masks(known)
    assert all(torch.equal(mask, known[name]) for name, mask in attached.masks().items())
    assert attached.kept_counts().tolist() == [int(mask.sum()) for mask in known.values()]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, first[name] * known[name] if name in known else first[name])
    sgd(attached)
    backward(model, attached)
    attached.step()
    assert all(torch.equal(model.get_parameter(name) != 0, mask) for name, mask in known.items())


def test_set_masks_keeps_values_that_were_loaded_after_attach() -> None:
    model = Block()
    attached = attach(model, density=0.1)
    loaded = {name: torch.full_like(value, 7) for name, value in model.state_dict().items()}
    model.load_state_dict(loaded)
    attached.set_masks({"head.weight": ones(3, 8)})
    assert (model.head.weight == 7).all()


def test_set_masks_after_a_step_grows_from_zero() -> None:
    model = Block()
    attached = attach(model, density=0.1)
    sgd(attached)
    backward(model, attached)
    attached.step()
    before = attached.masks()["head.weight"]
    attached.set_masks({"head.weight": ones(3, 8)})
    assert not model.head.weight[~before].any()


def test_set_masks_leaves_weights_that_are_not_named() -> None:
    attached = attach(Block(), density=0.5)
    before = attached.masks()
    attached.set_masks({"head.weight": torch.zeros(3, 8, dtype=torch.bool)})
    after = attached.masks()
    assert not after.pop("head.weight").any()
    assert all(torch.equal(mask, before[name]) for name, mask in after.items())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"head.bias": ones(3)}, r"no maskable weight 'head\.bias'; valid: features\.0\.weight"),
        ({"head.weight": ones(8, 3)}, r"mask of head\.weight is torch\.bool \[8, 3\], not torch\.bool \[3, 8\]"),
        ({"head.weight": torch.ones(3, 8)}, r"mask of head\.weight is torch\.float32 \[3, 8\], not torch\.bool"),
    ],
)
def test_bad_masks_are_refused_and_change_nothing(mask: dict[str, Tensor], message: str) -> None:
    attached = attach(Block(), density=0.5)
    before = attached.masks()
    with pytest.raises(ValueError, match=message):
        attached.set_masks({"features.0.weight": torch.zeros(8, 6, dtype=torch.bool)} | mask)
    assert all(torch.equal(now, before[name]) for name, now in attached.masks().items())


@pytest.mark.parametrize("method", ["dense", "dst"])
def test_methods_without_masks_of_their_own_refuse_them(method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} has no masks of its own to set"):
        attach(Block(), method).set_masks({"head.weight": ones(3, 8)})


def test_thresholds_are_empty_where_a_method_has_none() -> None:
    assert attach(Block(), "set").thresholds() == {}


# ---- states


def test_a_state_of_another_method_or_version_is_refused() -> None:
    state = attach(Block(), "static").state_dict()
    with pytest.raises(ValueError, match="the state is of static 1, not set 1"):
        attach(Block(), "set").load_state_dict(state)
    with pytest.raises(ValueError, match="the state is of static 7, not static 1"):
        attach(Block(), "static").load_state_dict(state | {"version": 7})


def test_a_state_saved_with_other_hyperparameters_is_refused_by_name() -> None:
    state = attach(Block(), "dst").state_dict()
    with pytest.raises(ValueError, match=r"other hyperparameters: threshold 'vector' -> 'scalar'"):
        attach(Block(), "dst", threshold="scalar").load_state_dict(state)


def test_masks_of_excluded_weights_are_refused() -> None:
    state = attach(Block(), density=0.5).state_dict()
    with pytest.raises(ValueError, match=r"saved masks of head\.weight, which are no maskable weights here"):
        attach(Block(), density=0.5, exclude=["head"]).load_state_dict(state)


# ---- phases


@dataclass(kw_only=True)
class TwoPhases(Method):
    """Dense, then pruned by magnitude with a fresh optimizer."""

    name = "two_phases"
    version = 1
    reference = "none"
    density_promise = "final"

    density: float = 0.5
    sparse_steps: int = 3

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return Phase("dense", total_steps), Phase("sparse", self.sparse_steps, new_optimizer=True, lr=0.01)

    def enter_phase(self, ctx: Context) -> None:
        if ctx.phase.name == "sparse":
            sizes = {name: weight.parameter.abs() for name, weight in ctx.weights.items()}
            ctx.masks.set({name: size > size.median() for name, size in sizes.items()})


def test_step_returns_true_where_a_phase_begins_and_total_steps_sums_them() -> None:
    model = Block()
    attached = attach(model, TwoPhases(), total_steps=4)
    assert attached.total_steps == 7
    began = []
    optimizer = sgd(attached)
    for _ in range(attached.total_steps):
        assert attached.phase.name == ("sparse" if any(began) else "dense")
        assert (attached.density() < 1) == any(began)
        backward(model, attached)
        began.append(attached.step())
        if began[-1]:
            assert attached.phase == Phase("sparse", 3, new_optimizer=True, lr=0.01)
            optimizer = sgd(attached, lr=attached.phase.lr)
    assert began == [False, False, False, True, False, False, False]
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_a_phase_resumes_without_being_entered_again() -> None:
    model = Block()
    attached = attach(model, TwoPhases(), total_steps=1)
    sgd(attached)
    backward(model, attached)
    assert attached.step()
    fresh = Block()
    resumed = attach(fresh, TwoPhases(), total_steps=1)
    resumed.load_state_dict(attached.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert resumed.phase.name == "sparse"
    assert all(torch.equal(mask, attached.masks()[name]) for name, mask in resumed.masks().items())
    sgd(resumed)
    backward(fresh, resumed)
    assert resumed.step() is False


def test_a_phase_without_steps_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"two_phases has a phase without steps in a training of 6: .*'sparse'"):
        attach(Block(), TwoPhases(sparse_steps=0))


# ---- hooks


class Recorder(Method):
    """Writes down what its hooks see; replaces every second update."""

    name = "recorder"
    version = 1
    reference = "none"
    density_promise = "dense"

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool, float | None]] = []

    def note(self, hook: str, ctx: Context) -> None:
        has_gradients = all(weight.parameter.grad is not None for weight in ctx.weights.values())
        self.seen.append((hook, ctx.step, has_gradients, ctx.lr if ctx.optimizer else None))

    def enter_phase(self, ctx: Context) -> None:
        self.note("enter_phase", ctx)

    def after_backward(self, ctx: Context) -> bool:
        self.note("after_backward", ctx)
        return ctx.step % 2 == 0

    def after_step(self, ctx: Context) -> None:
        self.note("after_step", ctx)


def test_hooks_run_in_order_and_may_replace_the_optimizers_step() -> None:
    model, method = Block(), Recorder()
    attached = attach(model, method)
    sgd(attached)
    moved = []
    for _ in range(2):
        before = model.head.bias.detach().clone()
        backward(model, attached)
        attached.step()
        moved.append(not torch.equal(model.head.bias, before))
    assert moved == [True, False]
    assert method.seen == [
        ("enter_phase", 0, False, None),
        ("after_backward", 0, True, 0.1),
        ("after_step", 1, True, 0.1),
        ("after_backward", 1, True, 0.1),
        ("after_step", 2, True, 0.1),
    ]


class ScoresOnData(Method):
    name = "scores_on_data"
    version = 1
    reference = "none"
    density_promise = "dense"

    def enter_phase(self, ctx: Context) -> None:
        x, target = next(iter(ctx.train_batches()))
        self.score = ctx.loss_fn(ctx.model(x), target).item()


def test_methods_that_score_on_data_get_train_batches_and_loss_fn() -> None:
    method = ScoresOnData()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.ones(2, 6), torch.zeros(2, 3)

    model = Block().eval()
    attach(model, method, train_batches=batches, loss_fn=F.mse_loss)
    assert method.score == pytest.approx(F.mse_loss(model(torch.ones(2, 6)), torch.zeros(2, 3)).item())


def test_scoring_on_data_without_any_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"this method scores on data: give attach\(train_batches=\.\.\.\)"):
        attach(Block(), ScoresOnData())


# ---- plug-ins


class NoReference(Method):
    name = "no_reference"
    version = 1
    density_promise = "dense"


class Annotated(Method):
    name = "annotated"
    version = 1
    reference = "none"
    density_promise = "dense"

    def __init__(
        self,
        *,
        layers: list[str] | None = None,
        sizes: tuple[int, ...] = (1,),
        mode: Literal["a", "b"] | None = None,
        anything: Any = None,
        bare=None,  # type: ignore[no-untyped-def]
        required: int,
    ) -> None:
        self.layers, self.sizes, self.mode, self.anything, self.bare = layers, sizes, mode, anything, bare
        self.required = required


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `plugin_of_test` with methods in it, and a registry that forgets them afterwards."""
    module = types.ModuleType("plugin_of_test")
    members: Mapping[str, Any] = {"TwoPhases": TwoPhases, "NoReference": NoReference, "Annotated": Annotated, "five": 5}
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, "plugin_of_test", module)
    with registry.temporary():
        yield


@pytest.mark.usefixtures("plugin")
def test_a_registered_method_is_available_by_name() -> None:
    methods.register("two_phases", "plugin_of_test:TwoPhases")
    methods.register("two_phases", "plugin_of_test:TwoPhases")
    assert "two_phases" in methods.available()
    assert methods.describe()["two_phases"] == "Dense, then pruned by magnitude with a fresh optimizer."
    assert methods.create("two_phases", sparse_steps=9).hyperparameters() == {"density": 0.5, "sparse_steps": 9}
    assert attach(Block(), "two_phases").total_steps == 9


@pytest.mark.usefixtures("plugin")
def test_a_taken_name_or_a_path_without_colon_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method 'set' is methods\.algorithms\.set:SET already: choose another name"):
        methods.register("set", "plugin_of_test:TwoPhases")
    with pytest.raises(ValueError, match=r"'plugin_of_test\.TwoPhases' is not of the form 'package\.module:Class'"):
        methods.register("mine", "plugin_of_test.TwoPhases")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:Thing", "cannot be loaded from no_such_module:Thing: No module named 'no_such_module'"),
        ("plugin_of_test:Missing", "cannot be loaded from plugin_of_test:Missing: .*no attribute 'Missing'"),
        ("plugin_of_test:five", "plugin_of_test:five is no subclass of methods.Method"),
        ("plugin_of_test:NoReference", "plugin_of_test:NoReference lacks the class attribute 'reference'"),
    ],
)
def test_a_broken_plug_in_is_refused_by_name_and_listed_with_its_fault(path: str, message: str) -> None:
    methods.register("mine", path)
    with pytest.raises(ValueError, match=f"method 'mine'.*{message}"):
        methods.create("mine")
    assert "cannot be used: method 'mine'" in methods.describe()["mine"]


@pytest.mark.usefixtures("plugin")
def test_annotations_of_containers_and_literals_do_not_stand_in_the_way() -> None:
    methods.register("annotated", "plugin_of_test:Annotated")
    values = {"layers": ["a"], "sizes": (1, 2), "mode": "a", "anything": object(), "bare": 3, "required": 1}
    assert methods.create("annotated", **values).hyperparameters() == values
    with pytest.raises(ValueError, match="annotated: layers is 'a': it must be list or none"):
        methods.create("annotated", required=1, layers="a")
    with pytest.raises(ValueError, match=r"annotated: .*missing 1 required keyword-only argument: 'required'"):
        methods.create("annotated")


@pytest.mark.parametrize("name", methods.available())
def test_a_method_is_listed_with_the_first_line_of_its_docstring(name: str) -> None:
    assert methods.describe()[name] == registry.first_line(registry.method_class(name))


def test_a_list_serves_for_a_tuple_as_json_has_no_other() -> None:
    made = methods.create("dsr", doubles_at=[0.5])
    assert made.hyperparameters()["doubles_at"] == (0.5,)
