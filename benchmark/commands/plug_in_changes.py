"""Plug-ins whose file or package is another one than finished cells were trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmark.run_folder.files import read_json
from benchmark.spec import RunSpec


def warnings(finished: Iterable[RunSpec], out: Path) -> list[str]:
    """One line for each such plug-in; a plug-in that cannot be loaded has none."""
    counts, names = Counter[str](), dict[str, str]()
    for spec in finished:
        recorded = read_json(out / "cells" / spec.run_id / "environment.json", {"plug_ins?": dict}) or {}
        before = recorded.get("plug_ins", {})
        for part, origin in _origins(spec).items() if before else ():
            if before.get(part, origin) != origin:
                counts[part] += 1
                names[part] = origin.partition(", SHA-256")[0]
    return [
        f"{names[part]} changed after {count} finished {'cell' if count == 1 else 'cells'} of {part}, which "
        f"{'is' if count == 1 else 'are'} not trained again: "
        f"{'raise its version' if part.startswith('method') else 'give it another name'}, or use another --out"
        for part, count in counts.items()
    ]


def _origins(spec: RunSpec) -> dict[str, str]:
    from benchmark.training import blame  # imports torch

    try:
        return blame.origins(spec)
    except ValueError:  # the cells that need it say so
        return {}
