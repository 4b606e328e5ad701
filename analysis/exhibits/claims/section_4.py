"""The claims of sections 4.1 and 4.2: accuracy and remaining ratio on MNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from analysis.data.conditions import Condition, Results
from analysis.data.epochs import ACCURACY, DENSITY
from analysis.exhibits.claims.claim import (
    MNIST_MODELS,
    Outcome,
    by_alpha,
    claim,
    judge,
    mean_of,
    measured,
    twin_of,
)

CIFAR10_MODELS = ("vgg16", "wrn-16-8", "wrn-28-8")  # of Figure 3
LAST = (ACCURACY["top1", "last"], DENSITY["last"])
BEST = (ACCURACY["top1", "best"], DENSITY["best"])


@claim(
    "lenets-98-pruned",
    section="4.1",
    claim="The LeNets lose little accuracy with almost 98 % of the weights pruned",
    paper=(
        '"Our method can prune almost 98% parameter with little loss of performance on Lenet-300-100 and Lenet-5-Caffe"'
    ),
    tested_by="some alpha leaves at most 2.5 % and is at most 0.5 points below dense, best epoch, for both networks",
)
def lenets_prune_98(results: Results) -> Outcome:
    return _some_alpha(results, MNIST_MODELS[:2], BEST, 0.025, lambda density, gap: density <= 0.025 and gap >= -0.5)


@claim(
    "lstm-99-pruned",
    section="4.1",
    claim="LSTMs with over 99 % of the weights pruned beat dense ones",
    paper=(
        '"sparse models with better performance than dense baseline with over 99% parameter pruned" (its '
        "Table 1 has 98.07 % for LSTM-a)"
    ),
    tested_by="some alpha leaves less than 1 % and is above dense, last epoch, true density, for LSTM-a and LSTM-b",
)
def lstms_beat_dense(results: Results) -> Outcome:
    return _some_alpha(results, MNIST_MODELS[2:], LAST, 0.01, lambda density, gap: density < 0.01 and gap > 0)


@claim(
    "density-falls",
    section="4.2",
    claim="The remaining ratio falls as alpha rises",
    paper='"the model remaining ratio keeps decreasing with increasing alpha"',
    tested_by="CIFAR-10: mean density falls at every step of alpha, for each network with three alphas or more",
)
def density_falls_on_cifar10(results: Results) -> Outcome:
    return _density_falls(results, CIFAR10_MODELS)


@claim(
    "density-falls-mnist",
    section="4.2 (ours: on MNIST)",
    claim="The remaining ratio falls as alpha rises",
    paper="the same words; there it is about CIFAR-10, this row is our addition",
    tested_by="MNIST: mean density falls at every step of alpha, for each network with three alphas or more",
)
def density_falls_on_mnist(results: Results) -> Outcome:
    return _density_falls(results, MNIST_MODELS)


@claim(
    "drop-below-5",
    section="4.2",
    claim="Below 5 % remaining the accuracy drops noticeably",
    paper=(
        '"if the alpha value is too large that makes the model remaining percentage less than 5%, there '
        'will be a noticeable accuracy drop"'
    ),
    tested_by="CIFAR-10: every condition below 5 % is at least 0.5 points below dense, best epoch (0.5 is ours)",
)
def accuracy_drops_below_5(results: Results) -> Outcome:
    held, said, used = [], [], []
    for condition in (s for model in CIFAR10_MODELS for s in by_alpha(results, model)):
        gap = _gap(results, condition, BEST[0])
        density = mean_of(condition, BEST[1])
        if gap is not None and density < 0.05:
            held.append(gap <= -0.5)
            used.append(condition)
            said.append(
                f"{condition.model} alpha {condition.alpha:g}: {gap:+.2f} at {100 * density:.2f} % ({condition.seeds})"
            )
    return judge(held, "; ".join(said) or "no condition with its dense baseline is below 5 %", used)


@claim(
    "moderate-alpha",
    section="4.2",
    claim="A moderate alpha gives a sparse network as good as dense",
    paper=(
        '"With a moderate alpha value, it is easy to obtain a sparse model with comparable or even higher'
        ' accuracy than the dense counterpart"'
    ),
    tested_by=(
        "CIFAR-10: some alpha leaves at most half of the weights and is at most 0.3 points below dense, "
        "best epoch, for each network"
    ),
)
def moderate_alpha_is_as_good(results: Results) -> Outcome:
    return _some_alpha(results, CIFAR10_MODELS, BEST, 0.5, lambda density, gap: density <= 0.5 and gap >= -0.3)


def _density_falls(results: Results, models: Sequence[str]) -> Outcome:
    """A unit is a step from one alpha to the next."""
    held, said, used, missing = [], [], [], []
    for model in models:
        found = by_alpha(results, model)
        if len(found) < 3:
            missing.append(f"{model}: not run")
            continue
        densities = [mean_of(condition, "density") for condition in found]
        held += [after < before for before, after in pairwise(densities)]
        used += found
        said.append(f"{model}: {', '.join(f'{100 * value:.3g}' for value in densities)} % {_alphas(found)}")
    return judge(held, "; ".join([*said, *missing]) if held else "", used)


def _some_alpha(
    results: Results,
    models: Sequence[str],
    columns: tuple[str, str],
    bound: float,
    good: Callable[[float, float], bool],
) -> Outcome:
    """Whether each model has an alpha that is good by mean density and mean difference to dense.

    Only alphas that got as sparse as the bound can show that there is none.
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
        said.append(f"{model} alpha {shown.alpha:g}{word}: {gap:+.2f} at {100 * density:.2f} % ({shown.seeds})")
    missing = [f"{model}: not run" for model in models if not any(text.startswith(model) for text in said)]
    return judge(held, "; ".join([*said, *missing]) if said else "", used)


def _gap(results: Results, condition: Condition, column: str) -> float | None:
    """Mean sparse minus dense accuracy over the seeds that both have."""
    twin = twin_of(results, condition)
    if twin is None:
        return None
    sparse, dense = (s.done.set_index("seed")[column] for s in (condition, twin))
    both = sparse.index.intersection(dense.index)
    return float((sparse[both] - dense[both]).mean()) if len(both) else None


def _alphas(found: Sequence[Condition]) -> str:
    smallest = min(len(s.done) for s in found)
    return f"at alpha {', '.join(f'{s.alpha:g}' for s in found)} (n>={smallest} each)"
