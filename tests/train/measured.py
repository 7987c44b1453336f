"""What two processes really hold and send: `torchrun … tests/train/measured.py FILE`, a line of JSON for each way."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from clearhead.model import presets
from clearhead.model.config import ModelConfig
from clearhead.model.transformer import build
from clearhead.train.distributed import Processes, processes
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW
from clearhead.train.precision import Chosen
from tests.train.support import VOCAB, Random

PARTS = 3


def config() -> ModelConfig:
    """A Llama whose tensors do not all divide by two."""
    return presets.llama(
        n_layers=3, n_heads=4, n_kv_heads=2, d_model=40, d_ff=51, vocab_size=VOCAB, context=16, tied=False
    )


class Sent(TorchDispatchMode):
    """Counts the bytes of what is gathered, scattered and reduced: of the whole, not yet of what a ring sends."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(func).split(".")[1] if str(func).startswith("c10d.") else ""
        if name == "_allgather_base_":
            self.bytes["all_gather"] += args[0].nbytes
        elif name == "_reduce_scatter_base_":
            self.bytes["reduce_scatter"] += args[1].nbytes
        elif name == "allreduce_":
            self.bytes["all_reduce"] += sum(tensor.nbytes for tensor in args[0])
        return func(*args, **(kwargs or {}))


def here(tensors: Sequence[torch.Tensor]) -> int:
    """The bytes that this process has of tensors."""
    storages = [(t.to_local() if hasattr(t, "to_local") else t).untyped_storage() for t in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def measure(together: Processes) -> dict[str, Any]:
    torch.manual_seed(0)
    model: nn.Module = build(config())
    one = Trainer(
        model,
        Random(rows=6, parts=PARTS),
        Loop(steps=4, optimiser=AdamW()),
        precision=Chosen(torch.float32, "a test"),
        processes=together,
    )
    one.step()
    kept: dict[str, int] = {}
    step, sent = one.optimisers.step, Sent()

    def look(factor: float) -> None:
        kept["gradients"] = here([p.grad for p in model.parameters() if p.grad is not None])
        step(factor)

    one.optimisers.step = look  # type: ignore[method-assign]
    with sent:
        one.step()
    moments = [each for name, each in one.optimisers.state().items() if not name.startswith("step/")]
    return {
        "how": together.how,
        "rank": together.rank,
        "weights": here(list(model.parameters())),
        **kept,
        "moments": here(moments),
        **sent.bytes,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes("ddp") as together:
        found = []
        for how in ("ddp", "fsdp"):
            each = Processes(how, together.rank, together.size, together.device)  # type: ignore[arg-type]
            found += each.all_told(measure(each))
        if together.first:
            Path(sys.argv[1]).write_text(json.dumps(found))
