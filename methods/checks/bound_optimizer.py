"""The optimizer that trains an attached model: its tensors, its updates and its decay of thresholds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

INNER = (
    "optimizer",
    "_optimizer",
    "base_optimizer",
    "_base_optimizer",
    "base",
)  # where wrappers keep the optimizer that they wrap

Place = tuple[Mapping[str, nn.Parameter | None], str, str]  # a module's parameters, a key, the qualified name


class BoundOptimizer:
    """An optimizer, and the model's weights and thresholds that it holds.

    places: where modules hold weights and thresholds. parameters: all of the model's, by name.
    direct: whether it is an optimizer of torch and not a wrapper around one. with_gradient: names of
    those that had a gradient in the last update, before it or after it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        places: Iterable[Place],
        parameters: Iterable[tuple[str, nn.Parameter]],
    ) -> None:
        self.optimizer = optimizer
        self._places = [(held, key, name, held[key]) for held, key, name in places]
        self._at_stake = {name: p for _, _, name, p in self._places if p is not None}
        self._at_stake |= {name: p for name, p in parameters if not p.requires_grad}
        self._look()
        self._stepped = self._skipped = self._warned = self._warned_of_lacking = False
        self.with_gradient: frozenset[str] = frozenset()
        inner = innermost(optimizer)
        self.direct = inner is optimizer
        self._handle = inner.register_step_post_hook(self._note) if inner is not None else None
        self._versions_after = self._versions()

    def _look(self) -> None:
        """Find which weights and thresholds the optimizer holds now, and what it lacks."""
        ids = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        self._held = [place for place in self._places if id(place[3]) in ids]
        self._lacking = {name: p for name, p in self._at_stake.items() if id(p) not in ids}

    def release(self) -> None:
        """Another optimizer is bound: this one is no longer looked at."""
        if self._handle is not None:
            self._handle.remove()

    def check(self) -> None:
        """Raises RuntimeError where a module has another tensor than the one that is trained."""
        for held, key, name, parameter in self._held:
            if held.get(key) is not parameter:
                raise RuntimeError(
                    f"{name} is another tensor since bind (load_state_dict(assign=True), for example): "
                    "build the optimizer from parameter_groups() again and bind it"
                )

    @property
    def stepped(self) -> bool:
        """Whether the optimizer stepped since it was bound or last updated, outside of `update`."""
        return self._stepped

    def update(
        self,
        scaler_step: Callable[[torch.optim.Optimizer], Any] | None = None,
        closure: Callable[[], Any] | None = None,
        *,
        keep_gradients: bool = False,
    ) -> bool:
        """Step the optimizer, by a scaler or with a closure; whether it made an update in it.

        keep_gradients: weights have the gradients from before the update after it too, unless a
        closure computes them; torch's SGD with Nesterov momentum overwrites them with its direction
        where foreach is on, as it is on a GPU.

        Wrappers that accumulate gradients and scalers that find infinite gradients make none. The
        hook is not called where an optimizer's own `step` calls this, so writes count too. Warns
        once where the optimizer also steps elsewhere, so that its weights move twice, and once where
        it lacks masked weights, or parameters that were frozen at first, and these have a gradient.
        """
        if self._lacking_gradients():  # a loop may have given the optimizer another group
            self._look()
            self._warn_of_lacking()
        weights = [p for _, _, _, p in self._held if p is not None and keep_gradients and closure is None]
        gradients = [(p.grad, p.grad.clone()) for p in weights if p.grad is not None]
        before = self._versions()
        if self._stepped and not self._warned and before != self._versions_after:
            self._warned = True
            warnings.warn(
                "the optimizer stepped outside of attached.step() since it was bound or stepped last: call "
                "attached.step() in place of optimizer.step(), and give each attached model an optimizer of its own",
                stacklevel=3,
            )
        self._stepped = self._skipped = False
        had = self._with_gradient()
        if scaler_step is not None:
            scaler_step(self.optimizer)
        else:
            self.optimizer.step(*(() if closure is None else (closure,)))
        for gradient, own in gradients:
            gradient.copy_(own)
        self._versions_after = self._versions()
        self.with_gradient = had | self._with_gradient()
        stepped, self._stepped = self._stepped, False
        return (stepped or before != self._versions_after) and not (self._skipped or skips(self.optimizer))

    def _with_gradient(self) -> frozenset[str]:
        return frozenset(name for _, _, name, p in self._held if p is not None and p.grad is not None)

    def _lacking_gradients(self) -> list[str]:
        """What has a gradient, and is not in the optimizer."""
        return [name for name, p in self._lacking.items() if p.requires_grad and p.grad is not None]

    def _warn_of_lacking(self) -> None:
        lacking = self._lacking_gradients()
        if lacking and not self._warned_of_lacking:
            self._warned_of_lacking = True
            warnings.warn(
                f"the optimizer does not train {', '.join(lacking)}, which have gradients: build it from "
                "parameter_groups() again and bind it, or freeze them with requires_grad_(False); the method takes "
                "masked weights with a gradient for trained ones",
                stacklevel=4,
            )

    def _versions(self) -> list[float]:
        """What an update changes: the weights' versions, and their norms under an optimizer that is none of torch.

        Such an optimizer has no hook, and may write through `.data`, which raises no version.
        """
        held = [parameter for _, _, _, parameter in self._held if parameter is not None]
        norms = [] if self._handle is not None else [p.detach().double().norm().item() for p in held]
        return [*(p._version for p in held), *norms]

    def _note(self, *_: Any) -> None:
        self._stepped, self._skipped = True, skips(self.optimizer)


def groups_of(
    model: nn.Module, thresholds: Iterable[nn.Parameter], weight_decay: float, threshold_decay: float
) -> list[dict[str, Any]]:
    """Groups of a model's trained parameters: thresholds have their own where they decay otherwise."""
    of_thresholds = list(thresholds)
    known = {id(threshold) for threshold in of_thresholds}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    if not of_thresholds or threshold_decay == weight_decay:
        return [{"params": [*rest, *of_thresholds], "weight_decay": weight_decay}]
    return [
        {"params": rest, "weight_decay": weight_decay},
        {"params": of_thresholds, "weight_decay": threshold_decay},
    ]


def check_thresholds(optimizer: torch.optim.Optimizer, thresholds: Mapping[str, nn.Parameter]) -> None:
    """Raises ValueError where the optimizer lacks one of the thresholds."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, threshold in thresholds.items() if id(threshold) not in held]
    if missing:
        raise ValueError(
            f"the optimizer lacks the thresholds of {', '.join(missing)}: build it from parameter_groups()"
        )


def unwanted_decay(
    optimizer: torch.optim.Optimizer, thresholds: Mapping[str, nn.Parameter], method_name: str, wanted: float
) -> str | None:
    """What to do if the optimizer decays a threshold by another number than wanted; None otherwise."""
    ids = {id(threshold) for threshold in thresholds.values()}
    for group in optimizer.param_groups:
        decay = group.get("weight_decay", 0)
        if decay != wanted and any(id(parameter) in ids for parameter in group["params"]):
            return (
                f"the optimizer decays thresholds by {decay:g}, and {method_name} wants {wanted:g}: build it from "
                f"attached.parameter_groups(weight_decay={decay:g}), or attach with threshold_weight_decay={decay:g} "
                "to keep this decay"
            )
    return None


def unused_decay(optimizer: torch.optim.Optimizer) -> str | None:
    """What to do if the weight decay that the optimizer was given is in none of its groups; None otherwise."""
    given = getattr(optimizer, "defaults", {}).get("weight_decay") or 0
    if not given or any(group.get("weight_decay") for group in optimizer.param_groups):
        return None
    return (
        f"the optimizer's weight_decay of {given:g} (its default, if you gave none) reaches no weight, because "
        f"parameter_groups() has its own, 0: call attached.parameter_groups(weight_decay={given:g}), or with "
        "weight_decay=0 to train without decay"
    )


def chain(optimizer: Any) -> list[Any]:
    """The optimizer and those that it wraps, outermost first. Each may hold a part of the state."""
    seen: list[Any] = []
    while optimizer is not None and not any(optimizer is known for known in seen):
        seen.append(optimizer)
        optimizer = next((vars(optimizer)[name] for name in INNER if name in vars(optimizer)), None)
    return seen


def unscale(scaler_step: Any, optimizer: torch.optim.Optimizer) -> None:
    """Unscale the gradients by the GradScaler whose `step` this is, where the loop has not done so."""
    scaler = getattr(scaler_step, "__self__", None)
    if isinstance(scaler, torch.amp.GradScaler) and scaler.is_enabled():
        try:
            scaler.unscale_(optimizer)
        except RuntimeError as error:
            if "already been called" not in str(error):
                raise


def skips(optimizer: Any) -> bool:
    """Whether a scaler makes the optimizer's current step skip its update, inside of a fused kernel."""
    return any(bool(getattr(one, "found_inf", None)) for one in chain(optimizer))


def innermost(optimizer: Any) -> torch.optim.Optimizer | None:
    """The optimizer itself, or the one that its wrappers hold; None where neither is found.

    A wrapper may be a subclass of torch's Optimizer that was never initialised as one.
    """
    found = [one for one in chain(optimizer) if isinstance(one, torch.optim.Optimizer)]
    return next((one for one in reversed(found) if "_optimizer_step_post_hooks" in vars(one)), None)
