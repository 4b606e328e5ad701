"""Whether the weights of an attached model are still where they were, and of their old shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from methods.layers import MaskableWeight
from methods.ties import sharing
from methods.weights.masked_modules import masks_of
from methods.weights.reparametrization import extra_name
from methods.weights.weight_mask import WeightMask

WRAPPERS = {
    "DistributedDataParallel": "attach the method first, then wrap the model",
    "FullyShardedDataParallel": "sharded weights have no whole masks, so use DistributedDataParallel",
}
Place = tuple[Mapping[str, nn.Module | None], str, nn.Module]  # the dict that holds a module, its key, the module


class Structure:
    """The places of the modules whose weights can be masked.

    masks: the WeightMask of each weight. One check looks up what it finds in dictionaries, so that
    it can run at every step.
    """

    def __init__(
        self, model: nn.Module, weights: Mapping[str, MaskableWeight], masks: Mapping[str, WeightMask]
    ) -> None:
        self._model, self._weights, self._masks = model, weights, masks
        self._places = self._find()
        self._shapes = {name: weight.parameter.shape for name, weight in weights.items()}
        self._thresholds: list[str] = []

    @property
    def finalized(self) -> bool:
        """Whether the method was taken from the model."""
        return any(mask.final is not None for mask in self._masks.values())

    def expect_thresholds(self, names: list[str]) -> None:
        """The weights that have thresholds beside them from now on."""
        self._thresholds = names

    def trained(self) -> Iterator[tuple[Mapping[str, nn.Parameter | None], str, str]]:
        """Where each weight, and the threshold beside it, is: a module's parameters, a key, a name to show."""
        for name, weight in self._weights.items():
            yield weight.module._parameters, weight.parameter_name, name
            if name in self._thresholds:
                yield weight.module._parameters, extra_name(weight.parameter_name), f"the threshold of {name}"

    def check(self, *, ties: bool) -> None:
        """Raises ValueError, naming the weight, where one is not the model's any more.

        ties: also where one shares numbers with another parameter, which takes longer to find.
        """
        if any(held.get(key) is not module for held, key, module in self._places):
            self._places = self._find()
        for name, weight in self._weights.items():
            parameter = weight.module._parameters.get(weight.parameter_name)
            if parameter is None:
                raise ValueError(
                    f"{name} is computed from other parameters since attach (weight_norm, parametrize, prune): "
                    "reparametrize the layer before attaching and exclude it, or finalize the model first"
                )
            places = self._masks[name].places
            if parameter.shape != (self._shapes[name] if places is None else (places.kept,)):
                raise ValueError(
                    f"{name} has another shape since attach, {list(parameter.shape)} for {list(self._shapes[name])}: "
                    "change the layer before attaching, or finalize the model first"
                )
            if masks_of(weight.module).get(weight.parameter_name) is not self._masks[name]:
                raise ValueError(f"{name} has lost its mask: another method was attached to a part of this model")
        for name in self._thresholds:
            weight = self._weights[name]
            if extra_name(weight.parameter_name) not in weight.module._parameters:
                raise ValueError(f"{name} has lost its thresholds since attach: attach the method again")
        if ties:
            self._check_ties()

    def _check_ties(self) -> None:
        """Raises ValueError where a weight was tied to another parameter since attach, which refuses tied ones."""
        known = {(id(weight.module), weight.parameter_name): name for name, weight in self._weights.items()}
        parameters = {
            known.get((id(module), key), f"{path}.{key}".lstrip(".")): parameter
            for path, module in self._model.named_modules()
            for key, parameter in module._parameters.items()
            if parameter is not None
        }
        shared = sharing(parameters)
        for name in self._weights:
            if len(names := shared[name]) > 1:
                raise ValueError(
                    f"{' and '.join(sorted(names))} were tied since attach, and a mask prunes them all: tie weights "
                    "before attaching, and exclude those that are tied to no embedding"
                )

    def _find(self) -> list[Place]:
        """Where the modules are now, each with the modules that it lies in.

        Raises ValueError for a weight whose module is no longer in the model.
        """
        paths: dict[int, list[Place]] = {id(self._model): []}
        queue = [self._model]
        for parent in queue:
            for key, child in parent._modules.items():
                if child is not None and id(child) not in paths:
                    paths[id(child)] = [*paths[id(parent)], (parent._modules, key, child)]
                    queue.append(child)
        places: dict[int, Place] = {}
        for name, weight in self._weights.items():
            if id(weight.module) not in paths:
                raise ValueError(
                    f"the layer of {name} was replaced since attach: replace layers before attaching, "
                    "or finalize the model and attach the method again"
                )
            places |= {id(place[2]): place for place in paths[id(weight.module)]}
        return list(places.values())


def check_model(model: nn.Module) -> None:
    """Raises ValueError for a model that is wrapped for several processes."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in WRAPPERS:
            raise ValueError(f"the model is wrapped in {kind}{f' at {name}' if name else ''}: {WRAPPERS[kind]}")


def check_free(model: nn.Module, aside: Mapping[str, str]) -> None:
    """Raises ValueError for a model with a layer, not excluded, to which a method is attached.

    aside: why weights are left out, by name (`layers.Selection`).
    """
    for module_name, module in model.named_modules():
        for parameter_name, held in masks_of(module).items():
            if aside.get(f"{module_name}.{parameter_name}".lstrip(".")) != "excluded":
                raise ValueError(f"a method is attached to {held.name} already: call methods.finalize(model) first")


def check_weights(weights: Mapping[str, MaskableWeight]) -> None:
    """Raises ValueError for a weight that has no data of its own in this process."""
    for name, weight in weights.items():
        if weight.parameter.is_meta:
            raise ValueError(f"{name} is on the meta device and has no data: move the model to its device first")
        if hasattr(weight.parameter, "placements"):
            raise ValueError(f"{name} is a DTensor, sharded over processes: attach a method to whole weights")
