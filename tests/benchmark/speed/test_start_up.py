"""`speed start-up`: what it times. That little is imported is tested by name, in test_cli; no time is asserted."""

from __future__ import annotations

import pytest
from grids import Bench

from benchmark.speed import start_up
from benchmark.speed.start_up import MeasurementError, row, seconds_of, summary


def test_a_command_has_quartiles_of_its_wall_time_and_a_median_of_its_cpu_time() -> None:
    found = summary("list suites", [(0.2, 0.1), (0.1, 0.3), (0.6, 0.2)])
    assert row(found) == ["list suites", "3", "0.20", "0.15-0.40", "0.20"]


def test_a_command_is_a_process_whose_time_is_counted() -> None:
    wall, cpu = seconds_of(("--help",))
    assert wall > 0
    assert cpu > 0


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(MeasurementError, match="'python -m benchmark list nothing' ended with code 2: error: unknown"):
        seconds_of(("list", "nothing"))


def test_every_command_is_timed_in_every_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def noted(arguments: tuple[str, ...]) -> tuple[float, float]:
        seen.append(arguments)
        return float(len(seen)), 0.0

    monkeypatch.setattr(start_up, "seconds_of", noted)
    finished = bench("speed", "start-up", "--json")
    assert finished.code == 0, finished.stderr
    found = finished.json["commands"]
    assert seen[0] == seen[4], "the suite is run before its finished run is timed"
    assert [one["command"].split()[0] for one in found] == ["--help", "list", "status", "run"]
    assert {one["n"] for one in found} == {start_up.REPEATS}
    assert found[0]["seconds"]["median"] == 2 + 4 * (start_up.REPEATS // 2)
    assert (len(seen) - 1) % 4 == 0
    assert all("DIR" in one["command"] for one in found[2:])
