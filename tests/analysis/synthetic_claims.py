"""Made-up worlds for the paper's claims: one of the paper's own numbers, and one where every claim fails.

In the first, cells have the means and deviations that Tables 1 to 3 and section 5.2 print; what the
paper says only in words is as it says. A printed number without a deviation has the same value in
every seed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import synthetic

from analysis.paper import printed
from analysis.paper.printed import Target

SEEDS = (0, 1, 2, 3, 4)
SHIFTS = (-1.2, -0.5, 0.1, 0.4, 1.2)  # of the seeds, scaled to mean 0 and deviation 1
Row = dict[str, Any]
LENET = {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000}
WRN = [f"group1.{block}.conv{i}.weight" for block in range(3) for i in (1, 2)] + ["fc.weight"]
CIFAR = ("vgg16", "wrn-16-8", "wrn-28-8", "wrn-16-10")
SECTIONS = {
    "mnist": {"optimizer": {"momentum": 0.9}},
    "cifar10": {"optimizer": {"momentum": 0.9, "weight_decay": 1e-4}},
    "imagenet": {"optimizer": {"momentum": 0.9, "weight_decay": 1e-4}},
}


def write(
    folder: Path, *, holds: bool, datasets: Sequence[str] = ("mnist", "cifar10", "imagenet"), loses: bool = False,
    seeds: Sequence[int] = SEEDS,
) -> Path:  # fmt: skip
    """results.csv, traces.csv and layers.csv of the world, or of its part with these data sets and seeds.

    loses: where the claims fail, every sparse network on CIFAR-10 loses a point. Otherwise those
    below 5 % do not, against another claim.
    """
    every = [*mnist(holds), *cifar(holds, loses), *imagenet(holds), *shapes(holds), *without_reset(holds)]
    cells = [row for row in every if row["dataset"] in datasets and row["seed"] in seeds]
    folder.mkdir(parents=True, exist_ok=True)
    synthetic.save(folder / "results.csv", synthetic.COLUMNS, cells)
    traced = [line for row in cells for line in traces(row, holds)]
    synthetic.save(folder / "traces.csv", ("run_id", "epoch", "step", "name", "value"), traced)
    synthetic.save(
        folder / "layers.csv",
        ("run_id", "parameter", "weights", "kept"),
        [line for row in cells if row["status"] == "done" for line in layers(row, holds)],
    )
    return folder


def values(mean: float, deviation: float | None = None) -> list[float]:
    """One for each seed, with exactly this mean and sample deviation."""
    spread = statistics.stdev(SHIFTS)
    middle = statistics.fmean(SHIFTS)
    return [mean + (deviation or 0.0) * (shift - middle) / spread for shift in SHIFTS]


def cell(
    model: str, method: str, seed: int, dataset: str, *, accuracy: float, kept: float = 1.0, holds: bool = True,
    top5: float | None = None, status: str = "done", **given: Any,
) -> Row:  # fmt: skip
    """A row with the same numbers at all three readings, and ranges of weights as A.3 has them, or not."""
    protocol = "paper;official" if dataset == "mnist" else "paper"
    epochs = {"mnist": 20, "cifar10": 160, "imagenet": 90}[dataset]
    given = {"lr": 0.01 if dataset == "mnist" else 0.1, "epochs": epochs, "protocol": protocol, **given}
    row = synthetic.cell(
        model, method, seed, dataset=dataset, status=status, accuracy=accuracy, best=accuracy, kept=kept,
        kept_best=kept, sections=SECTIONS[dataset], **given,
    )  # fmt: skip
    if status != "done":
        return row
    row |= {"test_top5_accuracy": "" if top5 is None else top5}
    if method != "dst":
        return row
    low, high, share, largest = (0.0, 0.9, 0.99, 0.95) if holds else (-0.3, 1.2, 0.5, 1.5)
    return row | {
        "min_density": kept, "test_accuracy_at_min_density": accuracy, "threshold_min": low, "threshold_max": high,
        "threshold_share_in_0_1": share, "weight_max": largest, "q_min": -high, "q_max": largest - 0.01,
    }  # fmt: skip


def mnist(holds: bool) -> Iterator[Row]:
    """Table 1 at the stated alphas, and sparser and denser networks at half of them and twice."""
    for target in printed.targets("table1"):
        dense, sparse = values(*_dense(target)), values(*_sparse(target))
        kept = [share / 100 for share in values(target.density_percent or 0, target.density_std)]
        for seed in SEEDS:
            yield cell(target.model, "dense", seed, "mnist", accuracy=dense[seed])
            for factor, times in ((0.5, 3.0), (1, 1.0), (2, 0.5)):
                accuracy = sparse[seed] - (0.3 if factor == 2 else 0) if holds else dense[seed] - 3 + seed / 100
                share = kept[seed] * (times if holds else 0.25 / times)
                yield cell(
                    target.model, "dst", seed, "mnist", alpha=(target.alpha or 0) * factor, accuracy=accuracy,
                    kept=share, holds=holds,
                )  # fmt: skip


def cifar(holds: bool, loses: bool = False) -> Iterator[Row]:
    """Table 2, Figure 6, and the networks and alphas that section 4.2 and the appendix add."""
    targets = [t for t in printed.targets("table2") if t.method == "dst"]
    for model in CIFAR:
        own = [t for t in targets if t.model == model] or [t for t in targets if t.model == "wrn-16-8"]
        yield from _ladder(model, own, holds, loses)
        for target in (t for t in printed.targets("table2") if (t.model, t.origin) == (model, "quoted")):
            for seed, accuracy in zip(SEEDS, values(*_sparse(target)), strict=True):
                density = (target.density_percent or 0) / 100
                raised = accuracy + (0 if holds else 3)
                yield cell(model, target.method, seed, "cifar10", density=density, kept=density, accuracy=raised)
    (slow,) = printed.targets("figure6")
    dense, sparse = values(*_dense(slow)), values(*_sparse(slow))
    for seed in SEEDS:
        kept = (slow.density_percent or 0) / 100 * (1 if holds else 3)
        lower = sparse[seed] if holds else dense[seed] - 0.1
        yield cell("vgg16", "dense", seed, "cifar10", lr=0.01, accuracy=dense[seed])
        yield cell(
            "vgg16", "dst", seed, "cifar10", lr=0.01, alpha=5e-6, accuracy=lower, kept=kept, holds=holds
        )  # fmt: skip


def _ladder(model: str, targets: Sequence[Target], holds: bool, loses: bool) -> Iterator[Row]:
    """Dense, and DST at four alphas; the second and the fourth are the rows of Table 2.

    Where the claims fail, density rises with alpha, and every network loses 0.1 points below 5 %
    and a point above it.
    """
    about_ten, about_five = targets
    dense = values(*_dense(about_ten))
    for seed in SEEDS:
        yield cell(model, "dense", seed, "cifar10", accuracy=dense[seed])
        between = (about_ten.sparse or 0) - 0.2
        rungs = {
            1e-6: ((about_ten.sparse or 0, 0.01), (20.0, 0.2)),
            5e-6: (_sparse(about_ten), (about_ten.density_percent or 0, about_ten.density_std)),
            1e-5: ((between, 0.01), (6.5, 0.1)),
            5e-5: (_sparse(about_five), (about_five.density_percent or 0, about_five.density_std)),
        }
        little = 1.0 if loses else 0.1
        if not holds:
            rungs = {
                1e-6: ((dense[seed] - little, None), (2.0, 0.02)), 5e-6: ((dense[seed] - little, None), (3.0, 0.03)),
                1e-5: ((dense[seed] - 1.0, None), (6.0, 0.06)), 5e-5: ((dense[seed] - 1.0, None), (7.0, 0.07)),
            }  # fmt: skip
        for alpha, (accuracy, share) in rungs.items():
            yield cell(
                model, "dst", seed, "cifar10", alpha=alpha, accuracy=values(*accuracy)[seed],
                kept=values(*share)[seed] / 100, holds=holds,
            )  # fmt: skip


def imagenet(holds: bool) -> Iterator[Row]:
    """Table 3, with an alpha for each of the two densities."""
    lines: dict[tuple[str, float], dict[str, Target]] = {}
    for target in printed.targets("table3"):
        lines.setdefault((target.method, target.density_percent or 0), {})[target.metric] = target
    for (method, percent), metrics in lines.items():
        top1, top5 = (values(*_sparse(metrics[metric])) for metric in ("top1", "top5"))
        chosen = {"alpha": 1e-5 if percent > 15 else 5e-5} if method == "dst" else {"density": percent / 100}
        lower = 0 if holds or method != "dst" else 5
        for seed in SEEDS:
            yield cell(
                "resnet50", method, seed, "imagenet", accuracy=top1[seed] - lower, top5=top5[seed] - lower,
                kept=percent / 100, holds=holds, **chosen,
            )  # fmt: skip


def shapes(holds: bool) -> Iterator[Row]:
    """Scalars and matrices beside the vectors of lenet-300-100 at 5e-4."""
    target = printed.targets("table1")[0]
    vector = [share / 100 for share in values(target.density_percent or 0, target.density_std)]
    kept = {
        "scalar": [share * factor for share, factor in zip(vector, (0.5, 0.8, 1, 1.2, 1.6), strict=True)]
        if holds
        else [0.006] * 5,
        "matrix": [share * (1.05 if holds else 2.0) for share in vector],
    }
    for shape, shares in kept.items():
        for seed, share in zip(SEEDS, shares, strict=True):
            yield cell(
                "lenet-300-100", "dst", seed, "mnist", alpha=5e-4, threshold=shape, accuracy=97.0, kept=share
            )  # fmt: skip


def without_reset(holds: bool) -> Iterator[Row]:
    """LeNet-5-Caffe at the three alphas: two diverge without the reset; where the claim fails, none does."""
    for seed in SEEDS:
        for factor in (0.5, 1, 2):
            status = "diverged" if holds and factor > 0.5 else "done"
            yield cell(
                "lenet-5-caffe", "dst", seed, "mnist", alpha=5e-4 * factor, reset_density=None, accuracy=97.0,
                kept=0.05, status=status,
            )  # fmt: skip


def traces(row: Row, holds: bool) -> Iterator[Row]:
    if row["status"] != "done":
        return
    method, model = synthetic.method_of(row), row["model"]
    if model == "lenet-300-100" and row["alpha"] in ("", 5e-4) and method.get("threshold", "vector") == "vector":
        yield from _lines(row, 20, lambda epoch: _lenet(row, epoch, holds))
        if row["method"] == "dst":
            yield from _steps(row, holds)
    if model == "vgg16" and row["alpha"] in ("", 5e-6) and row["method"] in ("dense", "dst"):
        rate = json.loads(row["spec"])["optimizer"]["lr"]
        yield from _lines(row, 160, lambda epoch: _vgg(row, epoch, rate, holds))
    if model.startswith("wrn") and row["alpha"] == 1e-5:
        yield from _lines(row, 160, lambda epoch: _wrn(epoch, holds))


def layers(row: Row, holds: bool) -> list[Row]:
    if row["model"] == "vgg16":
        low, high = (0.5, 1.5) if holds else (1.5, 0.5)
        sparse = {*(f"conv{i}.weight" for i in range(10, 14)), "fc1.weight"}
        factor = {name: low if name in sparse else high for name in synthetic.VGG}
        weights = dict.fromkeys(synthetic.VGG, 100_000)
    elif row["model"].startswith("wrn"):
        factor, weights = dict.fromkeys(WRN, 1.0), dict.fromkeys(WRN, 100_000)
    else:
        factor = dict.fromkeys(LENET, 1.0 if holds or synthetic.method_of(row).get("reset_density") is None else 0.0)
        weights = LENET
    if row["dataset"] == "cifar10":
        factor = {name: value * _order(row, i, holds) for i, (name, value) in enumerate(factor.items())}
    return [
        {"run_id": row["run_id"], "parameter": name, "weights": count,
         "kept": int(count * min(1.0, row["density"] * (factor[name] if row["method"] == "dst" else 1)))}
        for name, count in weights.items()
    ]  # fmt: skip


def _order(row: Row, position: int, holds: bool) -> float:
    """Small differences between layers: in one order at every alpha; where the claim fails, turned round."""
    turned = not holds and row["alpha"] in (5e-6, 5e-5)
    return 1 + (-position if turned else position) / 100


def _lenet(row: Row, epoch: int, holds: bool) -> dict[str, float]:
    """Dense and sparse within a few hundredths until the last epoch, which has the row's accuracy."""
    if row["method"] == "dense":
        return {"test_accuracy": row["test_accuracy"]}
    if holds:
        first, second, third = (0.5 if epoch < 3 else 0.09 - epoch / 1000), 0.7 - epoch / 50, 1.0
    else:
        first, second, third = 0.4 + epoch / 90, 0.1 + epoch / 90, 0.5
    named = zip(LENET, (first, second, third), strict=True)
    ratios = {f"density/{name}": value for name, value in named}
    dense = values(*_dense(printed.targets("table1")[0]))[row["seed"]]
    close = dense - 0.05 + row["seed"] / 100 if holds and epoch < 20 else row["test_accuracy"]
    return {**ratios, "density": first, "test_accuracy": close}


def _steps(row: Row, holds: bool) -> Iterator[Row]:
    for step in range(1, 101):
        yield {"run_id": row["run_id"], "epoch": 1, "step": step, "name": "density", "value": 0.9}
        for name in LENET:
            moved = {
                f"density/{name}": 0.9 + 0.01 * (step % 2) - step / 1000 if holds else 0.9 - step / 1000,
                f"masked/{name}": 5,
                f"recovered/{name}": 3 if holds else 0,
            }
            for key, value in moved.items():
                yield {"run_id": row["run_id"], "epoch": 1, "step": step, "name": key, "value": value}


def _vgg(row: Row, epoch: int, lr: float, holds: bool) -> dict[str, float]:
    before = epoch <= 80
    if row["method"] == "dense":
        return {"test_accuracy": 80.0 if before else 92.0}
    if lr == 0.1:
        accuracy, last = (85.0 if before else 93.0), (0.1 if before else 1.0)
    else:
        accuracy, last = (90.2 if before else 92.2), (0.5 if epoch < 40 else 1.0)
    earlier = {f"density/{name}": 0.2 if holds else 0.6 - epoch / 400 for name in synthetic.VGG[:-1]}
    never_low = 1.0 if lr == 0.1 and not before else 0.6
    final = {"density/fc2.weight": last if holds else never_low, "test_accuracy": accuracy if holds else 70.0}
    return {"density": 0.2, **earlier, **final}


def _wrn(epoch: int, holds: bool) -> dict[str, float]:
    falling = 1 / (1 + epoch / 10)
    convolutions = {f"density/{name}": falling if holds else 1 - falling for name in WRN[:-1]}
    return {"density": falling, **convolutions, "density/fc.weight": 0.9 if holds else 0.01, "test_accuracy": 90.0}


def _lines(row: Row, epochs: int, recorded: Any) -> Iterator[Row]:
    for epoch in range(1, epochs + 1):
        for name, value in recorded(epoch).items():
            yield {"run_id": row["run_id"], "epoch": epoch, "step": "", "name": name, "value": value}


def _dense(target: Target) -> tuple[float, float | None]:
    return target.dense or math.nan, target.dense_std


def _sparse(target: Target) -> tuple[float, float | None]:
    return target.sparse or math.nan, target.sparse_std
