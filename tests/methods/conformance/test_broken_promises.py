"""Methods that break one promise each: the kit names it, and no other."""

from __future__ import annotations

import re
from typing import Any

import broken_methods as broken
import pytest
import subtle_bugs as subtle
import torch

from methods import Context, Method
from methods.conformance import ConformanceError, check, check_method
from methods.conformance import ways as other_ways
from methods.conformance.networks import FAST


def broken_promises(method: type[Method] | Any, **values: Any) -> set[str]:
    try:
        check_method(method, **values)
    except ConformanceError as error:
        return set(re.findall(r"^  (\w+)", str(error), flags=re.MULTILINE))
    return set()


@pytest.mark.parametrize(
    ("method", "want"),
    [
        (object, {"check_class"}),
        (7, {"check_class"}),
        (broken.NoPromise, {"check_class"}),
        (broken.NoReference, {"check_class"}),
        (broken.NeedsAnArgument, {"check_class"}),
        (broken.ForgetsAHyperparameter, {"check_hyperparameters", "check_training"}),
        (broken.IgnoresAHyperparameter, {"check_hyperparameters"}),
        (broken.OverwritesAHyperparameter, {"check_hyperparameters"}),
        (broken.TakesAnyHyperparameter, {"check_unknown_hyperparameter_is_refused"}),
        (broken.RaisesLate, {"check_training"}),
        (broken.EmptyPhase, {"check_phases", "check_training"}),
        (broken.ChangingPhases, {"check_phases"}),
        (broken.VectorPenalty, {"check_penalty_is_a_finite_scalar"}),
        (broken.InfinitePenalty, {"check_penalty_is_a_finite_scalar"}),
        (broken.UnzeroedWeights, {"check_pruned_weights_are_zero"}),
        (broken.StaleCounts, {"check_kept_counts"}),
        (broken.ZeroesBehindTheMasks, {"check_masks_are_the_zeros_of_the_finalized_weights"}),
        (broken.DriftingCount, {"check_density_promise"}),
        (broken.DriftsLater, {"check_density_promise"}),
        (broken.PromisesDense, {"check_density_promise"}),
        (broken.NeverArrives, {"check_density_promise"}),
        (broken.ExactlyWhat, {"check_density_promise"}),
        (broken.PrunesBiases, {"check_other_parameters_untouched", "check_excluded_untouched"}),
        (broken.ScoresInTrainingMode, {"check_other_parameters_untouched"}),
        (broken.PrunesTheExcluded, {"check_excluded_untouched"}),
        (broken.KeepsMomentum, {"check_optimizer_state_of_grown_weights"}),
        (broken.OtherEachTime, {"check_same_seed_same_run"}),
        (broken.GoesOnDrawing, {"check_same_seed_same_run"}),
        (broken.FixedSeed, {"check_other_seed_other_masks"}),
        (broken.FixedSeedOfNumPy, {"check_other_seed_other_masks"}),
        (broken.FixedSeedOfPython, {"check_other_seed_other_masks"}),
        (broken.ForgetsState, {"check_resume_is_bit_exact"}),
        (broken.SavesWhatIsUnsafeToLoad, {"check_resume_is_bit_exact"}),
        (broken.CountsItsOwnSteps, {"check_resume_is_bit_exact"}),
        (broken.TorchRandomness, {"check_global_randomness_untouched"}),
        (broken.NumpyRandomness, {"check_global_randomness_untouched"}),
        (broken.PythonRandomness, {"check_global_randomness_untouched"}),
        (broken.Hooks, {"check_finalize_gives_a_plain_model"}),
        (broken.Unpicklable, {"check_copies_compute_the_same"}),
        (broken.NeverTrains, {"check_other_parameters_untouched", "check_task_loss_falls"}),
        (subtle.KeepsTheComplement, {"check_drop_fraction", "check_task_loss_falls"}),
        (subtle.KeepsTheMostNegative, {"check_drop_fraction"}),
        (subtle.RedistributesAnyway, {"check_layer_counts"}),
        (subtle.LosesItsMasks, {"check_training"}),
        (subtle.ShufflesNothing, {"check_every_hyperparameter_has_an_effect"}),
        (subtle.DiscardsNewValues, {"check_every_hyperparameter_has_an_effect"}),
        (subtle.IgnoresItsFrequency, {"check_every_hyperparameter_has_an_effect"}),
        (subtle.PartsOfUnits, {"check_units_are_whole"}),
        (subtle.LosesUnits, {"check_density_promise"}),
        (subtle.CountsOneLayerLess, {"check_gradient_counts"}),
        (subtle.ZeroesMomentumThatItKeeps, {"check_optimizer_state_of_grown_weights"}),
        (subtle.LetsGradientsPass, {"check_gradients_of_pruned_weights", "check_optimizer_state_of_pruned_weights"}),
        (subtle.FillsMomentum, {"check_optimizer_state_of_pruned_weights"}),
        (subtle.MovesTheFrozen, {"check_other_parameters_untouched"}),
        (subtle.ReadsMoments, {"check_with_sgd", "check_with_nesterov", "check_with_clipped_gradients"}),
        (subtle.ZeroesTheMomentumBuffer, {"check_with_adam", "check_with_adamw"}),
        (subtle.CountsBackwardPasses, {"check_with_accumulated_gradients"}),
        (subtle.WritesToTheMemoryOfTheStart, {"check_with_kept_weights_only"}),
        (subtle.UndoesClipping, {"check_with_clipped_gradients"}),
        (subtle.ScoresInLowPrecision, {"check_with_autocast"}),
        (subtle.ZeroesOtherGradients, {"check_other_parameters_untouched"}),
        (subtle.ChangesTheLearningRate, {"check_other_parameters_untouched"}),
        (subtle.WipesAllState, {"check_other_parameters_untouched"}),
        (subtle.TrainsAQuarter, {"check_phases"}),
        (subtle.PrunesNothing, {"check_every_hyperparameter_has_an_effect"}),
        (broken.Random, set()),
        (broken.KeepsMomentumAndSaysSo, set()),
        (broken.SavesState, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_named_and_no_other(method: Any, want: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    only_on(monkeypatch, ON.get(method, "mlp"), ways=any(name.startswith("check_with") for name in want))
    assert broken_promises(method) == want


ON = {
    broken.ScoresInTrainingMode: "conv2d",
    subtle.MovesTheFrozen: "shared and frozen",
    subtle.ZeroesTheMomentumBuffer: "conv2d",
}


def only_on(monkeypatch: pytest.MonkeyPatch, name: str, *, ways: bool) -> None:
    """Check on one network; other ways of training cost half of the time."""
    monkeypatch.setattr(check, "FAST", tuple(network for network in FAST if network.name == name))
    if not ways:
        monkeypatch.setattr(other_ways, "CHECKS", ())


def test_masks_that_are_not_bool_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    only_on(monkeypatch, "mlp", ways=False)
    assert broken_promises(broken.FloatMasks) >= {"check_training"}


def test_the_error_lists_every_promise_with_network_and_fault() -> None:
    class Bad(broken.Random):
        def after_step(self, ctx: Context) -> None:
            torch.rand(1)
            next(iter(ctx.weights.values())).parameter.data.add_(1.0)

    with pytest.raises(ConformanceError) as caught:
        check_method(Bad)
    lines = str(caught.value).splitlines()
    assert lines[0] == "method 'plugin' breaks its promises:"
    for network in FAST:
        for promise, fault in (
            ("check_pruned_weights_are_zero", r"\d+ pruned weights of .*weight.* are not 0 after step 1"),
            ("check_global_randomness_untouched", r"a global generator moved at step 1: draw from ctx\.generator"),
        ):
            assert any(re.fullmatch(f"  {promise} on {network.name}: {fault}", line) for line in lines)
