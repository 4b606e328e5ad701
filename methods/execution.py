"""How the masked layers of an attachment compute: with dense weights, or with kept weights only."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from methods.checks.bound_optimizer import chain, innermost
from methods.kernels import path
from methods.kernels.places import Places
from methods.layers import MaskableWeight
from methods.weights import kept_linear
from methods.weights.weight_mask import WeightMask

Choice = Literal["dense", "sparse", "auto"]
CHOICES = ("dense", "sparse", "auto")
TABLE = Path(__file__).with_name("kernels") / "kept_linear.csv"  # of `python -m benchmark speed sparse`
PAYS = 0.9  # at most this share of the time of masked training
BY_ELEMENT = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax", "ASGD", "Rprop")


class Execution:
    """Which layers hold only their kept weights (`methods.weights.kept_linear`), and when.

    choice: with `dense` all layers hold all weights. With `sparse` every Linear layer with a mask
    holds only its kept weights. With `auto` those layers do for which the table of measurements
    says that it pays, by their shape, the examples of the first batch that trains, and their
    density. A layer becomes dense when a method's hook reads or writes its weight, and before a step
    that needs the gradients of pruned weights. It is compressed when an optimizer is bound and at
    the end of each step, so that it keeps its form between a forward pass and its backward pass.
    """

    def __init__(self, choice: Choice = "dense", weights: Mapping[str, MaskableWeight] = MappingProxyType({})) -> None:
        self.choice = choice
        self.dense_next = False
        self._all = weights
        self._weights = {name: weight for name, weight in weights.items() if kept_linear.can_hold(weight.module)}
        self._examples: dict[str, int] = {}
        self._stays_dense: dict[str, int] = {}  # WeightMask.changes when that was decided
        self._masks: Mapping[str, WeightMask] = {}
        self._optimizer: Any = None
        self._counting: list[RemovableHandle] = []

    def begin(self, masks: Mapping[str, WeightMask]) -> None:
        """Take the masks by the name of their weight; layers change their form from the first `bind` on.

        Raises ValueError for `sparse` where no layer can hold only its kept weights.
        """
        self._masks = masks
        if self.choice == "dense":
            return
        problem = ""
        if not self._weights:
            problem = "the model has no Linear layer with a mask (subclasses of nn.Linear do not count)"
        elif not any(weight.parameter.is_cpu for weight in self._weights.values()):
            problem = "the model is not on a CPU"
        elif not any(weight.parameter.dtype in kept_linear.TYPES for weight in self._weights.values()):
            problem = "no Linear layer is in float32 or float64"
        elif path("cpu") != "cpp":
            problem = f"the kernels are '{path('cpu')}', not 'cpp'"
        if self._refuses(problem):
            return
        for name, weight in self._weights.items():
            masks[name].changes_form = True
            if self.choice == "auto":
                note = functools.partial(_note_examples, self._examples, name)
                self._counting.append(weight.module.register_forward_pre_hook(note))

    def _refuses(self, problem: str) -> bool:
        """Whether there is a problem; `auto` becomes `dense` then. Raises ValueError for `sparse`."""
        if problem and self.choice == "sparse":
            raise ValueError(f"execution='sparse': {problem}; use execution='dense'")
        if problem:
            self.end()
        return bool(problem)

    def end(self) -> None:
        """Give all layers their dense weights for good."""
        for handle in self._counting:
            handle.remove()
        self.expand_()
        self.choice = "dense"
        for mask in self._masks.values():
            mask.changes_form = False

    def bind(self, optimizer: Any, *, several_processes: bool) -> None:
        """Set the optimizer whose state is converted too. Raises ValueError where it cannot be."""
        if self.choice == "dense":
            return
        inner = innermost(optimizer)
        kind = type(inner if inner is not None else optimizer)
        problem = "it works in one process only" if several_processes else ""
        if not kind.__module__.startswith("torch.optim.") or kind.__name__ not in BY_ELEMENT:
            problem = f"the optimizer {kind.__name__} is none of {', '.join(BY_ELEMENT)}"
        if self._refuses(problem) or inner is None:
            return
        if inner is not innermost(self._optimizer):
            self.expand_()  # leaves the previous optimizer with dense state: it may be bound again
            inner.register_state_dict_post_hook(self._dense_state)
            inner.register_load_state_dict_post_hook(self._loaded)
        self._optimizer = optimizer
        self.compress_()

    def weights(self) -> dict[str, Tensor]:
        """The dense weights by name: parameters, or tensors computed from a layer's kept weights."""
        if self.choice == "dense":
            return {name: weight.parameter for name, weight in self._all.items()}
        return {name: getattr(weight.module, weight.parameter_name) for name, weight in self._all.items()}

    @torch.no_grad()
    def set_weights_(self, values: Mapping[str, Tensor]) -> None:
        """Write dense weights. Raises ValueError for another name or shape, and writes nothing then."""
        for name, value in values.items():
            if name not in self._all:
                raise ValueError(f"no maskable weight '{name}'; valid: {', '.join(self._all)}")
            shape = self._all[name].parameter.shape
            if not isinstance(value, Tensor) or value.shape != shape:
                found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"the new values of {name} are {found}, not {list(shape)}")
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
        """Prepare the next step. dense: it needs the gradients of pruned weights too."""
        self.dense_next = dense
        if dense:
            self.expand_()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to choose the same layers."""
        return {"choice": self.choice, "examples": dict(self._examples)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._examples.clear()
        self._examples.update(state["examples"])

    def compress_(self) -> None:
        """Let the chosen layers hold only their kept weights."""
        if self.choice == "dense" or self.dense_next:
            return
        for name, weight in self._weights.items():
            mask = self._masks[name]
            if mask.prunes and self._stays_dense.get(name) != mask.changes:
                self._choose(name, weight, mask)

    def _choose(self, name: str, weight: MaskableWeight, mask: WeightMask) -> None:
        """Compress this layer, or note that it stays dense with this mask."""
        if self.choice == "auto" and name not in self._examples:
            return
        parameter = weight.held
        if not kept_linear.can_hold(weight.module) or not kept_linear.fits(parameter):
            return
        keep = mask.keep(parameter)
        kept = int(torch.count_nonzero(keep))
        chosen = self.choice == "sparse" or pays(parameter.shape, self._examples[name], kept / parameter.numel())
        if chosen and kept_linear.distinguishable(parameter, kept):
            kept_linear.compress_(weight.module, Places.of(keep), name=name, states=self._states)
        else:
            self._stays_dense[name] = mask.changes

    def _states(self, parameter: Tensor) -> list[dict[str, Any]]:
        """The parameter's state in the optimizer and in those that it wraps."""
        return [one.state[parameter] for one in chain(self._optimizer) if parameter in getattr(one, "state", {})]

    def _compressed(self) -> dict[Tensor, Places]:
        """The parameters that are vectors now, and where their weights are in the matrix."""
        held = {weight.held: self._masks[name].places for name, weight in self._weights.items()}
        return {parameter: places for parameter, places in held.items() if places is not None}

    def _dense_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """After the optimizer's state_dict: the same with the state of every weight dense."""
        compressed = self._compressed()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        states = dict(state["state"])
        for number, parameter in enumerate(parameters):
            if number in states and parameter in compressed:
                places = compressed[parameter]
                states[number] = {k: _convert(v, (places.kept,), places.scatter) for k, v in states[number].items()}
        return state | {"state": states}

    def _loaded(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's load_state_dict: its dense state takes the layers' forms."""
        for parameter, places in self._compressed().items():
            for key, value in (held := optimizer.state.get(parameter, {})).items():
                held[key] = _convert(value, places.shape, places.gather)
        self.compress_()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.choice == "dense":
            return super().__reduce_ex__(protocol)
        raise ValueError(
            f"an attachment with execution='{self.choice}' cannot be copied or pickled: save its state_dict(), "
            "or use execution='dense'"
        )


def _note_examples(examples: dict[str, int], name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    """Before a Linear layer's first forward pass with gradients: note the number of its examples."""
    if name not in examples and not torch.compiler.is_compiling() and torch.is_grad_enabled() and args:
        columns = max(1, args[0].shape[-1])
        examples[name] = max(1, args[0].numel() // columns)


def _convert(value: Any, shape: tuple[int, ...], convert: Callable[[Tensor], Tensor]) -> Any:
    """The value, converted if it is a tensor of this shape."""
    return convert(value) if isinstance(value, Tensor) and tuple(value.shape) == shape else value


def pays(shape: Iterable[int], examples: int, density: float) -> bool:
    """Whether a step with kept weights only takes at most PAYS of the masked one's time, by the table.

    shape: [rows, columns]. The nearest shape and number of examples of the table decide; distances
    are those of logarithms.
    """
    rows = _table()
    if not rows:
        return False
    asked = (*shape, examples)
    nearest = min(rows, key=lambda row: sum(math.log(a / b) ** 2 for a, b in zip(asked, row, strict=True)))
    return density <= rows[nearest]


@functools.cache
def _table() -> dict[tuple[int, ...], float]:
    """The greatest density at which it pays, by (rows, columns, examples)."""
    found: dict[tuple[int, ...], float] = {}
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (int(row["rows"]), int(row["columns"]), int(row["examples"]))
            pays_here = float(row["sparse"]) <= PAYS * float(row["masked"])
            found[key] = max(found.get(key, 0.0), float(row["density"]) if pays_here else 0.0)
    return found
