"""When a run stops because its storage fails again and again."""

from __future__ import annotations

from benchmark.launch.base import Event
from benchmark.run_folder.storage import StorageError

IN_A_ROW = 3
STOPPED = f"; the run stopped after {IN_A_ROW} such errors in a row"


class Patience:
    """Counts errors of the storage in a row, from the events of a run.

    Cells that were training when the last error was counted met the same failure, so their errors do
    not count again.
    """

    def __init__(self) -> None:
        self._row = 0
        self._began_at: dict[str, int] = {}

    def is_over(self, event: Event) -> bool:
        """Note an event; True if the storage has now failed IN_A_ROW times in a row."""
        if event.kind == "started":
            self._began_at[event.run_id] = self._row
        if event.kind != "end":
            return False
        if event.payload.get("code") == StorageError.exit_code:
            self._row += self._began_at.get(event.run_id, self._row) == self._row
            return self._row >= IN_A_ROW
        self._row = 0
        self._began_at = dict.fromkeys(self._began_at, 0)
        return False
