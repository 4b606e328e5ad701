"""What containers/Dockerfile copies into its image."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTAINERS = ROOT / "containers"


def copied() -> list[str]:
    """Files and folders of the repository, in order."""
    lines = re.findall(r"^COPY (.*)$", (CONTAINERS / "Dockerfile").read_text(), re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]
