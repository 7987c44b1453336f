"""Trackers: where a run's figures are shown beside its own folder. A tracker is told the journal's lines, number for
number, by the first process alone.

    tracker = "tensorboard"                                    RUN/tensorboard, for `tensorboard --logdir RUN`
    tracker = { kind = "wandb", project = "…", mode = "offline" }

A run that goes on from a checkpoint shows each step once, as its journal does: TensorBoard's events are written again
from the journal, and Weights & Biases, which keeps what it has, is not told a second time.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from clearhead.errors import MissingDependencyError, TrainingError

Line = Mapping[str, Any]
"""A line of the journal."""

NAMES = {
    "loss": "loss/training",
    "validation_loss": "loss/held out",
    "norm": "gradient norm",
    "rate": "rate",
    "tokens": "tokens",
    "tokens_per_s": "tokens per second",
    "mfu": "share of peak",
}
"""The journal's figures, and what trackers show them as."""


@dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """Event files in RUN/tensorboard; or in `folder`, which many runs may share: each has a folder of its own in it,
    called by its name and the id in RUN/tensorboard-id, and TensorBoard shows them side by side."""

    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wandb:
    """Weights & Biases. name: the run's, its folder's by itself. mode: `offline` keeps it in RUN/wandb, for
    `wandb sync`."""

    project: str = "clearhead"
    name: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


Choice = TensorBoard | Wandb


@runtime_checkable
class Tracker(Protocol):
    """What shows a run's figures."""

    def tell(self, line: Line) -> None:
        """Show a line of the journal."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


def check(choice: Choice | None) -> None:
    """Raise MissingDependencyError where the tracker's package is not installed: before any work."""
    package = {TensorBoard: "tensorboard", Wandb: "wandb"}.get(type(choice))
    if package is not None and find_spec(package) is None:
        raise MissingDependencyError(
            f"tracker = {package!r} needs {package}, which is not installed; pip install 'clearhead[{package}]' "
            "brings it, or leave the tracker out."
        )


def opened(choice: Choice, run: Path, about: Mapping[str, Any], kept: Sequence[Line], told: int) -> Tracker:
    """The tracker of a run. about: its recipe, which is shown beside it. kept: the journal's lines that a run which
    goes on begins with. told: the tracker has had the lines of so many steps before; 0 of a new run.

    Raises MissingDependencyError, and TrainingError for a tracker that cannot be written to or reached.
    """
    check(choice)
    try:
        if isinstance(choice, TensorBoard):
            return _Events(_own_folder(choice, run, told), kept)
        return _Synced(choice, run, about, told)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(f"tracker = {type(choice).__name__.lower()!r} cannot be begun: {reason}") from error


def figures(line: Line) -> dict[str, float]:
    """The numbers of a line, by the names that trackers show them as."""
    return {
        NAMES[key]: value
        for key, value in line.items()
        if key in NAMES and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _own_folder(choice: TensorBoard, run: Path, told: int) -> Path:
    if choice.folder is None:
        return run / "tensorboard"
    id, _ = _known_again(run / "tensorboard-id", told)
    return Path(choice.folder).expanduser() / f"{run.resolve().name}-{id}"


def _known_again(place: Path, told: int) -> tuple[str, int]:
    """By which id a run is known elsewhere, and how many of its steps were told under it. One that begins has a new
    id, which is written to `place`."""
    if told and place.is_file():
        return place.read_text("utf-8").strip(), told
    id = secrets.token_hex(4)
    place.write_text(f"{id}\n", "utf-8")
    return id, 0


class _Events:
    """TensorBoard's event files, in a folder that is the run's own. Those it wrote there before are taken away: the
    journal has all that is in them, and what was killed with its last minute unwritten has it there, too."""

    def __init__(self, folder: Path, kept: Sequence[Line]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*.clearhead"):
            old.unlink()
        # purge_step has a TensorBoard that is open on the folder forget what it has read
        writer = SummaryWriter(str(folder), purge_step=0, flush_secs=10, filename_suffix=".clearhead")
        self._writer = writer
        self._end = weakref.finalize(self, writer.close)  # at the latest when Python ends
        for line in kept:
            self.tell(line)
        writer.flush()

    def tell(self, line: Line) -> None:
        """A scalar for each figure, at the journal's step."""
        for name, value in figures(line).items():
            self._writer.add_scalar(name, value, line["step"], new_style=False)

    def close(self) -> None:
        """Close the file."""
        self._end()


class _Synced:
    """A run of Weights & Biases, known again by the id in RUN/wandb-id."""

    def __init__(self, choice: Wandb, run: Path, about: Mapping[str, Any], told: int) -> None:
        import wandb

        id, self._told = _known_again(run / "wandb-id", told)
        settings = {key: value for key, value in asdict(choice).items() if value is not None}
        self._run = wandb.init(
            **{"name": run.resolve().name, **settings}, id=id, resume="allow", dir=str(run), config=dict(about)
        )

    def tell(self, line: Line) -> None:
        """The figures of a step, unless they were told before."""
        if line["step"] >= self._told:
            self._run.log(figures(line), step=line["step"])

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
