"""A callback for the Trainer of transformers. Needs the package `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from methods.attachment import Attachment
from methods.integrations.stepping import check_phases, take_over

FILE = "sparse_training.pt"


class SparseTraining(TrainerCallback):
    """Steps a method with the Trainer's optimizer, and keeps its state in the Trainer's checkpoints.

        attached = methods.attach(model, "set", total_steps=steps, steps_per_epoch=per_epoch, density=0.1)
        sparse = SparseTraining(attached)
        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[sparse])
        trainer.train()
        methods.finalize(model).save_pretrained("sparse-model")

    The loss needs no `attached.penalty()`: the callback adds its gradient. Where weights decay and
    the method has thresholds, give the Trainer `optimizers=(AdamW(attached.parameter_groups(
    weight_decay=…), lr=…), None)`, because thresholds have a decay of their own.

    Resume: attach as before, and load the method's state before the Trainer loads the weights;
    training continues bit by bit:

        trainer.train(resume_from_checkpoint=sparse.resume("out/checkpoint-500"))

    What holds:
    - `gradient_accumulation_steps`: the method steps once per optimizer step (`total_steps`).
    - Order: backward passes, clipping to `max_grad_norm`, the penalty's gradient (never clipped), the
      method (which reads clipped gradients), the optimizer.
    - `bf16` works as float32 does. `fp16` is refused: accelerate's scaler steps around the callback.
    - DDP: every process attaches with the same seed. The method reads averaged gradients; masks and
      thresholds are compared at the start.

    Raises ValueError for methods whose phases change the optimizer or its rate, and for
    `load_best_model_at_end`.
    """

    def __init__(self, attached: Attachment) -> None:
        check_phases(attached)
        self.attached = attached

    def resume(self, checkpoint: str | Path) -> str:
        """Load the method's state from a checkpoint folder. Returns it; raises ValueError without a state."""
        file = Path(checkpoint) / FILE
        if not file.is_file():
            raise ValueError(f"{file} is missing: give a checkpoint saved with the callback SparseTraining")
        self.attached.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
        return str(checkpoint)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take over the optimizer. Raises RuntimeError where the method's state was not resumed."""
        if state.global_step != self.attached.context.step:
            raise RuntimeError(
                f"the Trainer begins at step {state.global_step} and the method at {self.attached.context.step}: "
                "train(resume_from_checkpoint=sparse.resume(PATH)) loads both"
            )
        if args.load_best_model_at_end:
            raise ValueError("load_best_model_at_end loads weights of one step with the masks of another: leave it out")
        prepared = kwargs["optimizer"]
        if getattr(prepared, "scaler", None) is not None:
            raise ValueError("fp16 scales gradients around the callback SparseTraining: train with bf16, or without")
        take_over(self.attached, getattr(prepared, "optimizer", prepared))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the method's state into the checkpoint that the Trainer has just written."""
        if state.is_world_process_zero:
            folder = f"checkpoint-{state.global_step}"
            torch.save(self.attached.state_dict(), Path(args.output_dir, folder, FILE))
