"""Which settings a figure of DST shows, how many seeds they have, and what is left out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis import paper
from analysis.exhibit import Results
from analysis.settings import Setting, seeds
from analysis.tables import follows_protocol

ORDER = tuple(paper.ARCHITECTURES)


def dst_settings(
    results: Results,
    dataset: str,
    model: str,
    *,
    alpha: float | None = None,
    lr: float | None = None,
    done: bool = True,
) -> list[Setting]:
    """DST's settings with finished runs, of the paper's protocol where it has any; unless `done`, without runs too."""
    found = [
        s
        for s in results.settings
        if (s.dataset, s.model, s.method) == (dataset, model, "dst")
        and follows_protocol(s)
        and len(s.rows)
        and (alpha is None or s.alpha == alpha)
        and (lr is None or s.spec["optimizer"]["lr"] == lr)
    ]
    finished = [s for s in found if len(s.done)]
    protocol = "paper" if not finished or any("paper" in s.protocols for s in finished) else "official"
    return [s for s in (finished if done else found) if protocol in s.protocols]


def of_dataset(results: Results, dataset: str) -> list[Setting]:
    """DST's settings of a data set: those of a protocol where the paper has the data set."""
    own = [s for s in results.settings if (s.dataset, s.method) == (dataset, "dst") and len(s.rows)]
    return [s for s in own if dataset not in paper.DATASETS or follows_protocol(s)]


def models_of(results: Results, dataset: str) -> list[str]:
    """The models of `of_dataset`, in the paper's order."""
    own = dict.fromkeys(s.model for s in of_dataset(results, dataset))
    return sorted(own, key=lambda model: (ORDER.index(model) if model in ORDER else len(ORDER), model))


def one_each_alpha(settings: Iterable[Setting]) -> tuple[Setting, ...]:
    """Where several settings share an alpha, the one with most finished seeds."""
    chosen: dict[float, Setting] = {}
    for setting in settings:
        alpha = setting.alpha or 0.0
        if alpha not in chosen or len(setting.done) > len(chosen[alpha].done):
            chosen[alpha] = setting
    return tuple(chosen[alpha] for alpha in sorted(chosen))


def three(settings: Sequence[Setting]) -> list[Setting]:
    """The lowest, middle and highest alpha of more than three."""
    if len(settings) <= 3:
        return list(settings)
    return [settings[0], settings[len(settings) // 2], settings[-1]]


def protocol_note(setting: Setting) -> str:
    """For a title: which protocol, where it is not the paper's."""
    return "official protocol, " if setting.protocols == ("official",) else ""


def count(settings: Sequence[Setting]) -> str:
    """n=3, n=2/3, or n=1 to 3 where settings differ."""
    counts = sorted({(len(s.done), len(s.rows)) for s in settings})
    if len(counts) > 1 and counts[0][0] < counts[-1][0]:
        return f"n={counts[0][0]} to {counts[-1][0]}"
    return seeds(*counts[-1])


def incomplete(settings: Iterable[Setting]) -> list[str]:
    """Which settings lack seeds."""
    return [
        f"{s.model} {s.method}{f' alpha {s.alpha:g}' if s.alpha else ''}: n={len(s.done)}/{len(s.rows)}"
        for s in settings
        if len(s.done) < len(s.rows)
    ]


def left_out_counts(results: Results, shown: Sequence[Setting]) -> list[str]:
    """How many cells are in no mean: of these settings, or departing from them in other fields."""
    counts: dict[str, int] = {}
    for setting in shown:
        for status, lost in setting.lost().items():
            counts[status] = counts.get(status, 0) + lost
    kinds = {(s.dataset, s.model, s.method, s.alpha) for s in shown}
    departing = sum(s.departing for s in results.settings if (s.dataset, s.model, s.method, s.alpha) in kinds)
    counts |= {"departing": departing} if departing else {}
    told = ", ".join(f"{cells} {why}" for why, cells in counts.items())
    return [f"left out: {told}"] if told else []
