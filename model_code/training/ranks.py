"""The processes of one training: a single process, or those launched by `torchrun`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's rank among the `world` processes, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes, validates and reports for all."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def mean(self, value: float) -> float:
        """The mean of the ranks' values."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.world


@contextmanager
def launched() -> Iterator[Ranks]:
    """Join the process group if launched by torchrun (`WORLD_SIZE` > 1), and leave it at the end.

    A group that the caller has already joined is used and not left. Uses NCCL with CUDA, one device
    per process, and Gloo without.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else "cpu"
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(0, 1, device)
        return
    if cuda:
        torch.cuda.set_device(device)
    joined = not distributed.is_initialized()
    if joined:
        distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        if joined:
            distributed.destroy_process_group()
