"""Two processes that accelerate joins: gradients are averaged, masks and thresholds stay equal."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from sparse_training import attach, library
from torch import nn

accelerate = library("accelerate")
pytestmark = pytest.mark.slow


def _train(rank: int, port: int, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found: dict[str, Any] = {}
    try:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        assert accelerator.num_processes == 2
        for method in ("set", "dst"):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
            attached = attach(model, method, steps=8)
            network, optimizer = accelerator.prepare(model, torch.optim.SGD(attached.parameter_groups(), 0.1, 0.9))
            attached.bind(optimizer)
            torch.manual_seed(rank)
            for _ in range(12):
                with accelerator.accumulate(network):
                    loss = F.cross_entropy(network(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
                    accelerator.backward(loss)
                    attached.step()
                    optimizer.zero_grad()
            found[method] = attached.context.step, [t.tolist() for t in attached.masks().values()], attached.density()
            found[f"{method} weights"] = [p.tolist() for p in model.parameters()]
        results.put(found)
    except BaseException as error:
        results.put({"error": repr(error)})
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_two_processes_take_the_same_steps() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_train, args=(rank, port, results)) for rank in (0, 1)]
    for process in processes:
        process.start()
    first, second = (results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    assert "error" not in first | second, (first, second)
    assert first == second
    for method in ("set", "dst"):
        steps, _, density = first[method]
        assert steps == 6
        assert density < 1
