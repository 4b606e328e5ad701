"""The processes that train one cell together.

The leader, rank 0, claims the cell and writes; the others follow.
"""

from __future__ import annotations

import contextlib
import datetime
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmark.training.peers import JOIN_SECONDS, Offer, Peers, connect, end

OFFER = "peers"
NOTHING_TO_DO = "nothing to do"
FOREVER = datetime.timedelta(days=365)  # `Peers`, not a time limit, ends a wait for a dead process


class PeerError(Exception):
    """Another process of the cell failed.

    exit_code: that of its cause, if the user has something to fix.
    """

    def __init__(self, failure: dict[str, Any]) -> None:
        super().__init__(failure["error"])
        self.exit_code: int | None = failure.get("code")


class Group:
    """The processes that train one cell; a single process unless `join` made the group.

    idle: the followers wait for a cell, so the leader may fail without any harm to them.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.idle = True
        self.peers: Peers | None = None
        self._gradients: Any = None

    # --- messages of the leader, over the CPU ---

    def send(self, value: Any) -> None:
        """From the leader to all followers: plain values and CPU tensors."""
        if self.size > 1:
            dist.broadcast_object_list([value], src=0)

    def receive(self) -> Any:
        """What the leader sent."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextlib.contextmanager
    def boundary(self, in_step: tuple[type[BaseException], ...] = (BaseException,)) -> Iterator[None]:
        """Around what the leader does between two steps; then followers learn whether it goes on.

        in_step: errors after which all processes are still at the same point of the cell.
        """
        try:
            yield
        except in_step:
            self._broadcast(0)
            self.idle = True
            raise
        self._broadcast(1)

    def goes_on(self) -> bool:
        """The follower's side of `boundary`."""
        return self._broadcast(0) == 1

    def _broadcast(self, number: int) -> int:
        """The leader's number, in every process."""
        if self.size == 1:
            return number
        shared = torch.tensor([number])
        dist.broadcast(shared, src=0)
        return int(shared)

    # --- training, on the device ---

    def use(self, device: str) -> None:
        """Set the device that gradients lie on; before the first cell."""
        if self.size > 1 and device == "cuda":
            self._gradients = dist.new_group(backend="nccl")

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, its gradients means over the processes.

        find_unused_parameters keeps torch from reordering the gradients after the first step; a
        resumed cell would add them up in another order
        (docs/decisions/0010-processes-of-a-cell.md).
        """
        if self.size == 1:
            return model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the new name of broadcast_buffers is not in torch 2.11
            return DistributedDataParallel(
                model, process_group=self._gradients, broadcast_buffers=False, find_unused_parameters=True
            )

    def local(self, network: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Around passes whose gradients stay in this process until a later pass of the model."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def sum_(self, values: Tensor) -> None:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values, group=self._gradients)

    def sum(self, number: float) -> float:
        """The sum over the processes, on the CPU."""
        if self.size == 1:
            return number
        shared = torch.tensor([number], dtype=torch.float64)
        dist.all_reduce(shared)
        return float(shared)

    def check_same(self, digest: str) -> None:
        """Raises RuntimeError unless all processes have the same digest."""
        if self.size == 1:
            return
        digests: list[Any] = [None] * self.size
        dist.all_gather_object(digests, digest)
        if len(set(digests)) > 1:
            raise RuntimeError(f"the {self.size} processes of this cell have drifted apart: {digests}")

    # --- failures ---

    def cause(self, error: Exception) -> Exception:
        """The error's cause: the failure that another process announced, if there is one.

        If another process died without announcing anything, this process ends here and the cell is
        tried again.
        """
        if self.peers is None or self.idle:
            return error
        time.sleep(1.0)  # `Peers` needs a moment to notice
        failure = self.peers.failure
        return PeerError(failure) if failure is not None and isinstance(error, RuntimeError) else error


def join(store: Any, *, rank: int, size: int, address: str) -> Group | None:
    """The group of the processes that share a store; None if the leader has nothing to do.

    address: the leader's; only the leader gives it. Raises if a process does not join within
    JOIN_SECONDS.
    """
    store.set_timeout(datetime.timedelta(seconds=JOIN_SECONDS))
    group = Group(rank, size)
    if rank == 0:
        offer = Offer(address)
        store.set(OFFER, offer.text)
        peers = offer.accept(size - 1)
    else:
        text = store.get(OFFER).decode()
        if text == NOTHING_TO_DO:
            store.add("dismissed", 1)
            return None
        peers = [connect(text)]
    group.peers = Peers(peers, lambda: end(0 if rank and group.idle else 1))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=FOREVER)
    return group


def dismiss(store: Any, *, size: int) -> None:
    """A leader without work lets the others end; the store stays until they have read it."""
    store.set(OFFER, NOTHING_TO_DO)
    deadline = time.monotonic() + JOIN_SECONDS
    while store.add("dismissed", 0) < size - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
