"""The recipes of containers/: both images hold the same files and packages. No image is built here."""

from __future__ import annotations

import re

import image_files
from image_files import CONTAINERS, ROOT

DOCKERFILE = (CONTAINERS / "Dockerfile").read_text()
DEFINITION = (CONTAINERS / "bench.def").read_text()


def found(pattern: str, text: str) -> str:
    (value,) = re.findall(pattern, text, re.MULTILINE)
    return str(value)


def test_the_files_that_an_image_copies_exist_and_are_sent_to_docker() -> None:
    names = image_files.copied()
    assert all((ROOT / name).exists() for name in names)
    sent = (CONTAINERS / "Dockerfile.dockerignore").read_text().splitlines()
    assert sent == ["*", *(f"!{name}" for name in names), "**/__pycache__"]


def test_both_images_are_built_from_the_same_files_packages_and_python() -> None:
    lines = re.findall(r"^    (\S+) (/opt/bench/\S+)$", DEFINITION, re.MULTILINE)
    assert lines == [(name, f"/opt/bench/{name}") for name in image_files.copied()]
    assert found(r"^FROM (.*)$", DOCKERFILE) == found(r"^From: (.*)$", DEFINITION)
    for pattern in (r"(pip install .*)$", r"(apt-get install [^\\\n]*\w)", r"(PYTHONNOUSERSITE=\S+)$"):
        assert found(pattern, DOCKERFILE) == found(pattern, DEFINITION)
    assert "pip install --no-cache-dir -c constraints.txt '.[slurm,ray,release]'" in DOCKERFILE
