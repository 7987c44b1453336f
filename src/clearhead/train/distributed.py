"""Several processes, one run, on PyTorch's own engine: `torchrun --nproc-per-node=4 -m clearhead train …`.

    alone     one process; nothing is sent
    ddp       each process has the whole model; gradients are added up (Li et al. 2020)
    fsdp      each process has a part of every weight, and gathers a block's just before it is used (FSDP2's
              `fully_shard`; Zhao et al. 2023, ZeRO: Rajbhandari et al. 2020)

The loss is a sum over labels divided by how many all processes have, so the curve is that of one process. A checkpoint
holds the whole model, whoever wrote it: a run that was saved on two processes goes on, on one or three.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clearhead.errors import ConfigError, TrainingError
from clearhead.model.block import Block

How = Literal["auto", "alone", "ddp", "fsdp"]


class Processes:
    """The processes of a run: how many there are, which one this is, and what they do together."""

    def __init__(self, how: How, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.how, self.rank, self.size = how, rank, size
        self.device = device if device is not None else torch.device("cpu")

    def __repr__(self) -> str:
        return f"<process {self.rank} of {self.size}, {self.how}, on {self.device}>"

    @property
    def first(self) -> bool:
        """True for the one process that prints and writes."""
        return self.rank == 0

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            here = numbers.to(self.device) if self.device.type == "cuda" else numbers
            dist.all_reduce(here)
            if here is not numbers:
                numbers.copy_(here)
        return numbers

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def shared(self, model: nn.Module) -> nn.Module:
        """The model as the processes train it: wrapped (ddp), or its weights divided up in place (fsdp)."""
        match self.how:
            case "ddp":
                from torch.nn.parallel import DistributedDataParallel

                return DistributedDataParallel(model, broadcast_buffers=False)
            case "fsdp":
                from torch.distributed.fsdp import fully_shard

                for module in model.modules():
                    if isinstance(module, Block):
                        fully_shard(module)
                fully_shard(model)
        return model

    @contextmanager
    def part(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Around each part of a step: gradients are sent with the last one only."""
        if self.how == "ddp":
            with nullcontext() if last else model.no_sync():  # type: ignore[operator]
                yield
            return
        if self.how == "fsdp":
            model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors whose parts lie with several processes, put together on the CPU. Every process must ask."""
        return {name: _put_together(tensor) for name, tensor in tensors.items()}

    def gathered(self, mine: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each process has, on the first one; nothing elsewhere. Every process must ask."""
        if self.size == 1:
            return [dict(mine)]
        found: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(dict(mine), found)
        return found if found is not None else []

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Give the model these weights, each process its part. Raises RuntimeError where they are another model's."""
        own = model.state_dict()
        model.load_state_dict({name: like(own[name], each) if name in own else each for name, each in tensors.items()})


def like(parameter: Tensor, whole: Tensor) -> Tensor:
    """The part of a whole tensor that this process has of the parameter: all of it, unless weights are divided up."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
        return whole.to(parameter.device)
    return distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements)


def _put_together(tensor: Tensor) -> Tensor:
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu()


@contextmanager
def processes(how: How = "auto") -> Iterator[Processes]:
    """The processes that torchrun has started, joined while the block lasts; one alone where it has not.

    auto: ddp where there are several. Raises ConfigError for ddp or fsdp without torchrun.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" not in os.environ:
        if how in ("ddp", "fsdp"):
            raise ConfigError(f"{how} needs several processes; start them: torchrun --nproc-per-node=2 -m clearhead …")
        yield Processes("alone", device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the processes could not find one another: {str(error).splitlines()[0]}") from None
    try:
        yield Processes("ddp" if how == "auto" else how, rank, size, device)
    finally:
        dist.destroy_process_group()
