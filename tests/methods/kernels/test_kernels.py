"""Every kernel path computes what the plain operations compute, whatever the layout of the weight."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kernel_paths import use_kernels
from processor import need_bfloat16_lstm
from torch import Tensor, nn

import methods
from methods import kernels, thresholds
from methods.kernels import build, inductor
from methods.masked_layers import MaskedWeight

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = {
    "linear": (30, 41),
    "one row": (1, 7),
    "convolution": (6, 5, 3, 3),
    "grouped": (8, 1, 5, 5),
    "1 by 1": (6, 4, 1, 1),
    "3-d": (4, 3, 2, 2, 2),
}
SHAPES = ("vector", "scalar", "matrix")


def example(weight: str, shape: str, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, thresholds around its median and a gradient of the product."""
    torch.manual_seed(0)
    w = torch.randn(WEIGHTS[weight], dtype=dtype)
    t = torch.rand(thresholds.threshold_shape(shape, w), dtype=dtype) + 0.2
    return w, t, torch.randn_like(w)


def computed(w: Tensor, t: Tensor, d_product: Tensor, estimator: str) -> tuple[Tensor, Tensor, Tensor]:
    w, t = w.clone().requires_grad_(), t.clone().requires_grad_()
    product = MaskedWeight(estimator)(w, t)
    d_weight, d_threshold = torch.autograd.grad(product, [w, t], d_product)
    return product.detach(), d_weight, d_threshold


def in_float64(w: Tensor, t: Tensor, d_product: Tensor, estimator: str) -> tuple[Tensor, Tensor, Tensor]:
    w, t, d_product = w.double(), t.double(), d_product.double()
    return (thresholds.product(w, t), *thresholds.gradients(d_product, w, t, thresholds.ESTIMATORS[estimator]))


@pytest.mark.parametrize("path", ["eager", "cpp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("estimator", thresholds.ESTIMATORS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_path_agrees_with_float64(
    weight: str, shape: str, estimator: str, dtype: torch.dtype, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels(path, monkeypatch)
    given = example(weight, shape, dtype=dtype)
    for found, want in zip(computed(*given, estimator), in_float64(*given, estimator), strict=True):
        torch.testing.assert_close(found.double(), want, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_inductor_agrees_with_float64(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("inductor", monkeypatch)
    for weight in ("linear", "convolution"):
        given = example(weight, shape)
        for found, want in zip(computed(*given, "long_tailed"), in_float64(*given, "long_tailed"), strict=True):
            torch.testing.assert_close(found.double(), want, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.rare
def test_a_process_compiles_every_variant_that_a_grid_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives up on a function after some. They are traced as for inductor and not compiled: that takes long."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(kernels, "path", lambda _: "inductor")
    inductor.compiled.cache_clear()
    torch.compiler.reset()
    try:
        for weight, shape, estimator in itertools.product(WEIGHTS, SHAPES, thresholds.ESTIMATORS):
            for dtype, autocast in ((torch.float32, False), (torch.float32, True), (torch.float64, False)):
                w, t, d_product = example(weight, shape, dtype=dtype)
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    found = computed(w, t, d_product, estimator)
                torch.testing.assert_close(found[0], thresholds.product(w, t))
    finally:
        inductor.compiled.cache_clear()
        torch.compiler.reset()


@pytest.mark.slow
def test_a_training_on_inductor_is_that_on_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {}
    for path in ("eager", "inductor"):
        with monkeypatch.context() as patch:
            use_kernels(path, patch)
            trained[path] = train(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)), (1, 8, 8))
    for found, want in zip(trained["inductor"], trained["eager"], strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def train(model: nn.Module, in_shape: tuple[int, ...], *, autocast: bool = False) -> list[Tensor]:
    """Weights, thresholds and kept counts after six steps."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    attached = methods.attach(model, "dst", total_steps=6, steps_per_epoch=6, alpha=0.05)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9))
    for _ in range(6):
        x, y = torch.randn(16, *in_shape), torch.randint(3, (16,))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(model(x), y)
        (loss + attached.penalty()).backward()
        attached.step()
        model.zero_grad()
    return [*(p.detach().clone() for p in model.parameters()), attached.kept_counts()]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x.transpose(0, 1))[0][-1])


NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 3)), (5,)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)), (1, 8, 8)),
    "lstm": (Recurrent, (6, 5)),
}


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16 autocast"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_on_cpp_is_that_on_plain_operations(
    network: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if network == "lstm" and autocast:
        need_bfloat16_lstm()
    make, in_shape = NETWORKS[network]
    trained = {}
    for path in ("eager", "cpp"):
        with monkeypatch.context() as patch:
            use_kernels(path, patch)
            trained[path] = train(make(), in_shape, autocast=autocast)
    for found, want in zip(trained["cpp"], trained["eager"], strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fused_product_and_weight_gradient_have_the_bits_of_plain_operations(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = example("convolution", shape)
    given[0].flatten()[:3] = torch.tensor([0.0, -0.0, float("nan")])
    found = {}
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        found[path] = computed(*given, "long_tailed")
    for ours, plain in zip(found["cpp"][:2], found["eager"][:2], strict=True):
        assert torch.equal(ours.view(torch.int32), plain.view(torch.int32))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_layout_of_weight_and_gradient_does_not_matter(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, d_product = example("convolution", shape)
    want = computed(w, t, d_product, "long_tailed")
    last = {"memory_format": torch.channels_last}
    gaps = torch.stack([w, w], dim=-1)[..., 0]
    assert not gaps.is_contiguous()
    for weight in (w, w.contiguous(**last), gaps):
        for gradient in (
            d_product,
            d_product.contiguous(**last),
            d_product.transpose(2, 3).contiguous().transpose(2, 3),
        ):
            for found, expected in zip(computed(weight, t, gradient, "long_tailed"), want, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("of", ["a product", "a view", "one number for all"])
def test_a_gradient_that_nobody_else_reads_gives_the_same_in_its_place(
    of: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        w, t, d_product = example("linear", shape)
        w, t = w.requires_grad_(), t.requires_grad_()
        product = MaskedWeight("long_tailed")(w, t)
        loss = {"a product": product * d_product, "a view": product.t().mm(d_product), "one number for all": product}[
            of
        ]
        loss.sum().backward()
        found[path] = (w.grad, t.grad)
    torch.testing.assert_close(found["cpp"], found["eager"], rtol=1e-5, atol=1e-5)


def test_a_weight_that_cannot_be_computed_is_never_the_dense_one() -> None:
    expected = {nn.Conv1d(4, 3, 1): (RuntimeError, "weight cannot be"), nn.Linear(4, 3): (AttributeError, "estimator")}
    for model, (error, text) in expected.items():
        methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
        del model.effective["weight"].estimator
        with pytest.raises(RuntimeError, match="weight cannot be computed"):
            _ = model.weight
        with pytest.raises(error, match=text):
            model(torch.ones(4, 4))


def test_masks_apply_to_a_model_whose_type_was_changed() -> None:
    model = nn.Linear(4, 3)
    attached = methods.attach(model, "static", total_steps=2, steps_per_epoch=1, density=0.5)
    model.bfloat16()
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1))
    model(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
    attached.step()
    assert int(model.weight.count_nonzero()) == int(attached.kept_counts())


def test_a_gradient_that_someone_else_reads_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, d_product = example("linear", "vector")
    other = torch.zeros_like(w).requires_grad_()
    w, t = w.requires_grad_(), t.requires_grad_()
    kept = MaskedWeight("long_tailed")(w, t)
    kept.retain_grad()
    ((kept + other) * d_product).sum().backward()
    assert torch.equal(kept.grad, d_product)
    assert torch.equal(other.grad, d_product)
    assert not torch.equal(w.grad, d_product)


@pytest.mark.parametrize("sizes", [(3, 5), (2000, 4)], ids=str)
def test_the_penalty_has_a_second_derivative(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        model = nn.Sequential(*(nn.Linear(4, size) for size in sizes))
        attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1, alpha=0.25)
        thresholds = [p for name, p in model.named_parameters() if name.endswith("threshold")]
        with torch.no_grad():
            for threshold in thresholds:
                threshold.uniform_(-1, 1)
        slopes = torch.autograd.grad(attached.penalty(), thresholds, create_graph=True)
        curvatures = torch.autograd.grad(sum(slope.sum() for slope in slopes), thresholds)
        for threshold, slope, curvature in zip(thresholds, slopes, curvatures, strict=True):
            torch.testing.assert_close(slope, -0.25 * (-threshold).exp())
            torch.testing.assert_close(curvature, 0.25 * (-threshold).exp())


def test_the_number_of_threads_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    torch.manual_seed(0)
    w, d_product, before = torch.randn(300, 784), torch.randn(300, 784), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(
                [computed(w, torch.full(shape, 0.5), d_product, "long_tailed") for shape in ((300,), (), (300, 784))]
            )
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="built with OpenMP only on Linux")
def test_the_operators_are_built_to_run_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    library = build.library().read_bytes()
    assert b"GOMP_parallel" in library or b"__kmpc_fork_call" in library


def test_inputs_can_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    for model, x in ((nn.Linear(30, 20), torch.randn(3, 2, 30)), (nn.Conv1d(3, 4, 2), torch.randn(3, 2, 3, 5))):
        methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
        torch.testing.assert_close(torch.vmap(model)(x), torch.stack([model(one) for one in x]))


@pytest.mark.parametrize("kept", [0, 2, 3, 4, 300])
def test_a_layer_is_reset_below_the_share_and_not_at_it(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 weights, 1 % is 3."""
    found = {}
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        model = nn.Linear(30, 10)
        attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
        with torch.no_grad():
            parameters = dict(model.named_parameters())
            parameters["weight"].copy_((torch.arange(300) < kept).float().view(10, 30))
            parameters["weight_threshold"].fill_(0.5)
        attached.context.thresholds.update_(reset_below=0.01)
        found[path] = (attached.kept_counts().tolist(), int(attached.threshold_resets()))
    assert found["cpp"] == found["eager"] == ([300 if kept < 3 else kept], int(kept < 3))


def test_a_bfloat16_weight_is_computed_by_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, d_product = (tensor.bfloat16() for tensor in example("linear", "vector"))
    product, *_ = computed(w, t, d_product, "long_tailed")
    assert torch.equal(product, thresholds.product(w, t))


def test_thresholds_of_another_shape_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    with pytest.raises(RuntimeError, match=r"thresholds of shape \[3\] do not belong to a weight of shape \[4, 5\]"):
        MaskedWeight("long_tailed")(torch.randn(4, 5), torch.zeros(3))


def begin(cache: Path, **variables: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name != "CXX"}
    environment = {**kept, "XDG_CACHE_HOME": str(cache), **variables}
    command = [sys.executable, "-m", "methods.kernels"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def test_without_a_compiler_plain_operations_are_used_and_it_is_said(tmp_path: Path) -> None:
    """Where PATH is empty, and where CXX names what is not there."""
    reasons = {
        "no C++ compiler: install g++": {"PATH": ""},
        "CXX names '/nowhere/c++', which is not there: unset it": {"CXX": "/nowhere/c++"},
        "CXX names '', which is not there: unset it": {"CXX": ""},
    }
    begun = {reason: begin(tmp_path, **variables) for reason, variables in reasons.items()}
    for reason, process in begun.items():
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "masked weights on the CPU: eager\n")
        assert f"several times slower: the C++ operators cannot be built here ({reason})" in error


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"SPARSE_TRAINING_KERNELS": "cuda"},
            "SPARSE_TRAINING_KERNELS is 'cuda'; valid: eager, cpp, inductor, or unset",
        ),
        ({"SPARSE_TRAINING_KERNELS": "cpp", "CXX": "/nowhere/c++"}, "is 'cpp', but the C++ operators cannot be built"),
    ],
)
def test_a_path_asked_for_in_vain_is_one_line(variables: dict[str, str], line: str, tmp_path: Path) -> None:
    process = begin(tmp_path, **variables)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert line in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.rare
def test_a_library_that_is_damaged_is_built_again(tmp_path: Path) -> None:
    (tmp_path / "sparse-training-bench").mkdir()
    (tmp_path / "sparse-training-bench" / build.library().name).write_bytes(b"no library")
    out, error = begin(tmp_path, CXX=os.environ.get("CXX", "c++")).communicate(timeout=300)
    assert (out, "building the kernels" in error) == ("masked weights on the CPU: cpp\n", True), error


@pytest.mark.slow
@pytest.mark.rare
def test_a_build_that_was_killed_is_done_by_the_next_and_once(tmp_path: Path) -> None:
    killed = begin(tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*/*/build.ninja")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not list(tmp_path.rglob("*-*.so"))
    for process in [begin(tmp_path), begin(tmp_path)]:
        out, error = process.communicate(timeout=300)
        assert (process.returncode, out) == (0, "masked weights on the CPU: cpp\n"), error
    assert len(list(tmp_path.rglob("masked_weight-*.so"))) == 1


def test_the_path_is_the_devices_own_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.missing("cpp"):
        pytest.skip("no C++ compiler")
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    assert kernels.path.__wrapped__("cpu") == "cpp"
