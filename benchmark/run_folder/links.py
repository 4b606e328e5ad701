"""Links in a run folder, which a stranger may have made: nothing is written through one.

The run folder itself may be a link, for example to a larger disk.
"""

from __future__ import annotations

from pathlib import Path

DATABASE = "mlflow.db"
# every name under which something is written in place; other files are replaced, and with them a link
IN_PLACE = (
    *("cells", "suites", "logs", "slurm", "ray", "jobs.jsonl", "mlartifacts", ".mlflow-sync"),
    *(f"{DATABASE}{end}" for end in ("", "-journal", "-shm", "-wal")),
)


class FolderError(Exception):
    """A run folder that cannot be used.

    It is not writable, not a run folder, of another schema version, or holds a link where we write.
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
