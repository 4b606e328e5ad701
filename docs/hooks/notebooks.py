"""Makes a page of each notebook, with its text, its code and its stored outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(Path(file.abs_src_path or "").read_text())
        cells = [_cell(cell) for cell in notebook["cells"]]
        cells.insert(1, f'This page is a notebook: <a href="{file.name}.ipynb" download>{file.name}.ipynb</a>.')
        files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content="\n\n".join(cells)))
    return files


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return text
    return "\n\n".join([_fenced("python", text), *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _fenced("text", "".join(output["text"]).rstrip())
    return f"![What the cell draws](data:image/png;base64,{''.join(output['data']['image/png']).strip()})"


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
