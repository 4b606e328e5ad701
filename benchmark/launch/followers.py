"""The other processes of a cell: how a worker starts or meets them, and what they run.

`python -m benchmark.launch.followers` is one of them. Its environment says where it finds its
leader, its rank and the number of processes, in torchrun's variables.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from benchmark import suites, terminal
from benchmark.launch.local import process_environment
from benchmark.launch.process_ranks import Ranks
from benchmark.training.execution import Execution
from benchmark.training.peers import JOIN_SECONDS

if TYPE_CHECKING:
    from benchmark.training.process_group import Group

LOOPBACK = "127.0.0.1"
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
DEVICES = "CUDA_VISIBLE_DEVICES"
COMMAND = [sys.executable, "-m", "benchmark.launch.followers"]


def keep_first_device(execution: Execution) -> list[str]:
    """Make the first of the worker's GPUs its only one, before torch is imported.

    Returns all of them, for `lead`.
    """
    if execution.processes == 1 or execution.device == "cpu":
        return []
    devices = os.environ[DEVICES].split(",")
    os.environ[DEVICES] = devices[0]
    return devices


def lead(execution: Execution, devices: Sequence[str]) -> Group:
    """The worker's group: itself, the followers that it starts, or those that were started with it.

    devices: a GPU for each process, or none on a CPU.
    """
    from benchmark.training.process_group import Group, join

    size = execution.processes
    if size == 1:
        return Group()
    if execution.processes_started:
        group = join(_store(), rank=0, size=size, address=os.environ["MASTER_ADDR"])
    else:
        group = join(_start(size, devices), rank=0, size=size, address=LOOPBACK)
    assert group is not None, "a leader joins its own group"
    group.send(execution.to_dict())
    group.use(execution.device)
    return group


def _start(size: int, devices: Sequence[str]) -> Any:
    """Start the followers; the store where they meet the worker."""
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC")}
    for rank in range(1, size):
        ranks = Ranks(rank=rank, size=size, local_rank=rank, address=LOOPBACK, port=store.port)
        device = {DEVICES: devices[rank]} if devices else {}
        subprocess.Popen(
            COMMAND, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=inherited | device | ranks.to_environment()
        )
    return store


def become(ranks: Ranks, device: str, *, idle: bool) -> NoReturn:
    """Continue as a follower of the command's rank 0, in a fresh interpreter.

    idle: nothing is to be trained, so end at once.
    """
    if idle:
        sys.exit(0)
    environment = process_environment(device, slot=ranks.local_rank)
    os.execve(sys.executable, COMMAND, environment | ranks.to_environment())


def meet(ranks: Ranks, *, work: bool) -> None:
    """Let the worker of rank 0 find its followers, or let them end if there is no work."""
    os.environ.update(ranks.to_environment())
    if not work:
        from benchmark.training.process_group import dismiss

        dismiss(_store(), size=ranks.size)


def _store() -> Any:
    """The store where the processes that the environment names meet."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(seconds=JOIN_SECONDS)))
    return store


def main() -> None:
    for number in IGNORED:  # the leader stops between two steps, and this process with it
        signal.signal(number, signal.SIG_IGN)
    terminal.replace_unknown_characters()
    from benchmark.training.engine import prepare_process
    from benchmark.training.follower import follow
    from benchmark.training.process_group import join

    ranks = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE")}
    group = join(_store(), rank=ranks["RANK"], size=ranks["WORLD_SIZE"], address="")
    if group is None:
        return
    execution = Execution.from_dict(group.receive())
    prepare_process(execution.device)
    for plugin in execution.plugins:
        suites.load_plugin(plugin)
    group.use(execution.device)
    follow(execution, group)


if __name__ == "__main__":
    main()
