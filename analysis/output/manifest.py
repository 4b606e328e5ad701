"""manifest.json: for every exhibit the hashes of its files and of the rows that it was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.read import LAYERS, TRACES, Tables
from analysis.output.exhibit import Written
from benchmark.results import COLUMNS

HOW = {
    "files": "SHA-256 of the file",
    "rows": "by run id: SHA-256 of the values of its row of results.csv, as text, each ended by a newline; "
    "of its rows of traces.csv and layers.csv: SHA-256 of pandas.util.hash_pandas_object, little endian",
    "rows_sha256": "of an exhibit: SHA-256 of the lines `run_id results traces layers` of its runs, sorted",
}


def write_manifest(tables: Tables, written: Sequence[Written], pages: Iterable[Path], out: Path) -> Path:
    """Write manifest.json for these exhibits and pages of the folder."""
    used = {run_id for exhibit in written for run_id in exhibit.run_ids}
    rows = row_hashes(tables, used)
    document = {
        "schema": 1,
        "how": HOW,
        "pages": {page.name: _sha256(page.read_bytes()) for page in pages},
        "exhibits": {exhibit.name: _entry(exhibit, rows) for exhibit in written},
        "rows": rows,
    }
    path = out / "manifest.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def row_hashes(tables: Tables, run_ids: set[str]) -> dict[str, dict[str, str]]:
    """run id -> hash of its row of results, and of its traces and layers where it has some."""
    results = tables.results[tables.results["run_id"].isin(run_ids)]
    texts = results[list(COLUMNS)].astype(object).where(results[list(COLUMNS)].notna(), "")
    hashes = {
        str(row.run_id): {"results": _sha256("".join(f"{value}\n" for value in row).encode())}
        for row in texts.itertuples(index=False)
    }
    for name, table, columns, places in (
        ("traces", tables.traces, TRACES, tables.trace_places),
        ("layers", tables.layers, LAYERS, tables.layer_places),
    ):
        numbers = pd.util.hash_pandas_object(table[list(columns)], index=False).to_numpy().astype("<u8")
        for run_id in places.keys() & hashes.keys():
            hashes[run_id][name] = _sha256(numbers[places[run_id]].tobytes())
    return dict(sorted(hashes.items()))


def _entry(exhibit: Written, rows: dict[str, dict[str, str]]) -> dict[str, Any]:
    known = [run_id for run_id in exhibit.run_ids if run_id in rows]
    lines = [
        " ".join([i, *(rows[i].get(name, "-") for name in ("results", "traces", "layers"))]) for i in sorted(known)
    ]
    return {
        "title": exhibit.title,
        "finding": exhibit.finding,
        "remark": exhibit.remark,
        "files": {file.name: _sha256(file.read_bytes()) for file in sorted(exhibit.files)},
        "run_ids": sorted(known),
        "rows_sha256": _sha256("".join(f"{line}\n" for line in lines).encode()),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
