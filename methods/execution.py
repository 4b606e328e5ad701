"""How the masked layers of an attachment are computed: with dense weights, or with kept weights only."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from methods.checks.bound_optimizer import chain, innermost
from methods.kernels import path
from methods.kernels.places import Places
from methods.layers import MaskableWeight
from methods.weights import kept_linear
from methods.weights.weight_mask import WeightMask

Choice = Literal["dense", "sparse", "auto"]
CHOICES = ("dense", "sparse", "auto")
TABLE = Path(__file__).with_name("kernels") / "kept_linear.csv"  # of `python -m benchmark speed sparse`
PAYS = 0.9  # of the time of masked training, or less
NOT_BY_ELEMENT = ("Adafactor", "LBFGS", "Muon", "SparseAdam")  # optimizers of torch that look at whole matrices


class Execution:
    """Which layers hold their kept weights only (`methods.weights.kept_linear`), and when.

    choice: `dense`, all weights of all layers. `sparse`: every Linear layer with a mask holds its
    kept weights only. `auto`: those for which it pays by the table of measurements, for their
    shape, the examples of the first batch, and their density. Layers are dense where a method's
    hook reads or writes their weight, and before a step that needs the gradients of pruned weights;
    the next forward pass compresses them again.
    """

    def __init__(self, choice: Choice = "dense", weights: Mapping[str, MaskableWeight] = MappingProxyType({})) -> None:
        self.choice = choice
        self.dense_next = False
        self._all = weights
        self._weights = {name: weight for name, weight in weights.items() if kept_linear.can_hold(weight.module)}
        self._examples: dict[str, int] = {}
        self._stays_dense: dict[str, int] = {}  # the mask's changes when that was decided
        self._masks: Mapping[str, WeightMask] = {}
        self._optimizer: Any = None

    def begin(self, masks: Mapping[str, WeightMask]) -> None:
        """Let layers choose what they hold, from the next forward pass on.

        Raises ValueError for `sparse` and a model without a Linear layer that has a mask.
        """
        if self.choice == "sparse" and not self._weights:
            raise ValueError("execution='sparse': the model has no Linear layer to compute so; use execution='dense'")
        self._masks = masks
        if self.choice != "dense":
            for name, weight in self._weights.items():
                kept_linear.prepare(weight.module, kept_linear.Held(name, self._states, self._choose))

    def bind(self, optimizer: Any, *, several_processes: bool) -> None:
        """The optimizer whose state follows the weights. Raises ValueError for one that cannot be used."""
        if self.choice == "dense":
            return
        inner = innermost(optimizer)
        kind = type(inner).__name__
        problem = ""
        if several_processes:
            problem = "it works in one process"
        elif kind in NOT_BY_ELEMENT:
            problem = f"{kind} does not work by element"
        if problem and self.choice == "sparse":
            raise ValueError(f"execution='sparse': {problem}; use execution='dense'")
        if problem:
            self.expand_()
            self.choice = "dense"
            return
        self._optimizer = optimizer
        if inner is not None:
            inner.register_state_dict_post_hook(self._dense_state)
            inner.register_load_state_dict_post_hook(self._loaded)

    def weights(self) -> dict[str, Tensor]:
        """The dense weights: the parameters themselves where the choice is `dense`, and copies otherwise."""
        if self.choice == "dense":
            return {name: weight.parameter for name, weight in self._all.items()}
        shown = {name: getattr(weight.module, weight.parameter_name) for name, weight in self._all.items()}
        return {name: weight.detach().as_subclass(Tensor).clone() for name, weight in shown.items()}

    @torch.no_grad()
    def set_weights_(self, values: Mapping[str, Tensor]) -> None:
        """Write dense weights. Raises ValueError before anything is written."""
        for name, value in values.items():
            if name not in self._all:
                raise ValueError(f"no maskable weight '{name}'; valid: {', '.join(self._all)}")
            if value.shape != (shape := self._all[name].parameter.shape):
                raise ValueError(f"the new values of {name} are {list(value.shape)}, not {list(shape)}")
        for name, value in values.items():
            self._all[name].parameter.copy_(value)

    def forms(self) -> dict[str, str]:
        """How each weight is held now: `dense` or `sparse`."""
        held = {name: kept_linear.holds_kept(weight.module) for name, weight in self._all.items()}
        return {name: "sparse" if kept else "dense" for name, kept in held.items()}

    def expand_(self) -> None:
        """Give all layers their dense weights."""
        for weight in self._weights.values():
            kept_linear.expand_(weight.module)

    def prepare(self, *, dense: bool) -> None:
        """dense: the next backward pass has to compute the gradients of pruned weights."""
        self.dense_next = dense
        if dense:
            self.expand_()

    def state_dict(self) -> dict[str, Any]:
        """What the choice of a resumed training needs."""
        return {"choice": self.choice, "examples": dict(self._examples)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._examples = dict(state["examples"])

    def _choose(self, module: nn.Module, inputs: Tensor) -> None:
        """Before a forward pass of a layer that holds its dense weight: compress it where that is chosen."""
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or path("cpu") != "cpp":
            return
        name, weight = cast(kept_linear.KeptLinear, module).held.name, module._parameters["weight"]
        mask = self._masks[name]
        if self.choice == "dense" or self.dense_next or not mask.prunes or not isinstance(weight, nn.Parameter):
            return
        examples = self._examples.setdefault(name, max(1, inputs.numel() // max(1, weight.shape[-1])))
        if self._stays_dense.get(name) == mask.changes:
            return
        keep = mask.keep(weight)
        kept = int(torch.count_nonzero(keep))
        if kept_linear.fits(weight, kept) and (
            self.choice == "sparse" or pays(weight.shape, examples, kept / weight.numel())
        ):
            kept_linear.compress_(module, Places.of(keep))
        else:
            self._stays_dense[name] = mask.changes

    def _states(self, parameter: Tensor) -> list[dict[str, Any]]:
        return [one.state[parameter] for one in chain(self._optimizer) if parameter in getattr(one, "state", {})]

    def _compressed(self) -> dict[Tensor, Places]:
        held = {weight.held: self._masks[name].places for name, weight in self._weights.items()}
        return {parameter: places for parameter, places in held.items() if places is not None}

    def _dense_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The optimizer's state_dict, in which the state of every weight is dense."""
        compressed = self._compressed()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        of = dict(state["state"])
        for number, parameter in enumerate(parameters):
            if number in of and parameter in compressed:
                places = compressed[parameter]
                of[number] = {k: _convert(v, (places.kept,), places.scatter) for k, v in of[number].items()}
        return state | {"state": of}

    def _loaded(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter, places in self._compressed().items():
            for key, value in (held := optimizer.state.get(parameter, {})).items():
                held[key] = _convert(value, places.shape, places.gather)


def _convert(value: Any, shape: tuple[int, ...], convert: Any) -> Any:
    return convert(value) if isinstance(value, Tensor) and tuple(value.shape) == shape else value


def pays(shape: Iterable[int], examples: int, density: float) -> bool:
    """Whether kept weights only take at most PAYS of the time of masked training, by the table.

    The table's nearest shape and number of examples decide, by their ratios.
    """
    rows = _table()
    if not rows:
        return False
    asked = (*shape, examples)
    nearest = min(rows, key=lambda row: sum(math.log(a / b) ** 2 for a, b in zip(asked, row, strict=True)))
    return density <= rows[nearest]


@functools.cache
def _table() -> dict[tuple[int, ...], float]:
    """The greatest density at which it pays, by rows, columns and examples."""
    found: dict[tuple[int, ...], float] = {}
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (int(row["rows"]), int(row["columns"]), int(row["examples"]))
            pays_here = float(row["sparse"]) <= PAYS * float(row["masked"])
            found[key] = max(found.get(key, 0.0), float(row["density"]) if pays_here else 0.0)
    return found
