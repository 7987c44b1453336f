"""The state of a run on disk. A checkpoint is whole or it is not there, whatever happens while it is written.

    RUN/step-00000200/model.safetensors        the weights
                      optimiser.safetensors    moments, by parameter
                      random-0.safetensors     every generator's state, one file a process
                      state.json               the step, and where in the data it stands
                      manifest.json            the size and SHA-256 of each of these; written last

Everything is written into `step-00000200.tmp`, synced, and renamed. A run goes on from the newest folder whose manifest
holds; what a crash left half written is passed over, said, and cleared away by the next checkpoint. Here one process
writes all of it; in `sharded.py` each writes its part, and the rest is the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearhead._disk import put_in_place, sync_file, sync_folder
from clearhead.errors import CheckpointError, TrainingError
from clearhead.train.distributed import Processes

MANIFEST, STATE = "manifest.json", "state.json"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Checkpoints that one process writes, while the others wait."""


@dataclass(frozen=True, kw_only=True)
class Sharded:
    """Checkpoints of which each process writes its part, while training goes on (`sharded.py`)."""


@dataclass(frozen=True, kw_only=True)
class State:
    """All that a run needs to go on as if it had never stopped. `step` steps are done.

    random, data: the generators, and the place in a stream, of each process.
    """

    step: int
    tokens: int
    model: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    random: Sequence[Mapping[str, Tensor]]
    data: Sequence[Mapping[str, Any]]


def save(run: Path, state: State, *, keep: int = 2) -> Path:
    """Write a checkpoint and return its folder; then drop all but the newest `keep`, and what is of later steps: a run
    that goes on from before them has passed them over, or given them up.

    Raises TrainingError where it cannot be written (a full disk, a lost permission); earlier ones are left as they are.
    """
    files = {"model.safetensors": state.model, "optimiser.safetensors": state.optimiser}
    files |= {f"random-{number}.safetensors": numbers for number, numbers in enumerate(state.random)}
    temporary = beside(run, state.step)
    try:
        clear(run)
        temporary.mkdir(parents=True)
        for name, tensors in files.items():
            _save_tensors(temporary / name, tensors)
        return publish(run, state, {name: facts(temporary / name) for name in files}, keep=keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(not_saved(run, state.step, error)) from None


def beside(run: Path, step: int) -> Path:
    """Where a checkpoint is written before it has its name."""
    return run / f"{name_of(step)}.tmp"


def publish(run: Path, state: State, files: Mapping[str, object], *, keep: int) -> Path:
    """Give what was written its name: the state, the manifest that names each file, and the rename, in this order."""
    temporary, final = beside(run, state.step), run / name_of(state.step)
    told = {"step": state.step, "tokens": state.tokens, "data": [dict(one) for one in state.data]}
    _save_json(temporary / STATE, told)
    every = {**files, STATE: facts(temporary / STATE)}
    _save_json(temporary / MANIFEST, {"step": state.step, "files": every})
    sync_folder(temporary)
    put_in_place(temporary, final)
    there = checkpoints(run)
    at = there.index(final)
    for old in [*there[: max(at + 1 - keep, 0)], *there[at + 1 :]]:  # later ones: a run went on from before them
        shutil.rmtree(old, ignore_errors=True)
    return final


def clear(run: Path) -> None:
    """Remove what a crash left half written."""
    for left in (*run.glob("step-*.tmp"), *run.glob("step-*.old")):
        shutil.rmtree(left, ignore_errors=True)


def not_saved(run: Path, step: int, error: BaseException) -> str:
    """What to say of a checkpoint that could not be written."""
    return f"step {step} could not be saved in {run}: {_reason(error)}"


def name_of(step: int) -> str:
    """The folder's name of a checkpoint after so many steps."""
    return f"step-{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints' folders, oldest first, whole or not."""
    found = (path for path in run.glob("step-*") if path.is_dir() and path.name[5:].isdecimal())
    return sorted(found, key=lambda path: int(path.name[5:]))


def newest(run: Path, say: Callable[[str], None] = lambda _: None, processes: Processes | None = None) -> Path | None:
    """The newest checkpoint that is whole; those that are not are passed over, and said.

    processes: those that will go on from it. They must all ask; each reads its share of the files, and all are given
    the one answer. Raises TrainingError where one of them does not see the folder.
    """
    together = processes if processes is not None else Processes("alone")
    for path in together.agreed(list(reversed(checkpoints(run))) if together.first else []):
        if not all(seen := together.all_told(path.is_dir())):
            raise TrainingError(f"process {seen.index(False)} does not see {path}; all must share the disk it lies on.")
        flaw = next(filter(None, together.all_told(flaw_of(path, together.rank, together.size))), None)
        if flaw is None:
            return path
        say(f"{path.name} is passed over: {flaw}")
    return None


def flaw_of(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """What is wrong with a checkpoint, or None where every file is as its manifest says.

    part, parts: read only every `parts`-th file; of the others only the size is looked at.
    """
    try:
        files: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        for number, (name, told) in enumerate(files.items()):
            path = folder / Path(name).name
            if path.stat().st_size != told["bytes"]:
                return f"{name} is not as long as it was written"
            if number % parts == part and facts(path) != told:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return None


def is_sharded(folder: Path) -> bool:
    """Whether a checkpoint was written in parts; `sharded.load` reads it then."""
    return any(folder.glob("shard-*.safetensors"))


def load(folder: Path) -> State:
    """Read a checkpoint. Raises CheckpointError where it is not whole."""
    if (flaw := flaw_of(folder)) is not None:
        raise CheckpointError(not_whole(folder, flaw))
    told = json.loads((folder / STATE).read_text("utf-8"))
    return State(
        step=told["step"],
        tokens=told["tokens"],
        data=told["data"],
        model=weights(folder),
        optimiser=load_file(folder / "optimiser.safetensors"),
        random=[load_file(folder / f"random-{number}.safetensors") for number in range(len(told["data"]))],
    )


def weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that one process wrote, as views of its file."""
    return load_file(folder / "model.safetensors")


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor, of which this process may have a part, that has an infinity or a NaN in it."""
    for name, tensor in tensors.items():
        here = part_of(tensor).detach()
        if here.is_floating_point() and here.numel() and not all(map(math.isfinite, torch.aminmax(here))):
            return name
    return None


def not_whole(folder: Path, flaw: str) -> str:
    """What to say of a checkpoint that cannot be read."""
    return f"{folder} cannot be gone on from: {flaw}; remove it and the one before will be used."


# ── generators ───────────────────────────────────────────────────────────────────────────────────────────────────


def random_state() -> dict[str, Tensor]:
    """The state of every generator that training could draw from: torch's on each device, NumPy's, Python's."""
    found = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"cuda.{n}": state for n, state in enumerate(torch.cuda.get_rng_state_all())}
    _, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    found["numpy.keys"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    found["numpy.rest"] = torch.tensor([float(place), float(has_gauss), float(gauss)], dtype=torch.float64)
    _, numbers, gauss_next = random.getstate()
    found["python"] = torch.tensor(numbers, dtype=torch.int64)
    if gauss_next is not None:
        found["python.gauss"] = torch.tensor(gauss_next, dtype=torch.float64)
    return found


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Put every generator back to where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{n}" in state:
            torch.cuda.set_rng_state(state[f"cuda.{n}"], n)
    place, has_gauss, gauss = state["numpy.rest"].tolist()
    np.random.set_state(("MT19937", state["numpy.keys"].numpy().astype(np.uint32), int(place), int(has_gauss), gauss))
    gauss_next = float(state["python.gauss"]) if "python.gauss" in state else None
    random.setstate((3, tuple(state["python"].tolist()), gauss_next))


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in apart(tensors).items()}, path)
    sync_file(path)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, no two of them in one place of memory, which a safetensors file would refuse."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        here = part_of(tensor)
        shared = here.numel() > 0 and here.data_ptr() in seen
        seen.add(here.data_ptr())
        found[name] = tensor.detach().clone() if shared else tensor.detach()
    return found


def part_of(tensor: Tensor) -> Tensor:
    """What this process has of a tensor that may be divided up."""
    here: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return here


def _save_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    sync_file(path)


def facts(path: Path) -> dict[str, object]:
    """A file's size and SHA-256."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _reason(error: BaseException) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):
        return "the disk is full; make room, and go on from the last checkpoint."
    return f"{getattr(error, 'strerror', None) or error}."
