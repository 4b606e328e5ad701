"""Loops that other libraries own: Lightning, transformers' Trainer, accelerate. The blocks are those of the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, check_sparse, library, sgd
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import methods

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).resolve().parents[2] / "docs/other-libraries.md").read_text()
X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
OPTIONS: dict[str, Any] = {
    "set": {"density": 0.3, "update_every": 2},
    "dst": {"alpha": 1e-2},
    "sparse_momentum": {"density": 0.3, "update_every": 2},
}


def block(heading: str, **names: Any) -> dict[str, Any]:
    """The names that the page's first block under a heading defines."""
    found = re.search(rf"^## {re.escape(heading)}\n.*?```python\n(.*?)```", PAGE, re.M | re.S)
    assert found is not None
    defined: dict[str, Any] = {"torch": torch, "F": F, "methods": methods, **names}
    exec(found[1], defined)
    return defined


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def batches() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(X, Y), batch_size=8)


def in_a_loop_of_ones_own(method: str, steps: int) -> nn.Module:
    model = network()
    attached = methods.attach(model, method, total_steps=8, steps_per_epoch=4, **OPTIONS[method])
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    while attached.context.step < steps:
        for x, y in batches():
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) + attached.penalty()).backward()
            attached.step()
    return model


def lightning_module(method: str, base: str = "Sparse") -> Any:
    defined = block("Lightning", lightning=library("lightning"))

    class Manual(defined["Sparse"]):  # type: ignore[misc]
        """As the page says for manual optimization."""

        automatic_optimization = False
        optimizer_step = library("lightning").LightningModule.optimizer_step

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.optimizers().zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            self.attached.step(lambda _: self.optimizers().step())

    kind = Manual if base == "Manual" else defined["Sparse"]
    return kind(network(), method, total_steps=8, steps_per_epoch=4, **OPTIONS[method])


def fit(module: Any, folder: Path, epochs: int, **options: Any) -> Any:
    trainer = library("lightning").Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options.pop("trainer", {}),
    )
    trainer.fit(module, batches(), **options)
    return trainer


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("base", ["Sparse", "Manual"])
@pytest.mark.parametrize("method", OPTIONS)
def test_lightning_trains_as_a_loop_of_ones_own(method: str, base: str, tmp_path: Path) -> None:
    module = lightning_module(method, base)
    trainer = fit(module, tmp_path, epochs=2)
    assert trainer.global_step == module.attached.context.step == 8
    assert same(module.network, in_a_loop_of_ones_own(method, 8))
    check_sparse(module.network, module.attached)


@pytest.mark.parametrize("method", OPTIONS)
def test_lightning_resumes_bit_by_bit(method: str, tmp_path: Path) -> None:
    first = lightning_module(method)
    fit(first, tmp_path, epochs=1).save_checkpoint(tmp_path / "one.ckpt")
    resumed = lightning_module(method)
    fit(resumed, tmp_path, epochs=2, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert resumed.attached.context.step == 8
    assert same(resumed.network, in_a_loop_of_ones_own(method, 8))


@pytest.mark.parametrize("method", ["set", "dst"])
def test_lightning_validates_its_average_sparse(method: str, tmp_path: Path) -> None:
    """The callback swaps weights through `.data`; apply_masks is what the page says to call."""
    callbacks = library("lightning.pytorch.callbacks")
    module, seen = lightning_module(method), []

    def on_validation_epoch_start() -> None:
        module.attached.apply_masks()

    def validation_step(batch: Any, batch_idx: int) -> None:
        module.network(batch[0])
        check_sparse(module.network, module.attached)
        seen.append(batch_idx)

    module.on_validation_epoch_start, module.validation_step = on_validation_epoch_start, validation_step
    average = callbacks.EMAWeightAveraging(decay=0.9, update_starting_at_step=1)
    fit(module, tmp_path, 2, val_dataloaders=batches(), trainer={"callbacks": [average], "num_sanity_val_steps": 0})
    assert len(seen) == 8


def test_lightning_accumulates_gradients(tmp_path: Path) -> None:
    module = lightning_module("set")
    fit(module, tmp_path, epochs=2, trainer={"accumulate_grad_batches": 4})
    assert module.attached.context.step == 2


@pytest.mark.parametrize("method", OPTIONS)
def test_an_optimizer_that_steps_the_method_trains_as_a_loop_of_ones_own(method: str) -> None:
    model = network()
    attached = methods.attach(model, method, total_steps=8, steps_per_epoch=4, **OPTIONS[method])
    optimizer = block("Loops that call optimizer.step()")["SparseSGD"](attached, lr=0.1, momentum=0.9)
    for x, y in [*batches(), *batches()]:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) + attached.penalty()
            loss.backward()
            return loss

        assert optimizer.step(closure) > 0
    assert attached.context.step == 8
    assert same(model, in_a_loop_of_ones_own(method, 8))


def test_the_trainer_of_transformers_moves_weights(tmp_path: Path) -> None:
    transformers = library("transformers")

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.network(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    model = Classifier()
    attached = methods.attach(model, "set", total_steps=4, steps_per_epoch=2, density=0.3)
    before = attached.masks()
    optimizer = block("Loops that call optimizer.step()")["SparseSGD"](attached, lr=0.1, momentum=0.9)
    options = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    transformers.Trainer(model, options, train_dataset=rows, optimizers=(optimizer, None)).train()
    assert attached.context.step == 4
    assert any(not torch.equal(mask, before[name]) for name, mask in attached.masks().items())
    check_sparse(model, attached)


@pytest.mark.parametrize("method", OPTIONS)
def test_accelerate_accumulates_gradients(method: str) -> None:
    accelerate = library("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = network()
    attached = attach(model, method, steps=10)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(attached.parameter_groups(), 0.1, 0.9))
    attached.bind(optimizer)
    for _ in range(16):
        with accelerator.accumulate(prepared):
            before = attached.masks() if method != "dst" else {}
            accelerator.backward(F.cross_entropy(prepared(X), Y) + attached.penalty())
            attached.step()
            if not accelerator.sync_gradients:
                assert all(torch.equal(mask, attached.masks()[name]) for name, mask in before.items())
            optimizer.zero_grad()
    assert attached.context.step == 4
    check_sparse(model, attached)


class ReadsGradients(methods.Method):
    name, version, reference, density_promise = "reads_gradients", 1, "none", "dense"

    def after_backward(self, ctx: methods.Context) -> bool:
        return True


def test_accelerate_refuses_a_method_that_reads_gradients() -> None:
    """Its wrapper does not say whether gradients are complete."""
    accelerate = library("accelerate")
    attached = methods.attach(network(), ReadsGradients(), total_steps=4, steps_per_epoch=2)
    optimizer = accelerate.Accelerator(cpu=True).prepare(torch.optim.SGD(attached.parameter_groups(), 0.1, 0.9))
    with pytest.raises(ValueError, match="wraps an optimizer that may not step: bind the optimizer itself"):
        attached.bind(optimizer)


def test_accelerate_saves_and_loads_what_it_registers(tmp_path: Path) -> None:
    """The attachment has state_dict and load_state_dict, which is all that register_for_checkpointing asks for."""
    accelerate = library("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = network()
    attached = attach(model, "set", steps=8)
    accelerator.register_for_checkpointing(attached)
    prepared, optimizer = accelerator.prepare(model, sgd(attached))
    for _ in range(3):
        accelerator.backward(F.cross_entropy(prepared(X), Y))
        attached.step()
        optimizer.zero_grad()
    accelerator.save_state(str(tmp_path))
    expected, masks = prepared(X), attached.masks()
    for _ in range(3):
        accelerator.backward(F.cross_entropy(prepared(X), Y))
        attached.step()
        optimizer.zero_grad()
    accelerator.load_state(str(tmp_path))
    assert attached.context.step == 3
    assert all(torch.equal(mask, masks[name]) for name, mask in attached.masks().items())
    torch.testing.assert_close(prepared(X), expected, rtol=0, atol=0)
