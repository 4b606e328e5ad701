"""How figures look, and how they are written: the same bytes every time, fonts embedded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Okabe & Ito: told apart under every common colour blindness.
LAYERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D00", "#000000")
MODEL, DENSE, SPARSE = "#000000", "#777777", "#D55E00"
ALPHAS = ("#9BD0F0", "#3A8FC7", "#123F66", "#E69F00", "#009E73", "#CC79A7")
STYLE = {
    "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"], "font.size": 9,
    "axes.labelsize": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.edgecolor": "#444444", "xtick.major.width": 0.8, "ytick.major.width": 0.8,
    "xtick.major.size": 3, "ytick.major.size": 3, "xtick.color": "#444444", "ytick.color": "#444444",
    "axes.linewidth": 0.8, "figure.dpi": 100, "savefig.dpi": 200,
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "sparse-training-bench",
}  # fmt: skip
FORMATS: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {},
    "svg": {"Date": None},
}


def layer_colours(names: Sequence[str]) -> dict[str, Any]:
    """A colour a layer: fixed by its position; many layers run along one scale, the last ones stand out."""
    if len(names) <= len(LAYERS):
        return dict(zip(names, LAYERS, strict=False))
    import matplotlib as mpl

    loud = [name for name in names if name.startswith("FC")][-2:]
    quiet = [name for name in names if name not in loud]
    scale = mpl.colormaps["viridis"].resampled(256)
    colours: dict[str, Any] = {name: scale(0.8 * i / max(1, len(quiet) - 1)) for i, name in enumerate(quiet)}
    return colours | dict(zip(loud, ("#E69F00", "#D55E00"), strict=False))


def save(figure: Any, out: Path, name: str) -> list[Path]:
    """Write a figure as PDF, PNG and SVG without dates, and close it."""
    import matplotlib.pyplot as plt

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not once a format
    written = []
    for kind, metadata in FORMATS.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight")
        path = out / f"{name}.{kind}"
        path.write_bytes(buffer.getvalue())
        written.append(path)
    plt.close(figure)
    return written
