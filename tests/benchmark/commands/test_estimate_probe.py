"""The probe of a cell that was never measured: pixels that its model takes, few where each takes long."""

from __future__ import annotations

import pytest

import methods
from benchmark import data
from benchmark.commands.estimate import Estimate, key, probe, probe_size
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError
from benchmark.suites import cell
from methods import Context, Method, registry


class Breaks(Method):
    name, version, reference, density_promise = "breaks", 1, "none", "dense"

    def after_step(self, ctx: Context) -> None:
        raise RuntimeError("no luck")


def spec(model: str, batch_size: int = 64, **fields: object) -> RunSpec:
    return cell("dense", data=Data(**fields), model=Model(name=model), optimizer=Optimizer(batch_size=batch_size))


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (spec("lenet-5-caffe", name="mnist"), (None, 64)),
        (spec("lstm-a", 100, name="synthetic", shape=(1, 8, 8)), ((1, 8, 8), 100)),
        (spec("vgg16", name="cifar10"), ((3, 32, 32), 8)),
        (spec("vgg16", 4, name="cifar10"), ((3, 32, 32), 4)),
        (spec("resnet50", 1024, name="imagenet"), ((3, 224, 224), 2)),
        (spec("resnet50", 1024, name="imagenet", image_size=64), ((3, 64, 64), 2)),
    ],
)
def test_a_probe_has_the_shape_of_the_data_and_a_batch_to_match(of: RunSpec, expected: object) -> None:
    assert probe_size(of) == expected


def test_an_epoch_of_the_whole_data_set_is_estimated() -> None:
    estimate, whole = Estimate(), spec("wrn-22-2", name="cifar10")
    part = spec("wrn-22-2", name="cifar10", train_limit=500)
    probe(estimate, [whole])
    seconds = estimate.epoch_seconds(key(whole))
    assert seconds is not None
    assert seconds > 10
    shorter = Estimate()
    probe(shorter, [part])
    assert (shorter.epoch_seconds(key(part)) or 0) < seconds / 10


def test_cells_on_a_data_set_from_outside_are_not_timed() -> None:
    estimate = Estimate()
    with data.plug_ins.temporary():
        data.register("their_data", "no_such_module:read")
        theirs = spec("lenet-300-100", name="their_data")
        probe(estimate, [theirs])
    assert not estimate.knows(theirs)


def test_a_method_that_breaks_is_named_in_one_line() -> None:
    with registry.temporary():
        methods.register("breaks", f"{__name__}:Breaks")
        broken = cell("breaks", data=Data(name="mnist"), model=Model(name="lenet-300-100"), optimizer=Optimizer())
        with pytest.raises(SpecError, match="--probe cannot time lenet-300-100 breaks seed=0: RuntimeError: no luck"):
            probe(Estimate(), [broken])
