"""The processes that train one cell together: the leader, rank 0, claims it and writes; the others follow."""

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

from benchmark.training.peers import JOIN_SECONDS, Lifeline, Offer, call, end

OFFER = "lifeline"
NOTHING_TO_DO = "nothing to do"
FOREVER = datetime.timedelta(days=365)  # the lifeline, not a time limit, ends a wait for a dead process


class PeerError(Exception):
    """Another process of the cell failed; exit_code: of its cause, where the user has something to mend."""

    def __init__(self, trouble: dict[str, Any]) -> None:
        super().__init__(trouble["error"])
        self.exit_code: int | None = trouble.get("code")


class Group:
    """The processes of one cell; of one process unless `join` made it.

    idle: the followers wait for a cell, so that whatever happens to the leader is no business of theirs.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.idle = True
        self.lifeline: Lifeline | None = None
        self._gradients: Any = None

    # --- the leader's word, over the CPU ---

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
    def boundary(self, told: tuple[type[BaseException], ...] = (BaseException,)) -> Iterator[None]:
        """What the leader does between two steps; the followers then hear whether it goes on.

        told: errors after which all processes are in one place still.
        """
        try:
            yield
        except told:
            self._tell(0)
            self.idle = True
            raise
        self._tell(1)

    def goes_on(self) -> bool:
        """A follower's side of `boundary`."""
        return self._tell(0) == 1

    def _tell(self, word: int) -> int:
        if self.size == 1:
            return word
        told = torch.tensor([word])
        dist.broadcast(told, src=0)
        return int(told)

    # --- training, on the device ---

    def use(self, device: str) -> None:
        """The device that gradients lie on, before the first cell."""
        if self.size > 1 and device == "cuda":
            self._gradients = dist.new_group(backend="nccl")

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are means over the processes.

        find_unused_parameters keeps torch from sorting the gradients anew after the first step: a
        resumed cell would add them up in another order (docs/decisions/0010-processes-of-a-cell.md).
        """
        if self.size == 1:
            return model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the new name of broadcast_buffers is not in torch 2.11
            return DistributedDataParallel(
                model, process_group=self._gradients, broadcast_buffers=False, find_unused_parameters=True
            )

    def local(self, network: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Passes of a wrapped model whose gradients stay in this process until a later one."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def sum_(self, values: Tensor) -> None:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values, group=self._gradients)

    def check_same(self, digest: str) -> None:
        """Raises RuntimeError unless all processes have the same digest."""
        if self.size == 1:
            return
        digests: list[Any] = [None] * self.size
        dist.all_gather_object(digests, digest)
        if len(set(digests)) > 1:
            raise RuntimeError(f"the {self.size} processes of this cell have drifted apart: {digests}")

    # --- ends ---

    def cause(self, error: Exception) -> Exception:
        """The error's cause: what another process said of its end, if that brought it about.

        Where another process died without a word, this one ends here: the cell is to be tried again.
        """
        if self.lifeline is None or self.idle:
            return error
        time.sleep(1.0)  # for the lifeline to notice
        trouble = self.lifeline.trouble
        return PeerError(trouble) if trouble is not None and isinstance(error, RuntimeError) else error


def join(store: Any, *, rank: int, size: int, address: str) -> Group | None:
    """The group of so many processes that share a store; None where the leader has nothing to do.

    address: the leader's, for a leader's call only. Raises for processes that do not come within JOIN_SECONDS.
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
            store.add("gone", 1)
            return None
        peers = [call(text)]
    group.lifeline = Lifeline(peers, lambda: end(0 if rank and group.idle else 1))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=FOREVER)
    return group


def dismiss(store: Any, *, size: int) -> None:
    """A leader without work lets the others go; the store lives until they went."""
    store.set(OFFER, NOTHING_TO_DO)
    deadline = time.monotonic() + JOIN_SECONDS
    while store.add("gone", 0) < size - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
