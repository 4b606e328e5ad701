"""Masked layers: the trainable thresholds of a model, and layers that compute with W * M."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods import kernels
from methods.checks.bound_optimizer import chain
from methods.checks.dead_layers import ResetWatch, warn_of_zeros
from methods.layers import MaskableWeight, OutputUnits
from methods.thresholds import ResetRule, check_reset_rule, keep_mask, threshold_shape
from methods.weights.reparametrization import EffectiveWeight, extra_name, reparametrize

WHOLE_LAYERS = ("layer", "recurrent_too")  # the rules that the kernels compute
FIRST_MOMENTS = ("momentum_buffer", "exp_avg")  # of the optimizers of torch whose other state has no sign


class MaskedWeight(EffectiveWeight):
    """W * M for one estimator of the step's derivative, and the linear layer with that weight."""

    units = OutputUnits()

    def __init__(self, estimator: str, units: OutputUnits = units) -> None:
        self.estimator = estimator
        self.units = units

    def __call__(self, weight: Tensor, threshold: Tensor) -> Tensor:
        rows = self.units.rows(weight)
        return self.units.restored(kernels.backend_for(weight).masked_weight(rows, threshold, self.estimator))

    def linear(self, inputs: Tensor, weight: Tensor, threshold: Tensor, bias: Tensor | None) -> Tensor:
        if self.units.axis != 0:
            return super().linear(inputs, weight, threshold, bias)
        return kernels.backend_for(weight).masked_linear(inputs, weight, threshold, bias, self.estimator)

    def kept(self, weight: Tensor, threshold: Tensor) -> Tensor:
        return self.units.restored(keep_mask(self.units.rows(weight), threshold))

    def threshold(self, threshold: Tensor) -> Tensor:
        return threshold


class Thresholds:
    """The trainable thresholds of a model's weights, and what they prune.

    resets: how many times thresholds of a layer were reset, 0-dim int64 on the device (on the first
    weight's, where the model lies on several).
    """

    def __init__(self, weights: Mapping[str, MaskableWeight]) -> None:
        self._weights = weights
        self._names: list[str] = []
        self._structure: dict[str, Any] = {}
        self._effectives: dict[str, EffectiveWeight] = {}
        self._units: dict[str, OutputUnits] = {}
        self._rules: dict[tuple[float, torch.device], ResetRule] = {}
        self._was_reset: dict[str, Tensor] = {}  # bool, 0-dim; empty unless the rule is "once"
        self._kept = torch.zeros(0, dtype=torch.int64, device="cpu")
        self._watch = ResetWatch([], device=self._kept.device)
        self.resets = torch.zeros((), dtype=torch.int64, device="cpu")

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def attach(
        self,
        *,
        shape: str,
        estimator: str,
        initial: float = 0.0,
        reset_below: float | None = None,
        reset_rule: str = "layer",
    ) -> None:
        """Give every maskable weight thresholds at `initial`: the network starts dense (A.1).

        initial: 0 or less, the value that resets return to. Where it is 0, warns of layers whose
        weights are all 0, or that keep a smaller share than reset_below. reset_rule: what `update_`
        resets, one of `thresholds.RESET_RULES`.
        """
        check_reset_rule(reset_rule, shape)
        others = {"initial": initial, "reset_rule": reset_rule}
        usual = {"initial": 0.0, "reset_rule": "layer"}
        others = {name: value for name, value in others.items() if value != usual[name]}
        self._attach(shape=shape, estimator=estimator, **others)
        limits = {name: (reset_below or 0) * self._weights[name].parameter.numel() for name in self._resettable()}
        warn_of_zeros(dict(zip(self._names, self._kept.tolist(), strict=True)), limits)

    def _attach(self, *, shape: str, estimator: str, **others: Any) -> None:
        """others: initial and reset_rule, those that are not at their default."""
        self._structure = {"shape": shape, "estimator": estimator} | others
        initial = others.get("initial", 0.0)
        for name, weight in self._weights.items():
            units = weight.units if shape == "vector" else OutputUnits()  # other thresholds lie anywhere
            effective = self._effectives[name] = MaskedWeight(estimator, units)
            self._units[name] = units
            rows = units.rows(weight.parameter)
            start = weight.parameter.new_full(threshold_shape(shape, rows), initial)
            reparametrize(weight, effective, start)
            self._names.append(name)
        self.resets = self.resets.to(next(iter(self._weights.values())).parameter.device)
        self.count_()
        self._watch = ResetWatch(self._names, device=self.resets.device)
        if self._reset_rule == "once":
            self._was_reset = {name: torch.zeros((), dtype=torch.bool, device="cpu") for name in self._names}

    def attach_own(self, effective: EffectiveWeight, initial: Callable[[MaskableWeight], Tensor]) -> None:
        """Make every maskable weight compute with `effective`, in the method's first phase.

        initial: the initial value of the parameter beside a weight, of any shape. It is trained,
        and named as thresholds are: <weight>_threshold.
        """
        self._structure = {"own": type(effective).__name__}
        for name, weight in self._weights.items():
            self._effectives[name] = effective
            reparametrize(weight, effective, initial(weight))
            self._names.append(name)
        self.resets = self.resets.to(next(iter(self._weights.values())).parameter.device)
        self.count_()

    def count_(self) -> None:
        """Count what layers keep now: call it after each step where `update_` is not called."""
        self._kept = torch.stack([self.mask(name).sum().to(self.resets.device) for name in self._names])

    def pruning(self) -> dict[str, Tensor]:
        """The thresholds that |weight| is compared with, by the name of the weight; detached."""
        found = {name: self._effectives[name].threshold(self._threshold(name).detach()) for name in self._names}
        return {name: threshold for name, threshold in found.items() if threshold is not None}

    def parameters(self) -> dict[str, nn.Parameter]:
        """The thresholds that the modules hold now, by the name of the weight that they prune."""
        return {name: self._threshold(name) for name in self._names}

    def _threshold(self, name: str) -> nn.Parameter:
        weight = self._weights[name]
        return weight.module._parameters[extra_name(weight.parameter_name)]  # type: ignore[return-value]

    def mask(self, name: str) -> Tensor:
        """True where a weight is kept: bool, shape of the weight."""
        with torch.no_grad():
            weight = self._weights[name]
            return self._effectives[name].kept(weight.parameter, self._threshold(name))

    def regularization(self, scale: float = 1.0) -> Tensor:
        """scale times L_s, eq. 4: the sum of exp(-t) over all thresholds. 0-dim."""
        totals = []
        for names in self.names_by_device().values():
            thresholds = [self._threshold(name) for name in names]
            totals.append(kernels.backend_for(*thresholds).regularization(thresholds, scale))
        first, *others = totals
        return sum((other.to(first.device) for other in others), first)

    @torch.no_grad()
    def reflect_(self, optimizer: Any) -> None:
        """Where a threshold is negative, change its sign and that of its momentum.

        The thresholds are then trained as if |t| pruned, with the derivative of |t| at 0 being 1.
        optimizer: torch's SGD, Adam or AdamW, or a wrapper around one.
        """
        for threshold in self.parameters().values():
            sign = torch.where(threshold < 0, -1.0, 1.0)
            states = [getattr(one, "state", {}).get(threshold, {}) for one in chain(optimizer)]
            for tensor in (threshold, *(state.get(name) for state in states for name in FIRST_MOMENTS)):
                if tensor is not None:
                    tensor.mul_(sign)

    @torch.no_grad()
    def update_(self, *, reset_below: float | None) -> None:
        """Count what layers keep; reset the thresholds of those that keep a smaller share (A.1).

        `attach` sets what is reset; without reset_below nothing is. The decision is made on the
        device: nothing waits for it.
        """
        if reset_below is not None and self._watch.watching and self._reset_rule in WHOLE_LAYERS:
            self._watch.note(self._below(reset_below))
        groups = self.names_by_device()
        if len(groups) == 1:
            self._kept = self._update_(self._names, reset_below, self.resets)
            self._watch.after_update(self.resets)
            return
        kept: dict[str, Tensor] = {}
        for device, names in groups.items():
            resets = torch.zeros_like(self.resets, device=device)
            kept |= zip(names, self._update_(names, reset_below, resets), strict=True)
            self.resets += resets.to(self.resets.device)
        self._kept = torch.stack([kept[name].to(self.resets.device) for name in self._names])
        self._watch.after_update(self.resets)

    def _below(self, share: float) -> Tensor:
        """The layers that keep less than this share of their weights and may be reset: bool [layers]."""
        sizes = [self._weights[name].parameter.numel() for name in self._names]
        keeps = [self.mask(name).sum() < share * size for name, size in zip(self._names, sizes, strict=True)]
        resettable = self._resettable()
        may_reset = [name in resettable for name in self._names]
        return torch.stack([keep.to(self.resets.device) & may for keep, may in zip(keeps, may_reset, strict=True)])

    @property
    def _reset_rule(self) -> str:
        return str(self._structure.get("reset_rule", "layer"))

    def _resettable(self) -> set[str]:
        recurrent_too = self._reset_rule == "recurrent_too"
        return {name for name, weight in self._weights.items() if recurrent_too or not weight.recurrent}

    def _update_(self, names: Sequence[str], reset_below: float | None, resets: Tensor) -> Tensor:
        """`update_` for weights of one device; their kept counts."""
        weights = [self._units[name].rows(self._weights[name].parameter) for name in names]
        thresholds = [self._threshold(name) for name in names]
        rule = None if reset_below is None else self._rule(reset_below, names, resets.device)
        update = kernels.backend_for(*weights).update_thresholds_
        if rule is None or self._reset_rule in WHOLE_LAYERS:
            return update(weights, thresholds, rule, resets)
        kept = update(weights, thresholds, None, resets)
        if self._reset_rule == "empty_units":
            return rule.apply_to_empty_units_(kept, weights, thresholds, resets)
        was_reset = torch.stack([self._was_reset[name].to(kept.device) for name in names])
        kept = rule.apply_once_(kept, thresholds, resets, was_reset)
        self._was_reset |= zip(names, was_reset.unbind(), strict=True)
        return kept

    def _rule(self, reset_below: float, names: Sequence[str], device: torch.device) -> ResetRule:
        if (reset_below, device) not in self._rules:  # made once: sending it to the device waits for it
            resettable = self._resettable()
            rule = ResetRule.below(
                reset_below,
                [self._weights[name].parameter.numel() for name in names],
                resettable=[name in resettable for name in names],
                device=device,
                reset_to=float(self._structure.get("initial", 0.0)),
            )
            self._rules[reset_below, device] = rule
        return self._rules[reset_below, device]

    def names_by_device(self) -> dict[torch.device, list[str]]:
        """The names of the weights on each device; a model may lie on several."""
        groups: dict[torch.device, list[str]] = {}
        for name in self._names:
            groups.setdefault(self._weights[name].parameter.device, []).append(name)
        return groups

    def kept_counts(self) -> Tensor:
        """Kept weights of each layer as of the last `update_`: int64 [layers] on the device."""
        return self._kept

    def state_dict(self) -> dict[str, Any]:
        """Structure, kept counts and resets; thresholds are parameters of the model."""
        state = {
            "structure": dict(self._structure),
            "kept": dict(zip(self._names, self._kept, strict=True)),
            "resets": self.resets.clone(),
        }
        was_reset = {name: value.clone() for name, value in self._was_reset.items()}
        return state | ({"was_reset": was_reset} if was_reset else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the structure; the thresholds' values come with the model's own state.

        Raises ValueError where the thresholds that are attached have another structure.
        """
        if "shape" in state["structure"] and not self._names:
            self._attach(**state["structure"])
        if state["structure"] != self._structure:
            raise ValueError(f"the saved thresholds are {state['structure']}, the attached ones {self._structure}")
        device = self.resets.device
        if state["kept"]:
            self._kept = torch.stack([state["kept"][name] for name in self._names]).to(device)
        self.resets = state["resets"].to(device, copy=True)
        self._was_reset = {name: state["was_reset"][name].to(device, copy=True) for name in self._was_reset}
