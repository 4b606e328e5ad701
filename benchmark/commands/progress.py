"""What a running grid shows: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from benchmark.commands.estimate import Estimate, duration, epochs_of, key
from benchmark.commands.output import say
from benchmark.launch.base import Event
from benchmark.spec import RunSpec

PLAIN_SECONDS = 30.0
BAR_COLUMNS = 30


class Progress:
    """Counts the events of a grid, and shows how far it is and how long it will take.

    specs, names: the cells and what people call them, by run id.
    """

    def __init__(
        self,
        specs: Mapping[str, RunSpec],
        names: Mapping[str, str],
        *,
        workers: int,
        estimate: Estimate,
        console: Console,
    ) -> None:
        self._specs, self._names = specs, names
        self._workers, self._estimate, self._console = workers, estimate, console
        self._open = dict.fromkeys(specs, Fraction(0))
        self._left = epochs_of(specs.values())
        self._latest: dict[str, dict[str, Any]] = {}
        self._active: set[str] = set()
        self._ended = 0
        self._last_line = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def note(self, event: Event) -> None:
        """Count one event, and print a line if it deserves one."""
        handler: Callable[[Event], None] = getattr(self, f"_on_{event.kind}")
        handler(event)

    def _on_started(self, event: Event) -> None:
        self._active.add(event.run_id)

    def _on_waiting(self, event: Event) -> None:
        self._active.discard(event.run_id)
        self._say(f"{self._label(event.run_id)}: another process trains it; this one waits for its result")

    def _on_resumed(self, event: Event) -> None:
        self._say(f"{self._label(event.run_id)}: resumed at step {event.payload['resumed']}")

    def _on_epoch(self, event: Event) -> None:
        before = self._latest.get(event.run_id)
        start = before or {"epoch": 0, "train_seconds": 0.0}  # a resumed cell's first epochs count as well
        spec = self._specs[event.run_id]
        each = Fraction(spec.optimizer.epochs, max(event.payload["epochs"], event.payload["epoch"]))
        if event.payload["epoch"] > start["epoch"]:
            seconds = event.payload["train_seconds"] - start["train_seconds"]
            epochs = (event.payload["epoch"] - start["epoch"]) * each
            self._estimate.learn(spec, epochs=float(epochs), seconds=seconds)
        self._latest[event.run_id] = event.payload
        self._reached(event.run_id, event.payload["epoch"] * each)
        if not self._live.is_started and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._say(f"{self._label(event.run_id)}: epoch {event.payload['epoch']}/{event.payload['epochs']}")

    def _on_warning(self, event: Event) -> None:
        self._say(f"warning: {self._label(event.run_id)}: {event.payload['warning']}")

    def _on_end(self, event: Event) -> None:
        self._ended += 1
        self._active.discard(event.run_id)
        self._reached(event.run_id, Fraction(self._specs[event.run_id].optimizer.epochs))
        self._open.pop(event.run_id, None)
        latest = self._latest.pop(event.run_id, {})
        status, error = event.payload["status"], event.payload["error"]
        text = f"{self._label(event.run_id)}: {status}"
        if status == "done" and "test_accuracy" in latest:
            text = f"{self._label(event.run_id)}: {latest['test_accuracy']:.2f} % at {100 * latest['density']:.2f} %"
            text += f" remaining, {latest['train_seconds']:.1f} s of training"
        self._say(f"[{self._ended}/{len(self._specs)}] {text}{': ' + error if error else ''}{self._eta()}")

    def _label(self, run_id: str) -> str:
        return f"{run_id} {self._names[run_id]}"

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        say(self._console, text)

    def _reached(self, run_id: str, epoch: Fraction) -> None:
        """Count epochs of the spec by kind. A sum over all open cells at each end is quadratic."""
        self._left[key(self._specs[run_id])] -= epoch - self._open.get(run_id, epoch)
        if run_id in self._open:
            self._open[run_id] = epoch

    def remaining_seconds(self) -> float | None:
        """An estimate for all epochs that are not done, shared by the workers."""
        return self._estimate.seconds(self._left, cells=len(self._open), workers=self._workers)

    def _eta(self) -> str:
        seconds = self.remaining_seconds()
        known = self._open and seconds is not None and not self._live.is_started
        return f" (about {duration(seconds)} to go)" if known else ""

    def _render(self) -> Table:
        width = min(BAR_COLUMNS, self._console.width // 4)
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(overflow="fold")
        table.add_row(
            ProgressBar(total=max(1, len(self._specs)), completed=self._ended, width=width),
            f"{self._ended}/{len(self._specs)} cells, about {duration(self.remaining_seconds())} to go",
        )
        for run_id in sorted(self._active & set(self._latest)):
            latest = self._latest[run_id]
            bar = ProgressBar(total=latest["epochs"], completed=latest["epoch"], width=width)
            accuracy = f"{latest['test_accuracy']:.2f} %" if "test_accuracy" in latest else "diverged"
            table.add_row(bar, f"{self._label(run_id)}: epoch {latest['epoch']}/{latest['epochs']}, {accuracy}")
        return table
