"""Two processes on this machine that train together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def in_two_processes(train: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `train(rank, *arguments)` returns in each of two processes, in any order.

    Both find the environment variables of torch.distributed. An error in one of them fails the test.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_run, args=(train, rank, port, results, arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert not any(error for _, error in found), found
    return [value for value, _ in found]


def _run(train: Callable[..., Any], rank: int, port: int, results: Any, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    try:
        results.put((train(rank, *arguments), ""))
    except BaseException as error:
        results.put((None, repr(error)))
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
