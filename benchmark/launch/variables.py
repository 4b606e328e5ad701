"""Environment variables that workers read, checked before anything is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from benchmark.messages import one_line, shown
from benchmark.spec import SpecError
from benchmark.training.execution import given_checkpoint_seconds

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
NUMBER = r"\s*[1-9][0-9]{0,3}\s*"
KERNELS = "SPARSE_TRAINING_KERNELS"


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Raises SpecError for the first variable that no worker could use."""
    given_checkpoint_seconds(environment)
    for name in THREADS:  # OpenMP takes a list, one number for each level of nested loops
        text = environment.get(name, "1")
        if not re.fullmatch(f"{NUMBER}(,{NUMBER})*", text):
            raise SpecError(
                f"{name} is {shown(text)} in the environment: it must be a number of threads from 1 to "
                "9999, or unset it"
            )
    if environment.get(KERNELS):
        from methods import kernels  # imports torch

        try:
            kernels.requested(environment)
        except ValueError as error:
            raise SpecError(one_line(str(error))) from error
