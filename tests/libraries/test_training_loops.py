"""Training loops of other libraries: Lightning and transformers with their callbacks, and accelerate."""

from __future__ import annotations

import re
import warnings
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
X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
OPTIONS: dict[str, Any] = {
    "set": {"density": 0.3, "update_every": 2},
    "dst": {"alpha": 1e-2},
    "sparse_momentum": {"density": 0.3, "update_every": 2},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def batches() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(X, Y), batch_size=8)


def attached_network(method: str) -> tuple[nn.Module, methods.Attachment]:
    model = network()
    return model, methods.attach(model, method, total_steps=8, steps_per_epoch=4, **OPTIONS[method])


def in_a_loop_of_ones_own(method: str, *, passes: int = 1, weight_decay: float = 0.0) -> nn.Module:
    """Two epochs. passes: forward and backward passes in a step."""
    model, attached = attached_network(method)
    optimizer = torch.optim.SGD(attached.parameter_groups(weight_decay=weight_decay), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    data = [batch for _ in range(2) for batch in batches()]
    for start in range(0, len(data), passes):
        optimizer.zero_grad()
        for x, y in data[start : start + passes]:
            (F.cross_entropy(model(x), y) / passes).backward()
        if (penalty := attached.penalty()).requires_grad:
            penalty.backward()
        attached.step()
    return model


def block(heading: str, **names: Any) -> dict[str, Any]:
    """The names that the page's Python block under a heading defines."""
    page = (Path(__file__).resolve().parents[2] / "docs/other-libraries.md").read_text()
    found = re.search(rf"^## {heading}\n.*?```python\n(.*?)```", page, re.M | re.S)
    assert found is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the optimizer")
        exec(found[1], names)
    return names


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# --- Lightning ------------------------------------------------------------------------------------


def lightning_training(method: str, *, manual: bool = False, weight_decay: float = 0.0) -> tuple[Any, Any]:
    """A module that knows nothing of the method, and the callback."""
    lightning = library("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        automatic_optimization = not manual

        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = F.cross_entropy(self.network(batch[0]), batch[1])
            if not manual:
                return loss
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            return self.optimizers().step()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            groups = attached.parameter_groups(weight_decay=weight_decay)
            return torch.optim.SGD(groups if weight_decay else self.parameters(), lr=0.1, momentum=0.9)

    module = Module()
    attached = methods.attach(module, method, total_steps=8, steps_per_epoch=4, **OPTIONS[method])
    return module, library("methods.integrations.lightning").SparseTraining(attached)


def fit(module: Any, callbacks: list[Any], folder: Path, epochs: int = 2, **options: Any) -> Any:
    trainer = library("lightning").Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=any(type(callback).__name__ == "ModelCheckpoint" for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options.pop("trainer", {}),
    )
    trainer.fit(module, batches(), **options)
    return trainer


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("method", OPTIONS)
def test_lightning_trains_as_a_loop_of_ones_own(method: str, manual: bool, tmp_path: Path) -> None:
    module, sparse = lightning_training(method, manual=manual)
    trainer = fit(module, [sparse], tmp_path)
    assert trainer.global_step == sparse.attached.context.step == 8
    assert same(module.network, in_a_loop_of_ones_own(method))
    check_sparse(module, sparse.attached)
    expected = module.network(X)
    methods.finalize(module)
    torch.testing.assert_close(module.network(X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", OPTIONS)
def test_lightning_resumes_bit_by_bit(method: str, tmp_path: Path) -> None:
    """From the checkpoint that Lightning's own callback wrote in the middle of the training."""
    checkpoints = library("lightning.pytorch.callbacks").ModelCheckpoint(tmp_path, filename="one", save_top_k=-1)
    first, its = lightning_training(method)
    fit(first, [its, checkpoints], tmp_path, epochs=1)
    resumed, sparse = lightning_training(method)
    fit(resumed, [sparse], tmp_path, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert sparse.attached.context.step == 8
    assert same(resumed.network, in_a_loop_of_ones_own(method))


@pytest.mark.parametrize("method", OPTIONS)
def test_lightning_accumulates_gradients(method: str, tmp_path: Path) -> None:
    module, sparse = lightning_training(method)
    fit(module, [sparse], tmp_path, trainer={"accumulate_grad_batches": 2})
    assert sparse.attached.context.step == 4
    assert same(module.network, in_a_loop_of_ones_own(method, passes=2))


def test_lightning_decays_weights_and_no_thresholds(tmp_path: Path) -> None:
    module, sparse = lightning_training("dst", weight_decay=0.1)
    fit(module, [sparse], tmp_path)
    assert same(module.network, in_a_loop_of_ones_own("dst", weight_decay=0.1))


def test_lightning_refuses_a_checkpoint_without_masks(tmp_path: Path) -> None:
    plain, _ = lightning_training("set")
    fit(plain, [], tmp_path, epochs=1).save_checkpoint(tmp_path / "plain.ckpt")
    module, sparse = lightning_training("set")
    with pytest.raises(ValueError, match="the checkpoint has no masks: give one saved with the callback"):
        fit(module, [sparse], tmp_path, ckpt_path=tmp_path / "plain.ckpt", weights_only=True)


def test_lightning_refuses_several_optimizers(tmp_path: Path) -> None:
    module, sparse = lightning_training("set", manual=True)
    one = module.configure_optimizers
    module.configure_optimizers = lambda: [one(), one()]
    with pytest.raises(ValueError, match="the module has 2 optimizers: SparseTraining steps exactly one"):
        fit(module, [sparse], tmp_path)


@pytest.mark.parametrize("method", ["set", "dst"])
def test_lightning_validates_its_average_sparse(method: str, tmp_path: Path) -> None:
    """The callback swaps weights through `.data`; apply_masks is what the page says to call."""
    callbacks = library("lightning.pytorch.callbacks")
    (module, sparse), seen = lightning_training(method), []

    def on_validation_epoch_start() -> None:
        sparse.attached.apply_masks()

    def validation_step(batch: Any, batch_idx: int) -> None:
        module.network(batch[0])
        check_sparse(module, sparse.attached)
        seen.append(batch_idx)

    module.on_validation_epoch_start, module.validation_step = on_validation_epoch_start, validation_step
    average = callbacks.EMAWeightAveraging(decay=0.9, update_starting_at_step=1)
    fit(module, [sparse, average], tmp_path, val_dataloaders=batches(), trainer={"num_sanity_val_steps": 0})
    assert len(seen) == 8


def test_the_pages_block_trains_with_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library("lightning")
    monkeypatch.chdir(tmp_path)
    names = block("Lightning")
    assert names["module"].attached.context.step == names["module"].attached.total_steps == 16
    assert type(names["module"].network[0]) is nn.Linear


# --- transformers ---------------------------------------------------------------------------------


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def transformers_training(method: str, folder: Path, *, total_steps: int = 8, **options: Any) -> tuple[Any, Any]:
    """A Trainer that reads the rows in their order, with SGD; and the callback."""
    transformers = library("transformers")

    class Trainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = Classifier()
    attached = methods.attach(model, method, total_steps=total_steps, steps_per_epoch=4, **OPTIONS[method])
    sparse = library("methods.integrations.transformers").SparseTraining(attached)
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    arguments = transformers.TrainingArguments(**(settings | options))
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    return Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None), callbacks=[sparse]), sparse


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("method", OPTIONS)
def test_transformers_trains_as_a_loop_of_ones_own(method: str, passes: int, tmp_path: Path) -> None:
    trainer, sparse = transformers_training(method, tmp_path, gradient_accumulation_steps=passes)
    trainer.train()
    assert trainer.state.global_step == sparse.attached.context.step == 8 // passes
    assert same(trainer.model.network, in_a_loop_of_ones_own(method, passes=passes))
    check_sparse(trainer.model, sparse.attached)


@pytest.mark.parametrize("method", OPTIONS)
def test_transformers_resumes_bit_by_bit(method: str, tmp_path: Path) -> None:
    """From a checkpoint of the Trainer's own, in the middle of an epoch."""
    saving = {"save_strategy": "steps", "save_steps": 3}
    first, _ = transformers_training(method, tmp_path, max_steps=3, **saving)
    first.train()
    resumed, sparse = transformers_training(method, tmp_path)
    resumed.train(resume_from_checkpoint=sparse.resume(tmp_path / "checkpoint-3"))
    assert sparse.attached.context.step == 8
    assert same(resumed.model.network, in_a_loop_of_ones_own(method))


def test_transformers_with_its_own_optimizer_clips_and_saves_a_sparse_model(tmp_path: Path) -> None:
    trainer, sparse = transformers_training("dst", tmp_path, max_grad_norm=1.0, learning_rate=0.05)
    trainer.optimizer = None  # as without optimizers=: AdamW, weight decay 0
    trainer.train()
    assert sparse.attached.context.step == 8
    check_sparse(trainer.model, sparse.attached)
    trainer, sparse = transformers_training("dst", tmp_path, weight_decay=0.1)
    trainer.optimizer = None
    with pytest.raises(ValueError, match=r"the optimizer decays thresholds by 0\.1, and dst wants 0: build it from"):
        trainer.train()


def test_transformers_does_not_load_the_best_weights_without_their_masks(tmp_path: Path) -> None:
    trainer, _ = transformers_training("set", tmp_path)
    trainer.args.load_best_model_at_end = True
    with pytest.raises(ValueError, match="load_best_model_at_end loads weights of one step with the masks of another"):
        trainer.train()


def test_transformers_refuses_to_resume_without_the_methods_state(tmp_path: Path) -> None:
    first, sparse = transformers_training("set", tmp_path, max_steps=3, save_strategy="steps", save_steps=3)
    first.train()
    resumed, _ = transformers_training("set", tmp_path)
    with pytest.raises(RuntimeError, match="the Trainer begins at step 3 and the method at 0: train"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    (tmp_path / "checkpoint-3/sparse_training.pt").unlink()
    with pytest.raises(ValueError, match=r"sparse_training\.pt is missing: give a checkpoint saved with"):
        sparse.resume(tmp_path / "checkpoint-3")


def test_the_pages_block_trains_with_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library("transformers")
    monkeypatch.chdir(tmp_path)
    names = block("transformers")
    assert names["attached"].context.step == names["trainer"].state.max_steps == names["total_steps"] == 8
    assert type(names["model"].network[0]) is nn.Linear


def test_the_pages_block_steps_with_any_trainer() -> None:
    model = network()
    names = block("Other trainers", model=model, steps=8, steps_per_epoch=4, torch=torch, methods=methods)
    names["optimizer"].step(lambda: F.cross_entropy(model(X), Y).backward())
    assert names["attached"].context.step == 1


# --- accelerate -----------------------------------------------------------------------------------


def test_the_pages_block_trains_with_accelerate() -> None:
    library("accelerate")
    names = block("accelerate")
    assert names["attached"].context.step == names["attached"].total_steps == 4
    assert type(names["model"][0]) is nn.Linear


@pytest.mark.parametrize("method", OPTIONS)
def test_accelerate_accumulates_gradients(method: str) -> None:
    accelerate = library("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = network()
    attached = attach(model, method, steps=10)
    optimizer = torch.optim.SGD(attached.parameter_groups(), 0.1, 0.9)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, batches())
    attached.bind(optimizer)
    for x, y in (batch for _ in range(4) for batch in loader):
        with accelerator.accumulate(prepared):
            before = attached.masks() if method != "dst" else {}
            accelerator.backward(F.cross_entropy(prepared(x), y) + attached.penalty())
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
