"""Measurements against numbers made by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import methods
import methods.registry
from benchmark import data, models
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell
from benchmark.training import measure, records
from benchmark.training.loop import Training, train_epoch
from methods.algorithms.static import Static
from methods.thresholds import aligned

DIGITS = Data(name="digits", train_limit=128, test_limit=100)


def model(name: str) -> nn.Module:
    return models.create(Model(name=name), in_shape=(1, 28, 28), classes=10, seed=0)


def trained(method: str, name: str = "lenet-300-100") -> Training:
    spec = cell(method, data=DIGITS, model=Model(name=name), optimizer=Optimizer(lr=0.05, momentum=0.9, batch_size=32))
    live = Training(spec, data.load(spec.data, data_dir=Path(), device=torch.device("cpu")))
    train_epoch(live, lambda: None)
    return live


def test_forward_flops_count_each_use_of_each_weight() -> None:
    assert measure.forward_flops(model("lenet-5-caffe"), (1, 28, 28)) == {
        "conv1.weight": 2 * 500 * 24 * 24,
        "conv2.weight": 2 * 25_000 * 8 * 8,
        "fc3.weight": 2 * 400_000,
        "fc4.weight": 2 * 5_000,
    }
    lstm = measure.forward_flops(model("lstm-a"), (1, 28, 28))
    assert lstm["lstm.weight_ih_l0"] == 2 * 28 * (4 * 128 * 28)
    assert lstm["classifier.weight"] == 2 * 1280


class Named(nn.GRU):
    """A layer of other people's that names its input otherwise."""

    def forward(self, steps: Any) -> Any:  # type: ignore[override]
        return super().forward(steps)


class Plugged(nn.Module):
    """Every other kind of layer that can be masked, called as other people's models call them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 8, 4, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 2, kdim=3, vdim=3, batch_first=True)
        self.both = nn.Bilinear(8, 8, 5)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.gru = Named(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.flatten(2).transpose(1, 2)  # [b, 16, 3] of 4x4 pixels
        up = self.grouped(self.up(x)).flatten(2).transpose(1, 2)  # [b, 64, 8]
        own, _ = self.attention(query=up, key=up, value=up, need_weights=False)
        crossed, _ = self.cross(own, pixels, value=pixels)
        both: torch.Tensor = self.both(input1=crossed, input2=self.encoder(own))
        steps, _ = self.gru(nn.utils.rnn.pack_sequence(list(own)))
        return both.mean() + steps.data.mean()


def test_forward_flops_of_layers_that_are_called_otherwise() -> None:
    """64 tokens, 16 keys; a transposed convolution uses each weight at each of the 16 input pixels."""
    network = Plugged().eval()
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    found = measure.forward_flops(network, (3, 4, 4))
    for name in ("attention.in_proj_weight", "encoder.self_attn.in_proj_weight"):
        assert found[name] == 2 * sizes[name] * 64
    uses = {"up.weight": 16, "grouped.weight": 64, "both.weight": 64, "encoder.linear1.weight": 64}
    uses |= {
        "cross.q_proj_weight": 64,
        "cross.k_proj_weight": 16,
        "cross.v_proj_weight": 16,
        "cross.out_proj.weight": 64,
    }
    uses |= {"gru.weight_ih_l0": 64, "gru.weight_hh_l0": 64}
    assert {name: found[name] for name in uses} == {name: 2 * sizes[name] * n for name, n in uses.items()}
    with FlopCounterMode(display=False) as counter:
        network.grouped(network.up(torch.zeros(1, 3, 4, 4)))
    assert counter.get_total_flops() == found["up.weight"] + found["grouped.weight"]


def test_a_registered_layer_counts_each_output_unit_at_each_position() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(6, 5))  # [inputs, outputs]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.kernel

    methods.register_layer(Transposed, "kernel", output_axis=1)
    assert measure.forward_flops(nn.Sequential(Transposed()), (7, 6)) == {"0.kernel": 2 * 6 * 5 * 7}


def test_train_flops_of_a_static_network_are_three_sparse_passes() -> None:
    live = trained("static")
    dense = measure.forward_flops(measure.plain_copy(live.model), (1, 28, 28))
    share = {name: float(mask.sum()) / mask.numel() for name, mask in live.attached.masks().items()}
    expected = 3 * 128 * sum(dense[name] * share[name] for name in dense)
    assert records.flops(live, measure.plain_copy(live.model))["train_flops"] == pytest.approx(expected)


def test_train_flops_of_trainable_thresholds_have_a_dense_weight_gradient() -> None:
    live = trained("dst")
    dense = sum(measure.forward_flops(measure.plain_copy(live.model), (1, 28, 28)).values())
    flops = records.flops(live, measure.plain_copy(live.model))["train_flops"]
    assert 128 * dense < flops <= 3 * 128 * dense


FC1, FC2, FC3 = 784 * 300, 300 * 100, 100 * 10  # weights of lenet-300-100
EXAMPLES = 128


@pytest.mark.parametrize("method", ["dense", "static", "set", "dst"])
def test_executed_flops_are_three_dense_passes_whatever_the_density(method: str) -> None:
    live = trained(method)
    flops = records.flops(live, measure.plain_copy(live.model))
    assert flops["executed_flops"] == 3 * 2 * (FC1 + FC2 + FC3) * EXAMPLES
    if method == "dense":
        assert flops["train_flops"] == flops["executed_flops"]


def test_uncounted_layers_are_executed_too() -> None:
    live = trained("static", "lstm-a")
    cells, classifier = 28 * (4 * 128 * 28 + 3 * 4 * 128 * 128), 1280
    flops = records.flops(live, measure.plain_copy(live.model))
    assert flops["executed_flops"] == 3 * 2 * (cells + classifier) * EXAMPLES


@dataclass(kw_only=True)
class NowAndThen(Static):
    """Needs dense gradients in every third step, and scores weights on 24 examples at the start."""

    name = "now_and_then"

    def enter_phase(self, ctx: methods.Context) -> None:
        super().enter_phase(ctx)
        ctx.scored_examples += 24

    def dense_gradient(self, ctx: methods.Context) -> bool:
        return (ctx.step + 1) % 3 == 0


@dataclass(kw_only=True)
class Superset(Static):
    """Needs the gradients of twice as many weights as it keeps."""

    name = "superset"

    def gradient_counts(self, ctx: methods.Context) -> torch.Tensor:
        return 2 * ctx.masks.kept_counts()


@pytest.fixture
def registered() -> Iterator[None]:
    with methods.registry.temporary():
        for cls in (NowAndThen, Superset):
            methods.register(cls.name, f"{__name__}:{cls.__name__}")
        yield


@pytest.mark.usefixtures("registered")
def test_steps_with_a_dense_gradient_and_scored_examples_are_counted() -> None:
    """Four steps of 32 examples, of which the third needs dense gradients."""
    live = trained("now_and_then")
    kept = sum(live.attached.kept_counts().tolist())
    assert kept == round(0.05 * (FC1 + FC2 + FC3))
    flops = records.flops(live, measure.plain_copy(live.model))
    dense = FC1 + FC2 + FC3
    by_hand = 2 * (2 * kept * 128 + kept * 3 * 32 + dense * 32 + 3 * dense * 24)
    assert flops["train_flops"] == by_hand
    assert flops["executed_flops"] == 3 * 2 * dense * (EXAMPLES + 24)


@pytest.mark.usefixtures("registered")
def test_a_method_that_needs_more_gradients_than_it_keeps_pays_for_them() -> None:
    live = trained("superset")
    kept = sum(live.attached.kept_counts().tolist())
    assert records.flops(live, measure.plain_copy(live.model))["train_flops"] == 2 * kept * (2 + 2) * EXAMPLES


@pytest.mark.parametrize("method", ["set", "dst", "sparse_momentum"])
def test_a_checkpoint_from_before_gradients_were_counted_gives_the_same_flops(method: str) -> None:
    live = trained(method)
    state = copy.deepcopy(live.state_dict())
    del state["gradient_examples"]
    again = trained(method)
    again.gradient_examples.zero_()
    again.load_state_dict(state)
    assert torch.equal(again.gradient_examples, live.gradient_examples)
    assert records.flops(again, measure.plain_copy(again.model)) == records.flops(live, measure.plain_copy(live.model))


def test_accuracy_equals_one_pass_over_all_test_examples() -> None:
    live = trained("dst")
    plain = measure.plain_copy(live.model)
    logits = plain(live.data.test.images / 255)
    top5 = (logits.topk(5).indices == live.data.test.labels[:, None]).any(1)
    found = measure.accuracy(plain, live.data, batch_size=7)
    assert found.top1_percent == pytest.approx(100 * float((logits.argmax(1) == live.data.test.labels).float().mean()))
    assert found.top5_percent == pytest.approx(100 * float(top5.float().mean()))


def test_measuring_leaves_the_training_as_it_was() -> None:
    live = trained("dst", "lstm-a")
    before = {name: value.clone() for name, value in live.model.state_dict().items()}
    records.epoch_record(live)
    assert live.model.training
    for name, value in live.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_kept_counts_come_from_masks_and_nonzero_counts_from_weights() -> None:
    live = trained("set")
    plain = measure.plain_copy(live.model)
    kept = measure.kept(live.attached.masks(), plain)
    assert sum(kept.kept.values()) == round(0.05 * 266_200)
    values = torch.cat([plain.get_parameter(name).flatten() for name in kept.kept])
    assert kept.nonzero == int((values != 0).sum())


def test_parameters_remaining_counts_biases_and_drops_masked_weights() -> None:
    live = trained("static")
    plain = measure.plain_copy(live.model)
    kept = measure.kept(live.attached.masks(), plain)
    assert measure.parameters_remaining(plain, kept) == round(0.05 * 266_200) + 410


def test_the_authors_count_replaces_the_output_gates_mask_by_its_weights() -> None:
    # gates along the first axis: i f g o, one unit each; two inputs; the o row keeps 0.5 and drops 0.01
    lstm = nn.Sequential(nn.LSTM(2, 1, bias=False))
    with torch.no_grad():
        lstm[0].weight_ih_l0.copy_(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.5, 0.0]]))
        lstm[0].weight_hh_l0.copy_(torch.tensor([[1.0], [1.0], [0.0], [-0.25]]))
    masks = {name: value != 0 for name, value in lstm.named_parameters()}
    # 2 + 1 + 0 kept in i f g and 0.5 in place of 1; 1 + 1 + 0 and -0.25 in place of 1; 12 weights
    assert measure.density_as_authors_count(masks, lstm) == pytest.approx((3 + 0.5 + 2 - 0.25) / 12)


def test_the_authors_count_is_the_density_of_feed_forward_networks() -> None:
    live = trained("dst")
    plain, masks = measure.plain_copy(live.model), live.attached.masks()
    assert measure.density_as_authors_count(masks, plain) == pytest.approx(measure.kept(masks, plain).density)


def test_a_result_reports_last_best_and_sparsest_epoch() -> None:
    live = trained("dst")
    last = records.epoch_record(live)
    best = {**last, "epoch": 0, "test_accuracy": 99.5, "density": 0.7, "mask_flips": 3}
    sparsest = {**last, "epoch": 0, "test_accuracy": 1.0, "density": 0.001, "mask_flips": 4}
    row = records.result(live, [best, sparsest, last])
    assert (row["best_test_accuracy"], row["density_at_best_test_accuracy"]) == (99.5, 0.7)
    assert (row["min_density"], row["test_accuracy_at_min_density"]) == (0.001, 1.0)
    assert (row["test_accuracy"], row["density"]) == (last["test_accuracy"], last["density"])
    assert row["mask_flips"] == 7 + last["mask_flips"]


def test_uncounted_layers_are_left_out_of_the_density() -> None:
    live = trained("static", "lstm-a")
    assert "classifier.weight" not in live.attached.masks()
    assert methods.finalize(live.model) is live.model


def test_ranges_are_those_of_weights_thresholds_and_their_distance() -> None:
    """Two rows: |W| is 0.5, 2 and 0.25, 1; t is 0.75 and -0.5; so Q is -0.25, 1.25 and 0.75, 1.5."""
    weights = {"a": torch.tensor([[0.5, -2.0], [-0.25, 1.0]]), "b": torch.tensor([[0.125]])}
    found = measure.ranges(weights, {"a": torch.tensor([0.75, -0.5])})
    assert found == {
        "weight_max": 2.0, "threshold_min": -0.5, "threshold_max": 0.75, "threshold_share_in_0_1": 0.5,
        "q_min": -0.25, "q_max": 1.5,
    }  # fmt: skip
    dense = measure.ranges(weights, {})
    assert dense["weight_max"] == 2.0
    assert {value for name, value in dense.items() if name != "weight_max"} == {None}


@pytest.mark.parametrize("name", ["lenet-5-caffe", "lstm-a"])
def test_ranges_of_a_trained_network_are_between_their_bounds(name: str) -> None:
    live = trained("dst", name)
    weights = {key: dict(live.model.named_parameters())[key] for key in live.layer_names}
    found = measure.ranges(weights, live.attached.thresholds())
    kept = {
        key: int((weights[key].abs() > aligned(t, weights[key])).sum()) for key, t in live.attached.thresholds().items()
    }
    assert kept == {key: int(mask.sum()) for key, mask in live.attached.masks().items()}, "Q > 0 is the mask"
    assert found["q_max"] <= found["weight_max"] - found["threshold_min"] + 1e-6
