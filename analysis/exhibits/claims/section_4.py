"""The claims on accuracy and remaining ratio: sections 4.1, 4.2 and 5.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from analysis.evidence import BEST, LAST, Outcome, judge, layers_of, mean_of, measured, not_run, seeds, twin_of
from analysis.exhibit import Results
from analysis.settings import Setting

FIGURE_3 = ("vgg16", "wrn-16-8", "wrn-28-8")
MNIST = ("lenet-300-100", "lenet-5-caffe", "lstm-a", "lstm-b")
PATTERN_ALPHAS = (1e-6, 5e-6, 1e-5)  # ours: the paper does not print figure 7's
RATE = 0.1  # the initial learning rate of Figures 3 and 7
REDUNDANT = (*(f"conv{number}.weight" for number in range(10, 14)), "fc1.weight")
KEPT = (*(f"conv{number}.weight" for number in range(3, 8)), "fc2.weight")


def lenets_prune_98(results: Results) -> Outcome:
    return _some_alpha(results, MNIST[:2], BEST, 0.025, lambda density, gap: density <= 0.025 and gap >= -0.5)


def lstms_beat_dense(results: Results) -> Outcome:
    return _some_alpha(results, MNIST[2:], LAST, 0.01, lambda density, gap: density < 0.01 and gap > 0)


def moderate_alpha_is_as_good(results: Results) -> Outcome:
    return _some_alpha(results, FIGURE_3, BEST, 0.5, lambda density, gap: density <= 0.5 and gap >= -0.3)


def density_falls_on_cifar10(results: Results) -> Outcome:
    return _density_falls(results, FIGURE_3)


def density_falls_on_mnist(results: Results) -> Outcome:
    return _density_falls(results, MNIST)


def accuracy_drops_below_5(results: Results) -> Outcome:
    held, said, used = [], [], []
    for setting in (s for model in FIGURE_3 for s in _on_ladder(results, model)):
        gap = _gap(results, setting, BEST[0])
        density = mean_of(setting, BEST[1])
        if gap is not None and density < 0.05:
            held.append(gap <= -0.5)
            used.append(setting)
            said.append(
                f"{setting.model} alpha {setting.alpha:g}: {gap:+.2f} at {100 * density:.2f} % ({seeds(setting)})"
            )
    return judge(held, "; ".join(said), used) if held else not_run("no setting with its dense baseline is below 5 %")


def redundant_layers_are_sparse(results: Results) -> Outcome:
    return _beside_the_whole(results, REDUNDANT, sparser=True)


def other_layers_are_kept(results: Results) -> Outcome:
    return _beside_the_whole(results, KEPT, sparser=False)


def _beside_the_whole(results: Results, names: Sequence[str], *, sparser: bool) -> Outcome:
    """Whether layers of VGG-16 keep less, or more, than the network as a whole; a unit is a layer at an alpha."""
    held, said, used = [], [], []
    for setting in _on_ladder(results, "vgg16"):
        layers, whole = layers_of(results, setting), mean_of(setting, "density")
        if setting.alpha in PATTERN_ALPHAS and set(names) <= set(layers.index):
            chosen = layers[list(names)]
            held += list(chosen < whole if sparser else chosen > whole)
            used.append(setting)
            span = f"{100 * chosen.min():.1f}-{100 * chosen.max():.1f} %"
            said.append(f"alpha {setting.alpha:g}: {span}, whole network {100 * whole:.1f} % ({seeds(setting)})")
    return judge(held, "; ".join(said), used)


def _density_falls(results: Results, models: Sequence[str]) -> Outcome:
    """A unit is a step from one alpha to the next."""
    held, said, used, missing = [], [], [], []
    for model in models:
        ladder = _on_ladder(results, model)
        if len(ladder) < 3:
            missing.append(f"{model}: not run")
            continue
        densities = [mean_of(setting, "density") for setting in ladder]
        held += [after < before for before, after in pairwise(densities)]
        used += ladder
        said.append(f"{model}: {', '.join(f'{100 * value:.3g}' for value in densities)} % {_alphas(ladder)}")
    return judge(held, "; ".join([*said, *missing]), used) if held else not_run()


def _some_alpha(
    results: Results,
    models: Sequence[str],
    columns: tuple[str, str],
    bound: float,
    good: Callable[[float, float], bool],
) -> Outcome:
    """Whether each model has an alpha that is good by its mean density and its mean difference to dense.

    Only alphas that got as sparse as the bound can say that there is none.
    """
    held, said, used = [], [], []
    for model in models:
        found = [(s, _gap(results, s, columns[0])) for s in measured(results, model) if s.alpha is not None]
        known = [(s, mean_of(s, columns[1]), gap) for s, gap in found if gap is not None]
        if not known:
            continue
        fine = [entry for entry in known if good(entry[1], entry[2])]
        reached = fine or [entry for entry in known if entry[1] <= bound]
        if not reached:
            shown, density, _ = min(known, key=lambda e: e[1])
            said.append(f"{model}: no alpha that was run leaves so little; alpha {shown.alpha:g} {100 * density:.2f} %")
            continue
        shown, density, gap = max(reached, key=lambda e: e[2])
        word = "" if fine else ", the best as sparse"
        held.append(bool(fine))
        used += [s for s, _, _ in known]
        said.append(f"{model} alpha {shown.alpha:g}{word}: {gap:+.2f} at {100 * density:.2f} % ({seeds(shown)})")
    missing = [f"{model}: not run" for model in models if not any(text.startswith(model) for text in said)]
    return judge(held, "; ".join([*said, *missing]) if said else "", used)


def _gap(results: Results, setting: Setting, column: str) -> float | None:
    """Mean sparse minus dense accuracy over the seeds that both have."""
    twin = twin_of(results, setting)
    if twin is None:
        return None
    sparse, dense = (s.done.set_index("seed")[column] for s in (setting, twin))
    both = sparse.index.intersection(dense.index)
    return float((sparse[both] - dense[both]).mean()) if len(both) else None


def _on_ladder(results: Results, model: str) -> list[Setting]:
    """The settings of a model that differ in alpha alone, by alpha."""
    rate = RATE if model in FIGURE_3 else None
    found = [s for s in measured(results, model, lr=rate) if s.alpha is not None]
    return sorted(found, key=lambda s: s.alpha or 0.0)


def _alphas(ladder: Sequence[Setting]) -> str:
    smallest = min(len(s.done) for s in ladder)
    return f"at alpha {', '.join(f'{s.alpha:g}' for s in ladder)} (n>={smallest} each)"
