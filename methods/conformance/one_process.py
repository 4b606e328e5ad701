"""One of two processes that `processes` starts. It trains by itself first, then with the other one.

python -m methods.conformance.one_process FOLDER RANK
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from methods.base import Method
from methods.conformance.errors import raised
from methods.conformance.networks import FULL
from methods.conformance.training import Moment
from methods.conformance.trial import Trial
from methods.conformance.ways import broken_at_a_step


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    job = torch.load(folder / "job", weights_only=True)
    sys.path.extend(entry for entry in job["path"] if entry not in sys.path)
    cls = _found(job["module"], Path(job["file"]), job["name"])
    network = next(each for each in FULL if each.name == job["network"])
    trial = Trial(lambda: cls(**job["values"]), network)
    report = {"alone": _or_error(lambda: _last(trial), cls)}
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    together = trial.in_way(wrap=DistributedDataParallel, rank=rank, ranks=2)
    report["together"] = _or_error(lambda: _all(together, plain=trial), cls)
    torch.save(report, folder / f"report{rank}")
    if isinstance(report["together"], str):
        sys.exit(0)
    dist.destroy_process_group()


def _found(module_name: str, file: Path, name: str) -> Callable[..., Method]:
    """The class, in an importable module or in its file."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        sys.path.append(str(file.parent))
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return cast(Callable[..., Method], found)


def _or_error(compute: Callable[[], Any], cls: object) -> Any:
    """What compute() returns, or its error as one line. cls: the method's class."""
    try:
        return compute()
    except Exception as error:
        return raised(error, cls)


def _last(trial: Trial) -> dict[str, Any]:
    last = trial.moments[-1]
    return {"masks": last.masks, "parameters": last.parameters}


def _all(together: Trial, *, plain: Trial) -> dict[str, Any]:
    broken = list(broken_at_a_step(together, plain=plain))
    return {"broken": broken, "moments": [_joined(moment) for moment in together.moments]}


def _joined(moment: Moment) -> dict[str, torch.Tensor]:
    return moment.parameters | {f"the mask of {name}": mask for name, mask in moment.masks.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
