"""A tensor as it was when it was looked at last, to tell whether something wrote to it since."""

from __future__ import annotations

import weakref

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class LastSeen:
    """Which tensor was looked at, its version then, and where its numbers were.

    A write in place raises the version; `tensor.data = values` gives it another memory, under the
    same version. A write in place through `.data` does neither. tensor: what was looked at; None
    where there is none, or it is gone.
    """

    def __init__(self) -> None:
        self._tensor: weakref.ref[Tensor] | None = None  # whoever holds this may be held by the tensor's hook
        self._version: int | None = None
        self._memory: tuple[int, int] | None = None
        self._storage: StorageWeakRef | None = None  # while it lives, no new storage has this address

    def __bool__(self) -> bool:
        """Whether a tensor was looked at, even if it is gone."""
        return self._tensor is not None

    @property
    def tensor(self) -> Tensor | None:
        return None if self._tensor is None else self._tensor()

    def note(self, tensor: Tensor) -> None:
        """The tensor is looked at now."""
        if self.tensor is not tensor:
            self._tensor = weakref.ref(tensor)
        self._version = None if tensor.is_inference() else tensor._version  # tensors of inference mode count none
        self.note_memory(tensor)

    def note_memory(self, tensor: Tensor) -> None:
        """Note only where the tensor's numbers are now."""
        if self.moved(tensor):
            self._memory = _memory_of(tensor)
            storage = None if self._memory is None else tensor.untyped_storage()
            self._storage = None if storage is None else StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """The next look finds another tensor."""
        self._tensor = None

    def forget_memory(self) -> None:
        """The next look finds the numbers elsewhere."""
        self._memory = None

    def changed(self, tensor: Tensor) -> bool:
        """Whether this is another tensor, or was written in place."""
        return tensor is not self.tensor or self._version is None or tensor._version != self._version

    def moved(self, tensor: Tensor) -> bool:
        """Whether its numbers are elsewhere in memory: by `tensor.data = values`, or on another device."""
        return self._memory != _memory_of(tensor)


def _memory_of(tensor: Tensor) -> tuple[int, int] | None:
    """The tensor's storage and its place there; None for tensors without storage, as inside torch.func.vmap."""
    try:
        return tensor.untyped_storage()._cdata, int(tensor.storage_offset())
    except NotImplementedError:
        return None
