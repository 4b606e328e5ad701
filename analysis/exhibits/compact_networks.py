"""The compact networks that DST's sparse patterns suggest, and a suite that trains them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.data.comparable import Group, groups, of_protocols
from analysis.data.conditions import Condition, Results, Summary, summarize
from analysis.data.epochs import ACCURACY, SETTLED, settled
from analysis.data.layers_and_curves import settled_ratios
from analysis.data.read import Tables
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import with_seeds
from analysis.output.plotting import Style, plain_log, small_multiples, style_of
from analysis.paper import printed
from analysis.statistics.small_samples import paired
from benchmark.spec import Data, Model, Optimizer, from_dict

NAME = "compact-networks"
VGG16 = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512)
OWN_WIDTHS = {"lenet-300-100": (300, 100), "lenet-5-caffe": (20, 50, 500), "vgg16": VGG16}
STEPS = 2000  # in which the factor of an even network is searched
CAPTION = "The compact networks that the sparse patterns suggest, trained densely (not in the paper)"
HEADS = ("Architecture", "Pattern of", "Network", "Widths", "Weights", "Test accuracy (%)", "Minus sparse")
KINDS = {
    "dense": "full, dense",
    "sparse": "sparse, DST",
    "compact": "compact, by the pattern",
    "even": "even, as many weights",
}
RULE = (
    "Rule: each hidden layer of the compact network keeps the share of its units or channels that is its weights' "
    "remaining ratio, rounded, at least 1 (mean over seeds); the output layer keeps its classes. Even: all hidden "
    "layers times one factor, with as many weights as the compact network."
)
READ = (
    "The sparse network is read at its last epoch; where its thresholds were reset, at its epoch of lowest density, "
    "as a layer keeps nearly everything soon after a reset. Dense ones are read at the last epoch."
)
HOW = (
    "Both are trained densely from their own first weights, with the optimizer of the sparse network: "
    f"python -m benchmark run --suite {NAME}.py. Test accuracy: mean ± standard deviation over n seeds; minus sparse: "
    "mean over the seeds that both have."
)


@dataclass(frozen=True)
class Network:
    """A network of one group.

    sparse: the DST condition that it is compared with, `settled`; found: its result, if any.
    """

    group: Group
    sparse: Condition
    kind: str
    widths: tuple[int, ...]
    weights: float
    found: Condition | None

    @property
    def accuracy(self) -> Summary:
        column = SETTLED["top1"] if self.kind == "sparse" else ACCURACY["top1", "last"]
        return summarize([], expected=0) if self.found is None else self.found.summary(column)

    @property
    def minus_sparse(self) -> Summary:
        if self.found is None or self.found is self.sparse or not len(self.found.done):
            return summarize([], expected=0)
        seeds = {*self.found.rows["seed"], *self.sparse.rows["seed"]}
        differences = paired(self.found.by_seed("test_accuracy"), self.sparse.by_seed(SETTLED["top1"]))
        return summarize(differences, expected=len(seeds))


def suggested(own: Sequence[int], remaining: Sequence[float]) -> tuple[int, ...]:
    """The widths of the compact network: each hidden layer keeps the share of its weights.

    own: widths of the hidden layers. remaining: ratios of every layer; the output layer's is last,
    and its units, the classes, stay. A layer keeps at least one unit. Raises ValueError where the
    lengths do not fit.
    """
    if len(remaining) != len(own) + 1:
        raise ValueError(f"{len(remaining)} ratios for {len(own)} hidden layers: it must be one more")
    return tuple(max(1, round(ratio * width)) for width, ratio in zip(own, remaining, strict=False))


def weights_of(own: Sequence[int], widths: Sequence[int], weights: Sequence[int]) -> int:
    """How many weights the network has with other widths.

    weights: those of each layer at its `own` widths.
    """
    ratios = [1.0, *(new / old for old, new in zip(own, widths, strict=True)), 1.0]
    return sum(round(count * ratios[i] * ratios[i + 1]) for i, count in enumerate(weights))


def even(own: Sequence[int], weights: Sequence[int], wanted: int) -> tuple[int, ...]:
    """All hidden layers times one factor, so that the weights come nearest to `wanted`."""
    ladder = dict.fromkeys(tuple(max(1, round(step / STEPS * width)) for width in own) for step in range(1, STEPS + 1))
    return min(ladder, key=lambda widths: abs(math.log(weights_of(own, widths, weights) / wanted)))


def networks(results: Results) -> list[Network]:
    """For every DST condition with a layer table: the full, sparse, compact and even network."""
    narrow = [c for c in results.conditions if c.widths is not None and c.method == "dense" and len(c.rows)]
    return [
        network
        for group in of_protocols(groups(results.conditions))
        if group.model in OWN_WIDTHS
        for sparse in map(settled, group.of("dst"))
        if "initialization" not in sparse.spec["model"]
        for network in _of_condition(results.tables, group, sparse, narrow)
    ]


def suite_file(found: Iterable[Network]) -> str:
    """A suite that trains the compact and the even networks."""
    lines: dict[str, None] = {}
    for network in found:
        if network.kind in ("compact", "even"):
            spec = from_dict(network.sparse.spec)
            model = _call(Model(name=spec.model.name, widths=network.widths))
            lines[f"    ({_call(spec.data)}, {model}, {_call(spec.optimizer)}),"] = None
    return SUITE.format(networks="\n".join(lines))


def _of_condition(tables: Tables, group: Group, sparse: Condition, narrow: Sequence[Condition]) -> list[Network]:
    measured = settled_ratios(tables, sparse)
    own = OWN_WIDTHS[group.model]
    if measured is None or len(measured.names) != len(own) + 1:
        return []
    weights = [int(count) for count in measured.weights]
    compact = suggested(own, [float(ratio) for ratio in measured.remaining.mean(axis=0)])
    size = weights_of(own, compact, weights)
    evenly = even(own, weights, size)
    trained = {c.widths: c for c in narrow if _same_training(c, sparse)}
    return [
        Network(group, sparse, "dense", own, sum(weights), group.dense),
        Network(group, sparse, "sparse", own, float(measured.kept.sum(axis=1).mean()), sparse),
        Network(group, sparse, "compact", compact, size, trained.get(compact)),
        Network(group, sparse, "even", evenly, weights_of(own, evenly, weights), trained.get(evenly)),
    ]


def _same_training(narrow: Condition, sparse: Condition) -> bool:
    same = all(narrow.spec[section] == sparse.spec[section] for section in ("data", "optimizer", "precision"))
    return same and narrow.architecture == sparse.architecture


def _write_suite(found: Sequence[Network], out: Path) -> tuple[Path, ...]:
    path = out / f"{NAME}.py"
    path.write_text(suite_file(found), encoding="utf-8")
    return (path,)


def _remark(found: Sequence[Network]) -> str:
    missing = sum(1 for n in found if n.kind in ("compact", "even") and not n.accuracy.n)
    return f"{missing} networks not run" if missing else ""


def _cells(network: Network) -> tuple[str, ...]:
    difference = network.minus_sparse
    return (
        network.group.title,
        network.sparse.label,
        KINDS[network.kind],
        "-".join(map(str, network.widths)),
        f"{round(network.weights):,}",
        with_seeds(network.accuracy),
        f"{difference.mean:+.2f}" if difference.n else "",
    )


def _records(network: Network) -> Iterator[dict[str, Any]]:
    accuracy, difference = network.accuracy, network.minus_sparse
    yield {
        "dataset": network.group.dataset, "model": network.group.model, "recipe": network.group.label,
        "alpha": network.sparse.alpha, "network": network.kind, "widths": "-".join(map(str, network.widths)),
        "weights": float(network.weights), "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd,
        "n": accuracy.n, "expected": accuracy.expected, "minus_sparse_mean": difference.mean,
        "minus_sparse_sd": difference.sd, "minus_sparse_n": difference.n,
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
            f"{printed.architecture(sparse.group.model)} on {sparse.group.dataset} at {sparse.sparse.label}: the "
            f"compact network of {compact.weights:,.0f} weights reaches {compact.accuracy.mean:.2f} %, the sparse one "
            f"of {sparse.weights:,.0f} reaches {sparse.accuracy.mean:.2f} %{versus}."
        )
    if sentences:
        return " ".join(sentences)
    count = sum(1 for n in found if n.kind == "compact")
    return f"{count} compact networks are suggested; none of them is trained yet."


def _draw(found: Sequence[Network]) -> Any:
    titles = list(dict.fromkeys(n.group.title for n in found))
    figure, axes = small_multiples(
        len(titles), columns=3, size=(4.6, 3.1), title=f"{CAPTION}\nerror bars: one standard deviation over seeds"
    )
    for axis, title in zip(axes, titles, strict=True):
        _panel(axis, [n for n in found if n.group.title == title])
        axis.set_title(title)
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=line) for look, line, _ in LOOKS.values()
    ]
    names = [name for *_, name in LOOKS.values()]
    figure.legend(handles, names, loc="outside lower left", ncols=4, fontsize=8, handlelength=3)


LOOKS: dict[str, tuple[Style, Any, str]] = {
    "dense": (style_of("dense"), "-", "Full, dense"),
    "sparse": (style_of("dst"), "-", "Sparse, DST"),
    "compact": (style_of("sparse_momentum"), "--", "Compact, by the pattern"),
    "even": (style_of("set"), ":", "Even"),
}


def _panel(axis: Any, found: Sequence[Network]) -> None:
    for kind, (look, line, _) in LOOKS.items():
        points = {n.weights: n.accuracy for n in found if n.kind == kind and n.accuracy.n}
        if points:
            at = sorted(points)
            axis.errorbar(
                at, [points[x].mean for x in at], yerr=[points[x].sd if points[x].n > 1 else 0 for x in at],
                color=look.colour, marker=look.marker, linestyle=line, linewidth=1.2, markersize=6, capsize=2,
            )  # fmt: skip
    missing = [name for kind, (_, _, name) in LOOKS.items() if not any(n.accuracy.n for n in found if n.kind == kind)]
    if missing:
        axis.text(0.98, 0.04, f"not run: {', '.join(missing)}", transform=axis.transAxes, ha="right", fontsize=7.5)
    axis.set(xlabel="Weights kept", ylabel="Test accuracy (%)")
    plain_log(axis, "x", most=5)


def _call(section: Data | Model | Optimizer) -> str:
    """Python that makes this part of a checked spec: fields that the class has, and literals."""
    given = sorted((name, value) for name, value in vars(section).items() if value is not None)
    return f"{type(section).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"


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
EXHIBIT = TableWithFigure(
    name=NAME,
    caption=CAPTION,
    heads=HEADS,
    labels=4,
    notes=(RULE, READ, HOW),
    lines=networks,
    cells=_cells,
    records=_records,
    run_ids=lambda network: () if network.found is None else network.found.run_ids,
    finding=_finding,
    figure=_draw,
    remark=_remark,
    more_files=_write_suite,
)
