"""Several processes, one run, on PyTorch's own engine: `torchrun --nproc-per-node=4 -m clearhead train …`.

    alone     one process; nothing is sent
    ddp       each process has the whole model; gradients are added up (Li et al. 2020)
    fsdp      each process has a part of every weight, and gathers a block's just before it is used (FSDP2's
              `fully_shard`; Zhao et al. 2023, ZeRO: Rajbhandari et al. 2020)

The loss is a sum over labels divided by how many all processes have, so the curve is that of one process. A checkpoint
says nothing of who wrote it: a run that was saved on two processes goes on, on one or three. A process that dies is
started again by torchrun, with all others (`--max-restarts`), and the run goes on from its last checkpoint by itself.
What all of this costs is told, and computed, in docs/scale.md.
"""

from __future__ import annotations

import atexit
import copy
import os
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from clearhead.errors import ConfigError, TrainingError
from clearhead.model.block import Block

How = Literal["auto", "alone", "ddp", "fsdp"]
T = TypeVar("T")

_left: list[Any] = []
"""Groups that were left, until the process ends. DDP's reducer has a hold on its group, and where that is the last one
it ends the group under the GIL, for which the group's threads may be waiting: neither goes on (pytorch issue 56297)."""
atexit.register(_left.clear)


class Processes:
    """The processes of a run: how many there are, which one this is, and what they do together.

    device: where this one computes; a GPU where there is one, unless given.
    """

    def __init__(self, how: How, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.how, self.rank, self.size = how, rank, size
        self.device = device if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __repr__(self) -> str:
        return f"<process {self.rank} of {self.size}, {self.how}, on {self.device}>"

    @property
    def first(self) -> bool:
        """True for the one process that prints and writes."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """True for one process of each machine: what need be looked at once on a disk, it looks at."""
        return self.first or os.environ.get("LOCAL_RANK") == "0"

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            here = numbers.to(self.device) if self.device.type == "cuda" else numbers
            dist.all_reduce(here)
            if here is not numbers:
                numbers.copy_(here)
        return numbers

    def agreed(self, value: T) -> T:
        """What the first process says, for all: where they look at the disk, say, which changes. All must ask."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told)
        return told[0]

    def all_told(self, value: T) -> list[T]:
        """What each process says, for all. All must ask."""
        if self.size == 1 or self.how == "alone":
            return [value]
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, value)
        return told

    @cached_property
    def apart(self) -> dist.ProcessGroup | None:
        """A group for what is said beside training, whose messages do not get between its own. All must ask."""
        return dist.new_group(backend="gloo") if self.size > 1 else None

    def shared(self, model: nn.Module) -> nn.Module:
        """The model as the processes train it: wrapped (ddp), or its weights divided up in place (fsdp)."""
        match self.how:
            case "ddp":
                from torch.nn.parallel import DistributedDataParallel

                # Gradients are views of what is sent, not copies beside it: 4 bytes a number less.
                return DistributedDataParallel(model, gradient_as_bucket_view=True)
            case "fsdp":
                from torch.distributed.fsdp import fully_shard

                # Autocast would keep a narrow copy of every weight, whole, until the end of the forward pass.
                torch.set_autocast_cache_enabled(False)
                # It warns of logits that are a view, lest somebody change them in place; nobody does here.
                warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
                for module in model.modules():
                    if isinstance(module, Block):
                        fully_shard(module)
                fully_shard(model)
        return model

    @contextmanager
    def part(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Around each part of a step. ddp sends gradients with the last one only; fsdp with each, since to wait would
        be to hold the gradient of every weight whole."""
        with model.no_sync() if self.how == "ddp" and not last else nullcontext():  # type: ignore[operator]
            yield

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors whose parts lie with several processes, put together in the first one's CPU memory, one at a time;
        nothing elsewhere. Every process must ask."""
        found = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            if self.first:
                found[name] = whole.detach().cpu()
        return found

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
    """The part of a whole tensor that this process has of the parameter: all of it, unless weights are divided up, or
    this is that part already."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or isinstance(whole, DTensor) or whole.shape != parameter.shape:
        return whole.to(parameter.device)
    return distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements)


def outline(model: nn.Module) -> nn.Module:
    """The same model without its numbers: to be made before they are divided up, and filled when they are whole."""
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)


def filled_in(outline: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A model of this outline with these numbers, on the CPU."""
    model = copy.deepcopy(outline)
    model.load_state_dict(tensors, assign=True)
    return model.to("cpu")


# ── torchrun ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def job() -> str | None:
    """The name that torchrun gave to what it started; the same after a restart, and on every machine."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def _met(store: Any, rank: int, size: int) -> str:
    """A name that these processes have in common, and none before them.

    torchrun keeps its store when it starts processes again, and with it the addresses of the dead, which the quicker of
    the new ones would call. So each says a word that nobody said before, and the first answers to the word.
    """
    word = secrets.token_hex(8)
    if rank:
        store.set(f"clearhead/word/{rank}", word)
        name = store.get(f"clearhead/answer/{rank}/{word}").decode()
        store.set(f"clearhead/{name}/{rank}", "heard")
        return name
    waiting, until = set(range(1, size)), time.monotonic() + 600
    while waiting:
        for other in sorted(waiting):
            if store.check([f"clearhead/word/{other}"]):
                said = store.get(f"clearhead/word/{other}").decode()
                store.set(f"clearhead/answer/{other}/{said}", word)
            if store.check([f"clearhead/{word}/{other}"]):
                waiting.remove(other)
        if time.monotonic() > until:
            raise RuntimeError(f"process {min(waiting)} has not come in ten minutes")
        time.sleep(0.02)
    return word


def restarted() -> bool:
    """Whether torchrun has started these processes again, after one of them died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


@contextmanager
def processes(how: How = "auto") -> Iterator[Processes]:
    """The processes that torchrun has started, joined while the block lasts; one alone where it has not.

    auto: ddp where there are several. Raises ConfigError for ddp or fsdp without torchrun, and for alone with several.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if how == "alone" and size > 1:
        raise ConfigError(
            f"processes = 'alone', and torchrun has started {size}; start one without it, or choose 'ddp' or 'fsdp'."
        )
    if "RANK" not in os.environ:
        if how in ("ddp", "fsdp"):
            raise ConfigError(f"{how} needs several processes; start them: torchrun --nproc-per-node=2 -m clearhead …")
        yield Processes("alone")
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(iter(rendezvous("env://")))
        fresh = dist.PrefixStore(_met(store, rank, size), store)  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if cuda else "gloo", store=fresh, rank=rank, world_size=size)
        _left.append(dist.group.WORLD)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the processes could not find one another: {str(error).splitlines()[0]}") from None
    try:
        yield Processes("ddp" if how == "auto" else how, rank, size, device)
    except RuntimeError as error:
        if size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise TrainingError(
            f"another process is gone ({str(error).splitlines()[0]}); with torchrun --max-restarts=3 all are started "
            "again, and go on from the last checkpoint."
        ) from None
    finally:
        torch.set_autocast_cache_enabled(True)
        dist.destroy_process_group()
