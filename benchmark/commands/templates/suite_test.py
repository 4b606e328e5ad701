"""my_name expands to cells that exist, each listed once. Run it with pytest."""

from __future__ import annotations

from pathlib import Path

from benchmark import data, models, suites

FILE = Path(__file__).with_name("my_name.py")


def test_every_cell_names_a_data_set_and_a_model_that_exist() -> None:
    specs = suites.load(str(FILE)).specs
    assert {spec.data.name for spec in specs} <= set(data.available())
    assert {spec.model.name for spec in specs} <= set(models.available())


def test_no_cell_is_listed_twice() -> None:
    listed = suites.load_file(FILE).suite()
    assert len({spec.run_id for spec in listed}) == len(listed)


def test_expanding_it_twice_gives_the_same_cells() -> None:
    assert suites.load(str(FILE)).specs == suites.load(str(FILE)).specs
