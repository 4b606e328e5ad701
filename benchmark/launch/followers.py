"""The other processes of a cell: how a worker starts or meets them, and what they run.

`python -m benchmark.launch.followers` is one of them. Where it finds its leader, its rank and their
number is in its environment, as torchrun writes it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from benchmark.launch.base import Work
from benchmark.launch.process_ranks import Ranks

if TYPE_CHECKING:
    from benchmark.training.process_group import Group

LOOPBACK = "127.0.0.1"
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
DEVICES = "CUDA_VISIBLE_DEVICES"
COMMAND = [sys.executable, "-m", "benchmark.launch.followers"]


def take_first_device(work: Work) -> None:
    """Of the worker's devices the first is its own, the others its followers'. Before torch is imported."""
    if work.processes_per_cell > 1 and work.device != "cpu":
        _all_devices[:] = os.environ[DEVICES].split(",")
        os.environ[DEVICES] = _all_devices[0]


_all_devices: list[str] = []


def lead(work: Work) -> Group:
    """The worker's group: of itself alone, of followers that it starts, or of those that were started with it."""
    from benchmark.training.process_group import Group, join

    size = work.processes_per_cell
    if size == 1:
        return Group()
    if work.ranks_started:
        group = join(_store(), rank=0, size=size, address=os.environ["MASTER_ADDR"])
    else:
        group = join(_start(size), rank=0, size=size, address=LOOPBACK)
    assert group is not None, "a leader joins its own group"
    group.send(work.to_dict())
    group.use(work.device)
    return group


def _start(size: int) -> Any:
    """Start the followers; the store where they meet the worker."""
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC")}
    for rank in range(1, size):
        ranks = Ranks(rank=rank, size=size, local_rank=rank, address=LOOPBACK, port=store.port)
        device = {DEVICES: _all_devices[rank]} if _all_devices else {}
        subprocess.Popen(
            COMMAND, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=inherited | device | ranks.to_environment()
        )
    return store


def become(ranks: Ranks, device: str, *, idle: bool) -> NoReturn:
    """Go on as a follower of the command's rank 0, in a fresh interpreter. idle: there is nothing to do."""
    from benchmark.launch.local import process_environment

    if idle:
        sys.exit(0)
    environment = process_environment(device, slot=ranks.local_rank)
    os.execve(sys.executable, COMMAND, environment | ranks.to_environment())


def meet(ranks: Ranks, *, work: bool) -> None:
    """Let the worker of rank 0 find its followers, or send them home where there is no work."""
    os.environ.update(ranks.to_environment())
    if not work:
        from benchmark.training.process_group import dismiss

        dismiss(_store(), size=ranks.size)


def _store() -> Any:
    """Where the processes that the environment names meet."""
    import datetime

    from torch.distributed.rendezvous import rendezvous

    from benchmark.training.peers import JOIN_SECONDS

    store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(seconds=JOIN_SECONDS)))
    return store


def main() -> None:
    for number in IGNORED:  # the leader stops at a step boundary, and this process with it
        signal.signal(number, signal.SIG_IGN)
    from benchmark import suites
    from benchmark.training.engine import prepare_process
    from benchmark.training.follower import follow
    from benchmark.training.process_group import join

    ranks = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE")}
    group = join(_store(), rank=ranks["RANK"], size=ranks["WORLD_SIZE"], address="")
    if group is None:
        return
    work = Work.from_dict(group.receive())
    prepare_process(work.device)
    for plugin in work.plugins:
        suites.load_file(plugin)
    group.use(work.device)
    follow(work.data_dir, work.device, group)


if __name__ == "__main__":
    main()
