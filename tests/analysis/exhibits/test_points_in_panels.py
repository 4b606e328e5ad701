"""Every figure that a build makes shows each point that it draws, in its panel and at its value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import suite_rows
import synthetic_figures
import synthetic_methods
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.transforms import ScaledTranslation

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from benchmark.suites import mnist

COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results"
DRAWINGS = ("figure1", "figure2")  # of the paper's equations: nothing is measured in them


def faults(figure: Any) -> list[str]:
    """What a reader would not see as it was measured: one text for each panel and kind of fault."""
    figure.draw_without_rendering()
    found = []
    for axis in [*figure.axes, *(inset for panel in figure.axes for inset in panel.child_axes)]:
        panel = axis.get_title(loc="left") or axis.get_title() or axis.get_ylabel() or axis.get_xlabel()
        drawn = list(points(axis))
        moved = [artist for artist, _ in drawn if artist is not None]
        places = np.concatenate([np.empty((0, 2)), *(np.asarray(xy, dtype=float) for _, xy in drawn)])
        places = places[~np.isnan(places).any(axis=1)]
        says_why = any(text.get_text().startswith(("not run", "no test accuracy")) for text in axis.texts)
        if not len(places) and not says_why:
            found.append(f"{panel}: no point")
        found += [f"{panel}: {artist} is moved away from its value" for artist in moved]
        for k, (name, limits) in enumerate((("x", axis.get_xlim()), ("y", axis.get_ylim()))):
            low, high = sorted(limits)
            slack = 1e-9 * max(abs(low), abs(high))
            outside = [value for value in places[:, k] if not low - slack <= value <= high + slack]
            found += [f"{panel}: {name} = {outside[:3]} outside of {low:g} to {high:g}"] * bool(outside)
    return found


def points(axis: Any) -> Iterator[tuple[Any, Any]]:
    """(the artist if it does not stand at its data, [n, 2] data) of what is drawn from numbers.

    Lines across a whole panel or with one end at its edge are marks, not points.
    """
    marks = (axis.get_xaxis_transform(), axis.get_yaxis_transform(), axis.transAxes)
    for line in axis.lines:
        if line.get_transform() not in marks:
            yield (None if line.get_transform() == axis.transData else line), line.get_xydata()
    for collection in axis.collections:
        if isinstance(collection, LineCollection):
            away = None if collection.get_transform() == axis.transData else collection
            yield away, np.concatenate([np.empty((0, 2)), *collection.get_segments()])
        elif isinstance(collection, PathCollection):
            yield (
                (None if collection.get_offset_transform() == axis.transData else collection),
                collection.get_offsets(),
            )
    for bars in axis.containers:
        if hasattr(bars, "patches"):
            yield None, [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars.patches]


def test_each_kind_of_fault_is_found() -> None:
    """A panel without a point, unless it says why; a point outside or moved sideways; a bar below a log axis."""
    figure, axes = plt.subplots(1, 6)
    for axis, name in zip(axes, ("empty", "reason", "outside", "moved", "below", "good"), strict=True):
        axis.set(title=name, xlim=(0, 2), ylim=(0, 2))
    axes[1].text(0.5, 0.5, "not run")
    axes[2].plot([1, 3], [1, 1], "o")
    shifted = axes[3].transData + ScaledTranslation(5 / 72, 0, figure.dpi_scale_trans)
    axes[3].plot([1], [1], "o", transform=shifted)
    axes[4].set(xscale="log", xlim=(0.1, 10))
    axes[4].errorbar([1], [1], xerr=[2])
    axes[5].errorbar([1], [1], yerr=[0.5])
    axes[5].axhline(1.5)
    axes[5].axvline(7)
    assert [said.split(":")[0] for said in faults(figure)] == ["empty", "outside", "moved", "below"]
    plt.close(figure)


def drawn_by(results: Results, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """name -> faults, of every figure that a build of these results makes."""
    found: dict[str, list[str]] = {}

    def check(figure: Any, folder: Path, name: str) -> list[Path]:
        if name not in DRAWINGS:
            found[name] = faults(figure)
        plt.close(figure)
        return []

    monkeypatch.setattr("analysis.output.exhibit.save", check)
    for make in exhibits(results).values():
        make(out)
    return found


def test_the_committed_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = drawn_by(Results(load([COMMITTED])), tmp_path, monkeypatch)
    assert {"figure4", "mnist-accuracy-density", "mnist-accuracy-flops", "mnist-figure3", "compact-networks"} <= set(
        found
    )
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize("kept", [(0.02, 0.03, 0.74), (0.0164, 0.9, 0.0161), (1e-4, 1e-4, 1.0)])
def test_seeds_that_ended_soon_after_a_reset_beside_others(
    kept: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mean less the standard deviation lies below 0, which a logarithmic axis does not have."""
    rows = [
        suite_rows.done(mnist.lenet("lenet-5-caffe", method, seed, **given), accuracy=99 + seed / 10, density=density)
        for seed, share in enumerate(kept)
        for method, given, density in (
            ("dense", {}, 1.0), ("dst", {"alpha": 5e-4}, share), ("set", {"density": 0.05}, 0.05),
            ("static", {"density": 0.05}, 0.05),
        )
    ]  # fmt: skip
    found = drawn_by(Results(load([suite_rows.write(tmp_path / "in", rows)])), tmp_path, monkeypatch)
    assert {"mnist-accuracy-density", "mnist-figure3"} <= set(found)
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.slow
@pytest.mark.parametrize("made", ["figures", pytest.param("methods", marks=pytest.mark.rare)])
def test_the_made_up_grids(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if made == "figures":
        rows = [*synthetic_figures.cifar10(), *synthetic_figures.mnist()]
        folder = synthetic_figures.write(tmp_path / "in", rows)
    else:
        folder = synthetic_methods.write(tmp_path / "in", synthetic_methods.full(seeds=(0, 1)))
    found = drawn_by(Results(load([folder])), tmp_path, monkeypatch)
    assert len(found) > 5
    assert {name: said for name, said in found.items() if said} == {}
