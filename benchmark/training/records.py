"""What a cell records: its epochs, its steps where the spec asks for it, and its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from benchmark.training import measure
from benchmark.training.loop import Training


def epoch_record(training: Training) -> dict[str, Any]:
    """The epoch's measurements; only `diverged` where the loss or a weight is not finite."""
    loss = float(training.loss_sum) / training.epoch_examples
    record: dict[str, Any] = {
        "epoch": training.epoch,
        "step": training.steps_done,
        "train_loss": _finite(loss),
        "train_seconds": round(training.train_seconds, 3),
        "train_cpu_seconds": _rounded(training.train_cpu_seconds),
    }
    if not (math.isfinite(loss) and _finite_weights(training)):
        return {**record, "diverged": True}
    plain = measure.plain_copy(training.model)
    masks = training.attached.masks()
    kept = measure.kept(masks, plain)
    accuracy = measure.accuracy(plain, training.data, batch_size=_evaluation_batch(training))
    flips = sum(int((mask ^ training.epoch_masks[name]).sum()) for name, mask in masks.items())
    training.epoch_masks = masks
    return {
        **record,
        "lr": float(training.lr),
        "test_accuracy": accuracy.top1_percent,
        "test_top5_accuracy": accuracy.top5_percent,
        "test_loss": _finite(accuracy.loss),
        "density": kept.density,
        "nonzero_density": kept.nonzero_density,
        "threshold_resets": int(training.attached.threshold_resets()),
        "mask_flips": flips,
        **{f"density/{name}": kept.kept[name] / kept.weights[name] for name in kept.kept},
    }


def not_finite(training: Training) -> str:
    """What is not finite: the first weights of the model that are not, or the epoch's training loss."""
    for name, parameter in training.model.named_parameters():
        wrong = parameter.detach()[~parameter.detach().isfinite()]
        if len(wrong):
            return f"{name} has {len(wrong)} such values of {parameter.numel()}, the first {float(wrong[0])}"
    return f"the training loss is {float(training.loss_sum) / training.epoch_examples}"


def step_records(training: Training) -> list[dict[str, Any]]:
    """One record for each step of the epoch just done, if its steps were recorded.

    `masked/<parameter>` and `recovered/<parameter>`: weights that this step dropped and restored.
    """
    if not training.step_records:
        return []
    columns = {name: tensor.tolist() for name, tensor in training.step_records.items()}
    sizes = [mask.numel() for mask in training.epoch_masks.values()]
    first = (training.epoch - 1) * training.steps_per_epoch
    records = []
    for at, loss in enumerate(columns["loss"][: training.steps_done - first]):
        record = {"epoch": training.epoch, "step": first + at + 1, "train_loss": _finite(loss)}
        record["density"] = sum(columns["kept"][at]) / sum(sizes)
        for layer, name in enumerate(training.layer_names):
            record[f"density/{name}"] = columns["kept"][at][layer] / sizes[layer]
            record[f"masked/{name}"] = columns["masked"][at][layer]
            record[f"recovered/{name}"] = columns["recovered"][at][layer]
        records.append(record)
    return records


def result(training: Training, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The measured columns of a cell's row, from the trained network and its epoch records."""
    epochs = [record for record in records if "test_accuracy" in record]
    last = epochs[-1]
    best = max(epochs, key=lambda record: record["test_accuracy"])
    sparsest = min(epochs, key=lambda record: record["density"])
    plain = measure.plain_copy(training.model)
    masks = training.attached.masks()
    kept = measure.kept(masks, plain)
    weights = {name: dict(training.model.named_parameters())[name] for name in training.layer_names}
    return {
        "epochs": training.epoch,
        "test_accuracy": last["test_accuracy"],
        "test_top5_accuracy": last["test_top5_accuracy"],
        "best_test_accuracy": best["test_accuracy"],
        "density_at_best_test_accuracy": best["density"],
        "density": kept.density,
        "nonzero_density": kept.nonzero_density,
        "min_density": sparsest["density"],
        "test_accuracy_at_min_density": sparsest["test_accuracy"],
        "density_as_authors_count": measure.density_as_authors_count(masks, plain),
        "parameters_remaining": measure.parameters_remaining(plain, kept),
        "threshold_resets": last["threshold_resets"],
        "mask_flips": sum(record["mask_flips"] for record in epochs),
        **measure.ranges(weights, training.attached.thresholds()),
        **flops(training, plain),
        "train_seconds": round(training.train_seconds, 3),
        "train_cpu_seconds": _rounded(training.train_cpu_seconds),
    }


def layers(training: Training) -> dict[str, dict[str, int]]:
    """Weights and kept weights of each layer."""
    masks = training.attached.masks()
    return {name: {"weights": mask.numel(), "kept": int(mask.sum())} for name, mask in masks.items()}


def flops(training: Training, plain: nn.Module) -> dict[str, int]:
    """train_flops: over all steps, each at its own densities; inference_flops: of one example.

    A step costs twice the sparse forward pass (forward, input gradient), and the gradients of the
    weights that the method needs in that step. Layers outside the density are dense, and so is an
    example that weights were scored on. executed_flops: three dense passes of every example, because
    masked products are computed as dense ones.
    """
    dense = measure.forward_flops(plain, training.data.in_shape)
    examples, scored = training.examples, training.attached.scored_examples
    counted = zip(training.kept_examples.tolist(), training.gradient_examples.tolist(), strict=True)
    needed = dict(zip(training.layer_names, counted, strict=True))
    masks = training.attached.masks()
    train = inference = 0.0
    for name, forward in dense.items():
        train += 3 * forward * scored
        if name not in masks:
            train += 3 * forward * examples
            inference += forward
            continue
        size = masks[name].numel()
        kept, gradient = (forward * weights / size for weights in needed[name])
        train += 2 * kept + gradient
        inference += forward * int(masks[name].sum()) / size
    executed = 3 * sum(dense.values()) * (examples + scored)
    return {"train_flops": round(train), "inference_flops": round(inference), "executed_flops": executed}


def _evaluation_batch(training: Training) -> int:
    """A model that carries state between batches is evaluated in batches of the training's size."""
    carries = getattr(training.model, "carries", False)
    return training.spec.optimizer.batch_size if carries else measure.EVALUATION_BATCH


def _finite_weights(training: Training) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in training.model.parameters())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
