"""The compact networks that DST's sparse patterns suggest: widths, a suite that trains them, and the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.exhibit import Maker, Results, Written, with_figure, write_layout
from analysis.layer_ratios import Layers, layers_by_run, ratios
from analysis.layout import Layout
from analysis.panels import Mark, mark, panels, plain_log
from analysis.recipes import Recipe, lost_note, model_name, recipes
from analysis.render import reading
from analysis.settings import Setting, Summary, summarize
from analysis.stats import paired
from analysis.widths import OWN, architecture, even, suggested, weights_of, widths_of

NAME = "compact-networks"
CAPTION = "The compact networks that the sparse patterns suggest, trained densely (not in the paper)"
HEADS = ("Architecture", "Pattern of", "Network", "Widths", "Weights", "Test accuracy (%)", "Minus sparse")
LABELS = 4
KINDS = {
    "dense": "full, dense",
    "sparse": "sparse, DST",
    "compact": "compact, by the pattern",
    "even": "even, as many weights",
}
RULE = (
    "Rule: a hidden layer of the compact network has the remaining ratio of its weights times its own number of units "
    "or channels, rounded, at least 1 (mean over seeds, last epoch); the output layer keeps its classes. Even: all "
    "hidden layers times one factor, with as many weights as the compact network."
)
HOW = (
    "Both are trained densely from their own first weights with the recipe of the sparse network: "
    f"python -m benchmark run --suite {NAME}.py. Test accuracy of the last epoch, mean ± standard deviation over n "
    "seeds; minus sparse: mean over the seeds that both have."
)


@dataclass(frozen=True)
class Network:
    """A network of one recipe. sparse: the DST setting that it stands beside; found: its result, if there is one."""

    recipe: Recipe
    sparse: Setting
    kind: str
    widths: tuple[int, ...]
    weights: float
    found: Setting | None

    @property
    def accuracy(self) -> Summary:
        return summarize([], expected=0) if self.found is None else self.found.summary("test_accuracy")

    @property
    def minus_sparse(self) -> Summary:
        if self.found is None or self.found is self.sparse or not len(self.found.done):
            return summarize([], expected=0)
        seeds = {*self.found.rows["seed"], *self.sparse.rows["seed"]}
        differences = paired(self.found.by_seed("test_accuracy"), self.sparse.by_seed("test_accuracy"))
        return summarize(differences, expected=len(seeds))


def makers(results: Results) -> dict[str, Maker]:
    return {NAME: lambda out: _write(results, out)}


def networks(results: Results) -> list[Network]:
    """Of every DST setting with a layer table: the full, the sparse, the compact and the even network."""
    layers = layers_by_run(results.tables)
    narrow = [s for s in results.settings if widths_of(s) is not None and s.method == "dense" and len(s.rows)]
    return [
        network
        for recipe in recipes(results.settings)
        if recipe.model in OWN
        for sparse in recipe.of("dst")
        if "initialization" not in sparse.spec["model"]
        for network in _beside(layers, recipe, sparse, narrow)
    ]


def suite_file(found: Iterable[Network]) -> str:
    """A suite that trains the compact and the even networks."""
    lines: dict[str, None] = {}
    for network in found:
        if network.kind in ("compact", "even"):
            spec = network.sparse.spec
            data, optimizer = (_call(kind, spec[kind.lower()]) for kind in ("Data", "Optimizer"))
            model = f'Model(name="{architecture(network.sparse)}", widths={network.widths!r})'
            lines[f"    ({data}, {model}, {optimizer}),"] = None
    return SUITE.format(networks="\n".join(lines))


def _beside(layers: Mapping[str, Layers], recipe: Recipe, sparse: Setting, narrow: Sequence[Setting]) -> list[Network]:
    measured = ratios(sparse, layers)
    own = OWN[recipe.model]
    if measured is None or len(measured.names) != len(own) + 1:
        return []
    weights = [int(count) for count in measured.weights]
    compact = suggested(own, [float(ratio) for ratio in measured.remaining.mean(axis=0)])
    size = weights_of(own, compact, weights)
    evenly = even(own, weights, size)
    trained = {widths: s for s in narrow if (widths := widths_of(s)) and _same_training(s, sparse)}
    return [
        Network(recipe, sparse, "dense", own, sum(weights), recipe.dense),
        Network(recipe, sparse, "sparse", own, float(measured.kept.sum(axis=1).mean()), sparse),
        Network(recipe, sparse, "compact", compact, size, trained.get(compact)),
        Network(recipe, sparse, "even", evenly, weights_of(own, evenly, weights), trained.get(evenly)),
    ]


def _same_training(narrow: Setting, sparse: Setting) -> bool:
    same = all(narrow.spec[section] == sparse.spec[section] for section in ("data", "optimizer", "precision"))
    return same and architecture(narrow) == architecture(sparse)


def _write(results: Results, out: Path) -> Written:
    found = networks(results)
    notes = (RULE, HOW, *lost_note(results.settings))
    shown = Layout(NAME, CAPTION, HEADS, tuple(map(_row, found)), notes, labels=LABELS)
    run_ids = [run_id for network in found if network.found for run_id in network.found.done["run_id"]]
    missing = sum(1 for n in found if n.kind in ("compact", "even") and not n.accuracy.n)
    remark = f"{missing} networks not run" if missing else ""
    data = [_numbers(network) for network in found]
    written = write_layout(shown, data, out, run_ids=run_ids, finding=_finding(found), remark=remark)
    if not found:
        return written
    path = out / f"{NAME}.py"
    path.write_text(suite_file(found), encoding="utf-8")
    return with_figure(replace(written, files=(*written.files, path)), _draw(found), out)


def _row(network: Network) -> tuple[str, ...]:
    difference = network.minus_sparse
    return (
        network.recipe.title,
        f"α = {network.sparse.alpha:g}",
        KINDS[network.kind],
        "-".join(map(str, network.widths)),
        f"{round(network.weights):,}",
        reading(network.accuracy),
        f"{difference.mean:+.2f}" if difference.n else "",
    )


def _numbers(network: Network) -> dict[str, Any]:
    accuracy, difference = network.accuracy, network.minus_sparse
    run_ids = [] if network.found is None else list(network.found.done["run_id"])
    return {
        "dataset": network.recipe.dataset, "model": network.recipe.model, "recipe": network.recipe.label,
        "alpha": network.sparse.alpha, "network": network.kind, "widths": "-".join(map(str, network.widths)),
        "weights": float(network.weights), "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd,
        "n": accuracy.n, "expected": accuracy.expected, "minus_sparse_mean": difference.mean,
        "minus_sparse_sd": difference.sd, "minus_sparse_n": difference.n, "run_ids": ";".join(run_ids),
    }  # fmt: skip


def _finding(found: Sequence[Network]) -> str:
    sentences = []
    for sparse in (n for n in found if n.kind == "sparse"):
        beside = {n.kind: n for n in found if n.sparse is sparse.sparse}
        compact, control = beside["compact"], beside["even"]
        if not compact.accuracy.n:
            continue
        versus = f", an even network {control.accuracy.mean:.2f} %" if control.accuracy.n else ""
        sentences.append(
            f"{model_name(sparse.recipe.model)} on {sparse.recipe.dataset} at alpha {sparse.sparse.alpha:g}: the "
            f"compact network of {compact.weights:,.0f} weights reaches {compact.accuracy.mean:.2f} %, the sparse one "
            f"of {sparse.weights:,.0f} reaches {sparse.accuracy.mean:.2f} %{versus}."
        )
    if sentences:
        return " ".join(sentences)
    count = sum(1 for n in found if n.kind == "compact")
    return f"{count} compact networks are suggested; none of them is trained yet."


def _draw(found: Sequence[Network]) -> Any:
    titles = list(dict.fromkeys(n.recipe.title for n in found))
    figure, axes = panels(
        len(titles), columns=3, size=(4.6, 3.1), title=f"{CAPTION}\nerror bars: one standard deviation over seeds"
    )
    for axis, title in zip(axes, titles, strict=True):
        _panel(axis, [n for n in found if n.recipe.title == title])
        axis.set_title(title)
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=line) for look, line, _ in STYLES.values()
    ]
    names = [name for *_, name in STYLES.values()]
    figure.legend(handles, names, loc="outside lower left", ncols=4, fontsize=8, handlelength=3)


STYLES: dict[str, tuple[Mark, Any, str]] = {
    "dense": (mark("dense"), "-", "Full, dense"),
    "sparse": (mark("dst"), "-", "Sparse, DST"),
    "compact": (mark("sparse_momentum"), "--", "Compact, by the pattern"),
    "even": (mark("set"), ":", "Even"),
}


def _panel(axis: Any, found: Sequence[Network]) -> None:
    for kind, (look, line, _) in STYLES.items():
        points = {n.weights: n.accuracy for n in found if n.kind == kind and n.accuracy.n}
        if points:
            at = sorted(points)
            axis.errorbar(
                at, [points[x].mean for x in at], yerr=[points[x].sd if points[x].n > 1 else 0 for x in at],
                color=look.colour, marker=look.marker, linestyle=line, linewidth=1.2, markersize=6, capsize=2,
            )  # fmt: skip
    missing = [name for kind, (_, _, name) in STYLES.items() if not any(n.accuracy.n for n in found if n.kind == kind)]
    if missing:
        axis.text(0.98, 0.04, f"not run: {', '.join(missing)}", transform=axis.transAxes, ha="right", fontsize=7.5)
    axis.set(xlabel="Weights kept", ylabel="Test accuracy, last epoch (%)")
    plain_log(axis, "x", most=5)


def _call(kind: str, values: dict[str, Any]) -> str:
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return f"{kind}({', '.join(f'{key}={value!r}' for key, value in given.items())})"


SUITE = '''"""The compact networks that the sparse patterns of dst suggest, and even ones of as many weights.

Written by `python -m analysis build` from the measured layers: compact-networks.md has the rule.
"""

# ruff: noqa
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "dense training of the compact networks that the sparse patterns suggest, and of even ones"
EXHIBITS = ("compact-networks",)
SEEDS = range(3)
NETWORKS = [
{networks}
]


def suite() -> list[RunSpec]:
    return [
        cell("dense", data=data, model=model, optimizer=optimizer, seed=seed, protocol=())
        for seed in SEEDS
        for data, model, optimizer in NETWORKS
    ]
'''
