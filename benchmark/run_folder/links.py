"""Links in a run folder, which a stranger may have made: nothing is written through one.

The run folder itself may be a link, for example to a larger disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmark.run_folder.storage import NO_ANSWER, NO_SPACE

DATABASE = "mlflow.db"
# every name under which something is written in place; other files are replaced, and with them a link
IN_PLACE = (
    *("cells", "suites", "logs", "slurm", "ray", "jobs.jsonl", "mlartifacts", ".mlflow-sync"),
    *(f"{DATABASE}{end}" for end in ("", "-journal", "-shm", "-wal")),
)


class FolderError(Exception):
    """A run folder that cannot be used.

    It is not writable, not a run folder, of another schema version, without hard links, or holds a
    symbolic link where we write.
    """

    exit_code = 2


def check(out: Path) -> None:
    """Raises FolderError if something that we write in a run folder is a link."""
    refuse(*(out / name for name in IN_PLACE))


def refuse(*paths: Path) -> None:
    """Raises FolderError for the first path that is a link. The folders above it are not looked at."""
    for path in paths:
        if path.is_symlink():
            raise FolderError(
                f"{path} is a link, and nothing is written through links inside a run folder: remove it, or move what "
                "it leads to into its place (the run folder itself may be a link)"
            )


def check_hard_links(probe: Path) -> None:
    """Raises FolderError where a file can have no second name, which is how a result is published.

    probe: a file of ours, which is removed then. Other errors of the system pass.
    """
    second = probe.with_name(f"{probe.name}-link")
    try:
        os.link(probe, second)
    except OSError as error:
        probe.unlink()
        if error.errno in (*NO_SPACE, *NO_ANSWER):
            raise
        raise FolderError(
            f"--out {probe.parent} is on a file system without hard links ({error.strerror}), by which results are "
            "published: choose a folder elsewhere"
        ) from error
    second.unlink()
