"""How much of a model is maskable, what is left out, and which weights are one weight."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attached_model import attach, sgd
from kernel_paths import use_kernels
from torch import Tensor, nn

import methods
from methods.layers import maskable_weights, select
from methods.ties import sharing
from methods.weights.coverage import warn_where_little


class Raw(nn.Module):
    """A weight of its own, [20, 64] = 1,280 numbers, before a Linear of 320."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(20, 64))
        self.gain = nn.Parameter(torch.ones(64))
        self.out = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gain * (x @ self.w))


def names(model: nn.Module, **options: Any) -> list[str]:
    """The weights that attach would mask."""
    return list(maskable_weights(model, **options))


def covered(model: nn.Module, **options: Any) -> methods.Coverage:
    """What attach would report, without a warning."""
    coverage = methods.Coverage.of(select(model, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_little(coverage, stacklevel=1)
    return coverage


# ---- the report


def test_a_model_of_known_layers_is_covered_whole() -> None:
    coverage = covered(nn.TransformerEncoderLayer(8, 2, 16))
    assert (coverage.covered, coverage.total, coverage.share) == (512, 512, 1.0)  # 3*8*8 + 8*8 + 2*8*16
    assert coverage.dense == coverage.aside == {}
    assert str(coverage) == "100 % of 512 weights are maskable"


def test_a_weight_of_ones_own_is_reported_and_warned_about() -> None:
    with pytest.warns(
        UserWarning, match=r"only 20 % of 1,600 weights are maskable; dense: w \(1,280\)\. .*extra"
    ) as said:
        coverage = attach(Raw()).coverage()
    assert len(said) == 1
    assert said[0].filename.endswith("attached_model.py")  # the caller of methods.attach
    assert (coverage.covered, coverage.total, coverage.share) == (320, 1600, 0.2)
    assert dict(coverage.dense) == {"w": 1280}


def test_the_warning_names_the_five_largest_dense_weights() -> None:
    model = nn.ModuleList([nn.Linear(2, 2), nn.ParameterList([torch.zeros(n, 2) for n in range(1, 8)])])
    with pytest.warns(UserWarning, match="only") as said:
        coverage = attach(model, "dense").coverage()
    assert list(coverage.dense.items()) == [(f"1.{n}", 2 * n + 2) for n in range(6, -1, -1)]
    assert "dense: 1.6 (14), 1.5 (12), 1.4 (10), 1.3 (8), 1.2 (6) and 2 more" in str(said[0].message)


def test_a_percentage_is_rounded_down() -> None:
    model = nn.Sequential(nn.Linear(100, 100), nn.ParameterList([torch.zeros(1, 1)]))
    assert str(covered(model)) == "99.9 % of 10,001 weights are maskable; dense: 1.0 (1)"


def test_nine_tenths_are_enough() -> None:
    class Nearly(nn.Module):
        def __init__(self, own: int) -> None:
            super().__init__()
            self.layer, self.own = nn.Linear(9, 10), nn.Parameter(torch.zeros(own, 1))

    assert covered(Nearly(10)).share == 0.9
    with pytest.warns(UserWarning, match="only 89"):
        attach(Nearly(11), "dense")


def test_embeddings_and_weights_tied_to_them_are_aside() -> None:
    model = nn.ModuleDict({"in": nn.Embedding(50, 4), "bag": nn.EmbeddingBag(9, 4), "h": nn.Linear(4, 4)})
    model["out"] = nn.Linear(4, 50)
    model["out"].weight = model["in"].weight
    coverage = covered(model)
    assert (coverage.covered, coverage.total) == (16, 16)
    assert coverage.aside == dict.fromkeys(["in.weight", "bag.weight", "out.weight"], "embedding")


def test_what_the_user_leaves_out_is_aside() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "raw": Raw()})
    coverage = covered(model, exclude=["raw"])
    assert (coverage.covered, coverage.total) == (16, 16)
    assert coverage.aside == {"raw.w": "excluded", "raw.out.weight": "excluded"}
    coverage = covered(model, include=["a"])
    assert coverage.total == 16
    assert coverage.aside == {"raw.w": "not included", "raw.out.weight": "not included"}


def test_biases_and_normalisation_do_not_count() -> None:
    attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)  # bias_k and bias_v are [1, 1, 4]
    coverage = covered(nn.ModuleList([attention, nn.LayerNorm([3, 4]), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)]))
    assert coverage.total == 48 + 16 + 54
    assert coverage.aside == {}


def test_the_report_is_that_of_attach_under_matrix_thresholds_too() -> None:
    attached = attach(nn.Linear(4, 3), "dst", threshold="matrix")
    assert (attached.coverage().covered, attached.coverage().total) == (12, 12)


# ---- frozen, empty and complex weights


def test_frozen_weights_are_left_out_unless_included() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 3)})
    model["body"].weight.requires_grad_(False)
    assert names(model) == ["head.weight"]
    assert covered(model).aside == {"body.weight": "frozen"}
    assert names(model, include=["body"]) == ["body.weight"]
    assert names(model, extra=["body.weight"]) == ["body.weight", "head.weight"]
    model["head"].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no trainable weight .* left out: body\.weight \(frozen\)"):
        attach(model)


@pytest.mark.parametrize("method", ["dense", "dst", "static", "set", "dsr", "sparse_momentum"])
def test_a_layer_without_entries_is_left_out(method: str) -> None:
    model = nn.ModuleList([nn.Linear(0, 8), nn.Linear(8, 0), nn.Linear(20, 8)])
    attached = attach(model, method)
    assert list(attached.masks()) == ["2.weight"]
    assert attached.coverage().aside == {"0.weight": "empty", "1.weight": "empty"}


def test_complex_weights_stay_dense_and_are_named() -> None:
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.complex64)])
    assert names(model) == ["0.weight"]
    with pytest.raises(ValueError, match=r"include pattern '1' covers no weight that can be masked"):
        attach(model, include=["0", "1"])
    with pytest.raises(ValueError, match=r"extra names 1\.weight, which is torch\.complex64 \[4, 4\]"):
        attach(model, extra=["1.weight"])
    with pytest.warns(UserWarning, match=r"only 50 % .* 1\.weight \(16\)"):
        attach(model, density=0.5)


# ---- include, extra and registered classes


def test_an_include_pattern_without_a_maskable_weight_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match=r"include pattern '1' covers no weight that can be masked.*register_layer"):
        attach(model, include=["0", "1"])
    with pytest.raises(ValueError, match="include pattern '0' covers no weight"):
        attach(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), include=["0", "1"], exclude=["0"])


@pytest.mark.parametrize("extra", [["w"], ("w",), {"w": 1}])
@pytest.mark.parametrize("method", ["static", "dst"])
def test_extra_parameters_are_masked(method: str, extra: Any) -> None:
    model = Raw()
    attached = attach(model, method, extra=extra)
    assert list(attached.masks()) == ["w", "out.weight"]
    assert attached.coverage().share == 1.0
    if method == "dst":
        assert attached.thresholds()["w"].shape == ((64,) if extra == {"w": 1} else (20,))
    before = model(torch.ones(2, 20))
    assert torch.equal(methods.finalize(model)(torch.ones(2, 20)), before)
    assert type(model) is Raw


def test_extra_holds_whatever_the_patterns_are() -> None:
    attached = attach(nn.ModuleDict({"raw": Raw(), "b": nn.Linear(4, 3)}), exclude=["raw"], extra=["raw.gain"])
    assert list(attached.masks()) == ["raw.gain", "b.weight"]
    assert attached.coverage().covered == 64 + 12


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["v"], r"extra names 'v', which is no parameter; parameters: w, gain, out\.weight, out\.bias"),
        ("w", "extra is 'w': give a list of parameter names"),
        ({"w": 2}, "output axis 2 of w: it has 2 axes"),
    ],
)
def test_a_wrong_extra_is_refused(extra: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(Raw(), extra=extra)


def test_a_registered_class_covers_its_subclasses() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 4))

    class Narrower(Own):
        pass

    model = nn.ModuleList([Own(), Narrower(), nn.Linear(4, 4)])
    with pytest.warns(UserWarning, match="only 40 %"):
        methods.finalize(attach(model, "dense").context.model)
    for _ in range(2):  # twice is as good as once
        methods.register_layer(Own, "kernel", output_axis=-1)
    attached = attach(model, "dst")
    assert attached.coverage().share == 1.0
    assert {name: t.shape[0] for name, t in attached.thresholds().items()} == {
        "0.kernel": 4,
        "1.kernel": 4,
        "2.weight": 4,
    }
    with pytest.raises(ValueError, match=r"Own\.kernel is registered with output_axis -1 already"):
        methods.register_layer(Own, "kernel")
    methods.register_layer(Narrower, "kernal")
    with pytest.raises(ValueError, match="Narrower is registered with the parameter 'kernal', which '1' lacks"):
        attach(nn.ModuleList([Own(), Narrower()]))
    with pytest.raises(ValueError, match="is no class of modules"):
        methods.register_layer(Own(), "kernel")  # type: ignore[arg-type]


# ---- thresholds of layers with their outputs on another axis


@pytest.mark.parametrize("shape", ["vector", "scalar", "matrix"])
@pytest.mark.parametrize("path", ["eager", "cpp"])
def test_a_weight_with_outputs_on_axis_1_trains_as_its_transpose(
    path: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw.w is [in, out]: with its axis it has the thresholds, resets and gradients of a Linear."""
    use_kernels(path, monkeypatch)
    torch.manual_seed(0)
    x, target = torch.randn(16, 20, dtype=torch.float64), torch.arange(16) % 5
    raw, plain = Raw().double(), nn.Sequential(nn.Linear(20, 64, bias=False), nn.Linear(64, 5)).double()
    raw.gain.requires_grad_(False)
    raw.w.data /= 5
    plain[0].weight.data.copy_(raw.w.data.T)
    plain[1].load_state_dict(raw.out.state_dict())
    results = []
    for model, options in ((raw, {"extra": {"w": 1}}), (plain, {})):
        attached = attach(model, "dst", alpha=0.05, reset_density=0.6, threshold=shape, total_steps=12, **options)
        optimizer, densities = sgd(attached, lr=0.3), []
        for _ in range(12):
            optimizer.zero_grad()
            (F.cross_entropy(model(x), target) + attached.penalty()).backward()
            attached.step()
            densities.append(attached.density())
        name = next(iter(attached.masks()))
        results.append((attached, densities, attached.thresholds()[name], attached.masks()[name]))
    (ours, densities, threshold, mask), (theirs, want_densities, want, want_mask) = results
    turned = shape == "matrix"
    torch.testing.assert_close(threshold.T if turned else threshold, want)
    assert torch.equal(mask.T, want_mask)
    assert densities == want_densities
    assert 0 < min(densities) < 1
    assert ours.kept_counts().tolist() == theirs.kept_counts().tolist()
    assert int(ours.threshold_resets()) == int(theirs.threshold_resets()) > 0
    torch.testing.assert_close(methods.finalize(raw).w.T, methods.finalize(plain)[0].weight)


def test_a_grouped_transposed_convolution_has_a_threshold_for_each_filter() -> None:
    """[4, 2, 1], two groups: inputs 0 and 1 lead to units 0 and 1, inputs 2 and 3 to units 2 and 3."""
    model = nn.ConvTranspose1d(4, 4, 1, groups=2)
    model.weight.data.copy_(torch.arange(1.0, 9.0).view(4, 2, 1))  # units 0: 1, 3; 1: 2, 4; 2: 5, 7; 3: 6, 8
    attached = attach(model, "dst")
    assert attached.thresholds()["weight"].shape == (4,)
    with torch.no_grad():
        model.weight_threshold.copy_(torch.tensor([2.0, 4.0, 5.0, 0.0]))
    kept = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 6.0], [7.0, 8.0]])
    assert torch.equal(model.weight[..., 0], kept)
    assert torch.equal(attached.masks()["weight"][..., 0], kept != 0)
    used = model(torch.ones(1, 4, 1))[0, :, 0] - model.bias
    torch.testing.assert_close(used, torch.tensor([3.0, 0.0, 7.0, 14.0]))


# ---- one weight under several names


def heads(count: int = 3) -> nn.ModuleDict:
    head = nn.Linear(20, 5)
    return nn.ModuleDict({"trunk": nn.Linear(20, 20), "heads": nn.ModuleList([head] * count)})


@pytest.mark.parametrize("method", ["static", "dst"])
def test_a_module_with_several_names_is_one_weight_under_its_first(method: str) -> None:
    model = heads()
    attached = attach(model, method)
    assert list(attached.masks()) == ["trunk.weight", "heads.0.weight"]
    assert attached.coverage().total == 500
    if method == "static":
        assert torch.count_nonzero(model["heads"][2].weight) == attached.masks()["heads.0.weight"].sum()
    else:
        trained = [id(p) for group in attached.parameter_groups() for p in group["params"]]
        assert len(trained) == len(set(trained)) == 2 + 2 + 2  # weights, biases, thresholds
    assert model["heads"][2] is methods.finalize(model)["heads"][0]


@pytest.mark.parametrize("pattern", ["heads.0", "heads.1", "heads.2", "heads.[12]", "heads"])
def test_a_module_is_excluded_by_any_of_its_names(pattern: str) -> None:
    assert names(heads(), exclude=[pattern]) == ["trunk.weight"]
    assert names(heads(), include=[pattern]) == ["heads.0.weight"]


def test_a_layer_to_which_a_method_is_attached_may_be_excluded_in_another_model() -> None:
    model = heads()
    attach(model)
    other = nn.ModuleDict({"trunk": nn.Linear(20, 20), "heads": model["heads"]})
    with pytest.raises(ValueError, match=r"attached to heads\.0\.weight already"):
        attach(other)
    assert list(attach(other, exclude=["heads.1"]).masks()) == ["trunk.weight"]


def test_extra_may_use_any_name() -> None:
    raw = Raw()
    assert names(nn.ModuleList([nn.Linear(4, 4), raw, raw]), extra=["2.w"]) == ["0.weight", "1.w", "1.out.weight"]


# ---- ties by storage


def views(a: Tensor, b: Tensor) -> nn.ModuleDict:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 2)})
    model["a"].weight, model["b"].weight = nn.Parameter(a), nn.Parameter(b)
    return model


@pytest.mark.parametrize(
    "second",
    [lambda s: s[:4], lambda s: s[3:7], lambda s: s[:4].T, lambda s: s[:8:2]],
    ids=["same", "row", "T", "step"],
)
def test_parameters_that_overlap_in_memory_are_refused_by_name(second: Any) -> None:
    storage = torch.randn(8, 4)
    model = views(storage[:4], second(storage))
    with pytest.raises(ValueError, match=r"a\.weight and b\.weight are views that share numbers: exclude all"):
        attach(model)
    assert names(model, exclude=["a", "b"]) == ["c.weight"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda s: s[:4, :4], lambda s: s[4:, :4]),
        (lambda s: s[:4, :4], lambda s: s[:4, 4:]),
        (lambda s: s[::2, ::2], lambda s: s[1::2, ::2]),
    ],
    ids=["rows", "columns", "every other"],
)
@pytest.mark.parametrize("method", ["static", "dst"])
def test_disjoint_views_of_one_storage_are_weights_of_their_own(method: str, first: Any, second: Any) -> None:
    storage = torch.randn(8, 8)
    a, b = first(storage), second(storage)
    model = views(a, b)
    attached = attach(model, method, **({"density": 0.5} if method == "static" else {}))
    with torch.no_grad():
        for threshold in attached.context.thresholds.parameters().values():
            threshold.fill_(0.4)
    attached.context.thresholds.update_(reset_below=None) if method == "dst" else None
    masks = attached.masks()
    assert attached.kept_counts().tolist() == [int(mask.sum()) for mask in masks.values()]
    assert 0 < attached.density() < 1
    methods.finalize(model)
    assert list(masks) == ["a.weight", "b.weight", "c.weight"]
    assert torch.equal(a != 0, masks["a.weight"])
    assert torch.equal(b != 0, masks["b.weight"])


def test_a_weight_tied_to_an_embedding_by_storage_is_an_embedding() -> None:
    model = views(torch.randn(4, 4), torch.randn(4, 4))
    model["tokens"] = nn.Embedding(4, 4)
    model["a"].weight = nn.Parameter(model["tokens"].weight.data)
    assert covered(model).aside == {"a.weight": "embedding", "tokens.weight": "embedding"}


def test_an_expanded_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"b\.weight repeats its numbers in several entries: make it contiguous"):
        attach(views(torch.randn(4, 4), torch.randn(1, 4).expand(4, 4)))


def test_sharing_is_by_the_bytes() -> None:
    storage = torch.zeros(16)
    tensors = {
        "whole": storage,
        "half": storage[8:],
        "doubles": storage.view(torch.float64)[:4],
        "other": torch.ones(16),
    }
    found = {name: sorted(names) for name, names in sharing(tensors).items()}
    assert found == {
        "whole": ["doubles", "half", "whole"],
        "half": ["half", "whole"],
        "doubles": ["doubles", "whole"],
        "other": ["other"],
    }
    assert sharing({"a": torch.zeros(0), "b": torch.zeros(0), "c": torch.zeros(2, device="meta")})["a"] == ["a"]
