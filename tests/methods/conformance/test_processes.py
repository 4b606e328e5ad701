"""The checks with a compiler and with several processes find planted bugs, and pass good methods."""

from __future__ import annotations

import pytest
from good_methods import GrowByGradient, LargestInForward
from process_methods import DenseWhereCompiled, EndsItsProcess, GrowsByItsOwnGradient, SeedsByHash

from methods import Method
from methods.conformance import processes
from methods.conformance.networks import FAST
from methods.conformance.training import NotApplicable
from methods.conformance.trial import Trial

pytestmark = [pytest.mark.slow, pytest.mark.rare]


def problems(method: type[Method]) -> dict[str, str]:
    trial = Trial(method, FAST[0])
    found = {check.__name__: next(check(trial), "") for check in processes.CHECKS}
    return {name: problem for name, problem in found.items() if problem}


@pytest.mark.parametrize("method", [GrowByGradient, LargestInForward])
def test_good_methods_pass(method: type[Method]) -> None:
    assert problems(method) == {}


def test_a_layer_that_computes_otherwise_where_it_is_compiled_is_found() -> None:
    trial = Trial(DenseWhereCompiled, FAST[0])
    problem = next(processes.check_with_compile(trial))
    assert problem.startswith("the compiled loss is ")
    assert problem.endswith(" in step 1")


def test_a_seed_from_string_hashing_is_found() -> None:
    trial = Trial(SeedsByHash, FAST[0])
    problem = next(processes.check_same_run_in_another_process(trial))
    assert "differ at the end: does a seed or an order depend on hash()" in problem
    with_another = next(processes.check_with_distributed_data_parallel(trial))
    assert "processes hold different masks" in with_another


def test_gradients_of_one_process_are_found() -> None:
    trial = Trial(GrowsByItsOwnGradient, FAST[0])
    assert next(processes.check_same_run_in_another_process(trial), None) is None
    problem = next(processes.check_with_distributed_data_parallel(trial))
    assert "differ between two processes after step 3" in problem


def test_a_process_that_ends_is_named() -> None:
    with pytest.raises(RuntimeError, match="process 1 ended with code 7"):
        next(processes.check_with_distributed_data_parallel(Trial(EndsItsProcess, FAST[0])))


def test_a_class_that_no_other_process_can_import_is_not_checked_and_says_so() -> None:
    class Local(GrowByGradient):
        pass

    with pytest.raises(NotApplicable, match=r"another process cannot import .*Local: define it in a module"):
        next(processes.check_same_run_in_another_process(Trial(Local, FAST[0])))
