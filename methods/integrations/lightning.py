"""A callback for Lightning's Trainer. Needs the package `lightning`."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from methods.attachment import Attachment
from methods.integrations.stepping import check_phases, take_over


class SparseTraining(Callback):
    """Steps a method with the Trainer's optimizer, and keeps its state in the Trainer's checkpoints.

        attached = methods.attach(module, "set", total_steps=steps, steps_per_epoch=len(loader), density=0.1)
        trainer = lightning.Trainer(max_epochs=epochs, callbacks=[SparseTraining(attached)])
        trainer.fit(module, loader)
        methods.finalize(module)

    `training_step` does not change, and the loss needs no `attached.penalty()`: the callback adds its
    gradient. Attach before the Trainer moves, compiles or wraps the module. For a method with
    thresholds, such as dst, `configure_optimizers` builds the optimizer from
    `attached.parameter_groups(weight_decay=…)`, because thresholds have a decay of their own
    (docs/other-libraries.md shows a complete module).

    Resume: attach as before, then `trainer.fit(module, loader, ckpt_path=…)` continues bit by bit.

    What holds, with automatic and with manual optimization:
    - `accumulate_grad_batches`: the method steps once per optimizer step, so `total_steps` counts
      these.
    - Order in a step: backward passes, unscaling, the Trainer's clipping, the penalty's gradient
      (which is not clipped), the method, the optimizer. Methods that read gradients see clipped ones.
    - `16-mixed`: the method does not count a step that the scaler skips. Fused optimizers are refused
      there with a penalty, because they unscale inside their step.
    - DDP: every process attaches with the same seed. Gradients are averaged before the method reads
      them, and masks and thresholds are compared at the start.

    Raises ValueError for a method that changes optimizer or learning rate between its phases, for
    several optimizers, and for a checkpoint that was saved without this callback.
    """

    def __init__(self, attached: Attachment) -> None:
        check_phases(attached)
        self.attached = attached

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Load the method's state before Lightning loads the weights, which the masks would prune."""
        load = pl_module.on_load_checkpoint

        def load_first(checkpoint: dict[str, Any]) -> None:
            state = checkpoint.get("callbacks", {}).get(self.state_key)
            if state is None and stage == "fit":
                raise ValueError("the checkpoint has no masks: give one saved with the callback SparseTraining")
            if state is not None:
                self.attached.load_state_dict(state)
            load(checkpoint)

        pl_module.on_load_checkpoint = load_first

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Undo `setup`."""
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take over the optimizer, before Lightning loads its state."""
        if len(trainer.optimizers) != 1:
            raise ValueError(f"the module has {len(trainer.optimizers)} optimizers: SparseTraining steps exactly one")
        take_over(self.attached, trainer.optimizers[0])

    def state_dict(self) -> dict[str, Any]:
        return self.attached.state_dict()
