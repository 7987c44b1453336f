"""Sharded checkpoints. Each process writes the part it has, while training goes on, through PyTorch's own DCP.

    RUN/step-00000200/shard-00001-model-00001-of-00001.safetensors    a process's part: weights, moments, generators
                      state.json, manifest.json                       as in `state.py`

Nobody holds the whole model: a process copies its part to memory, and a thread writes it from there. What the others
of `state.py` promise holds here too: written beside its place, synced, hashed, the manifest last, then renamed.
Any number of processes reads it: each takes the slices of the files that are its own.

DCP's usual format keeps a `.metadata` that is a pickle, which runs what is in it when it is read. Its safetensors
format has none: where a slice lies is said, as JSON, in the file's header (docs/decisions/0010).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load as read_parts
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future as Written

from clearhead.errors import CheckpointError, TrainingError
from clearhead.train import state
from clearhead.train.distributed import Processes
from clearhead.train.state import State


@dataclass
class Saving:
    """A checkpoint that is being written."""

    run: Path
    step: int
    future: Future[Any]
    first: bool

    def wait(self) -> None:
        """Until it stands. Raises TrainingError, in every process, where one of them could not write."""
        try:
            self.future.result()
        except CheckpointException as failed:
            if self.first:
                shutil.rmtree(state.beside(self.run, self.step), ignore_errors=True)
            error = next(error for error, _ in failed.failures.values())
            hint = " All processes must share the disk it lies on." if isinstance(error, FileNotFoundError) else ""
            raise TrainingError(state.not_saved(self.run, self.step, error) + hint) from None
        except RuntimeError as error:  # another process is gone
            raise TrainingError(state.not_saved(self.run, self.step, error)) from None


def begin(run: Path, moment: State, processes: Processes, *, keep: int = 2) -> Saving:
    """Copy this process's part of a moment, and have a thread write it; every process must ask.

    moment: tensors as they lie with this process (DTensors where weights are divided up); `random` has its own
    generators only; `data` is asked of the first process.
    """
    _alone_is_meant(processes)
    kinds = {"model": moment.model, "optimiser": moment.optimiser, f"random-{processes.rank}": moment.random[0]}
    future = async_save(
        state.apart({f"{kind}.{name}": each for kind, named in kinds.items() for name, each in named.items()}),
        storage_writer=_Writer(run, moment, keep),
        process_group=processes.apart,
        no_dist=processes.size == 1,
    )
    assert isinstance(future, Future)
    return Saving(run, moment.step, future, processes.first)


class _Writer(HuggingFaceStorageWriter):
    """DCP's writer of safetensors, between a clearing of the place and the publishing of what was written."""

    def __init__(self, run: Path, moment: State, keep: int) -> None:
        super().__init__(str(state.beside(run, moment.step)), save_distributed=True)
        self._run, self._keep = run, keep
        self._moment = replace(moment, model={}, optimiser={}, random=())  # the tensors are DCP's to keep

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing: the first process makes the folder, for all."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """In the first process, before anyone writes."""
        state.clear(self._run)
        Path(self.path).mkdir(parents=True)
        return super().prepare_global_plan(plans)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Written[list[WriteResult]]:
        """Write, sync and hash this process's file; what is told of it goes with its first tensor."""
        written: list[WriteResult] = super().write_data(plan, planner).value()
        told = {
            name: state.facts(Path(self.path) / name) for name in {one.storage_data.relative_path for one in written}
        }
        done: Written[list[WriteResult]] = Written()
        done.set_result([replace(one, storage_data=None if n else told) for n, one in enumerate(written)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """In the first process, when all have written."""
        files: dict[str, object] = {}
        for written in results:
            files |= written[0].storage_data if written else {}
        state.publish(self._run, self._moment, files, keep=self._keep)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def load(
    folder: Path, model: nn.Module, processes: Processes, *, what: Iterable[str] = ("model", "optimiser", "random")
) -> State:
    """Read this process's part of a checkpoint, as the model's own tensors are divided up; every process must ask.

    model: is filled in place, too. Raises CheckpointError where it is of another model, or cannot be read. Whether it
    is whole `state.newest` has looked.
    """
    _alone_is_meant(processes)
    reader = HuggingFaceStorageReader(str(folder))
    try:
        told = json.loads((folder / state.STATE).read_text("utf-8"))
        held = reader.read_metadata().state_dict_metadata
        room = _room(folder, held, model, set(what))
        read_parts(room, storage_reader=reader, process_group=processes.apart, no_dist=processes.size == 1)
    except (CheckpointException, SafetensorError, OSError, ValueError, KeyError) as error:
        causes = list(error.failures.values()) if isinstance(error, CheckpointException) else []
        why = str(causes[0][0] if causes else error).splitlines()[0]
        raise CheckpointError(state.not_whole(folder, f"its parts cannot be read ({why})")) from None
    numbers = [_named(room, f"random-{rank}.") for rank in range(len(told["data"]))]
    return State(
        step=told["step"],
        tokens=told["tokens"],
        data=told["data"],
        model=_named(room, "model."),
        optimiser=_named(room, "optimiser."),
        random=numbers,
    )


def _room(folder: Path, held: Mapping[str, Any], model: nn.Module, what: set[str]) -> dict[str, Tensor]:
    """A tensor for each that the checkpoint holds, divided up as the model's are, to be read into."""
    own, parameters = model.state_dict(), dict(model.named_parameters())
    saved = {key.removeprefix("model.") for key in held if key.startswith("model.")}
    if strange := sorted(saved ^ set(own)):
        where = "the checkpoint" if strange[0] in saved else "the model"
        raise CheckpointError(f"{folder} is of another model: only {where} has {strange[0]}.")
    room: dict[str, Tensor] = {}
    for key, told in held.items():
        kind, _, name = key.partition(".")
        if kind.split("-")[0] not in what or not isinstance(told, TensorStorageMetadata):
            continue
        like = own.get(name) if kind == "model" else parameters.get(name.partition("/")[2])
        if kind == "model" and like is not None and like.shape != told.size:
            raise CheckpointError(
                f"{folder} is of another model: its {name} is {tuple(told.size)}, the model's {tuple(like.shape)}."
            )
        if like is None or like.shape != told.size:
            room[key] = torch.zeros(told.size, dtype=told.properties.dtype)
        else:
            room[key] = like.detach() if kind == "model" else torch.zeros_like(like, dtype=told.properties.dtype)
    return room


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _alone_is_meant(processes: Processes) -> None:
    """DCP warns one process that it is alone, which it was told itself."""
    if processes.size == 1:
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
