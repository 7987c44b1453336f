"""The feed: data, order and objective put together. What the loop asks for the parts of a step.

    Feed         rows on disk: a step's batch is a pure function of the seed and the step, so there is no state
    StreamFeed   a stream: steps come in order, and where it stands is saved
    Ahead        a Feed whose next batches are made while the model computes

The whole batch of a step is the same for any number of processes (`world`) and parts; each process (`rank`) computes
its own share of it, in `parts` whose gradients the loop adds up. Processes compute in step, so each has as many parts
as any other: one that has fewer rows than parts is given a row from which nothing is learned (`Batch.mute`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.batch import Batch
from clearhead.train.data.order import InOrder, Order, share
from clearhead.train.data.packing import Rows
from clearhead.train.data.stream import Stream
from clearhead.train.objectives.common import Chance, Objective, Row, Vocabulary


class Feed:
    """Batches from rows that can be asked for by number."""

    def __init__(
        self,
        rows: Rows,
        order: Order,
        objective: Objective,
        vocabulary: Vocabulary,
        *,
        seed: int = 0,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check(parts, rank, world)
        self._rows, self._order, self._objective, self._vocabulary = rows, order, objective, vocabulary
        self._seed, self._parts, self._rank, self._world = seed, parts, rank, world

    def at(self, step: int) -> list[Batch]:
        """This process's parts of a step; fewer than asked where no process has so many rows."""
        numbers = self._order.rows(step)
        return list(_batches(self, step, numbers, lambda place: self._rows[int(numbers[place])]))

    def state(self) -> Mapping[str, Any]:
        """Nothing: the step says it all."""
        return {}

    def load_state(self, told: Mapping[str, Any]) -> None:
        """Nothing to load. Raises TrainingError for a stream's state."""
        if told:
            raise TrainingError("the run was saved while it read a stream; go on with the same data.stream.")


def _batches(
    feed: Feed | StreamFeed, step: int, numbers: Sequence[int] | np.ndarray, row: Callable[[int], Row]
) -> Iterator[Batch]:
    """The parts of a process's own rows, each with the chance that belongs to its places in the whole. row: gives the
    row at a place."""

    def made(places: range) -> Batch:
        return feed._objective.batch(
            [row(place) for place in places],
            feed._vocabulary,
            Chance(seed=feed._seed, step=step, first=places.start),
            [int(numbers[place]) for place in places],
        )

    own = share(len(numbers), feed._rank, feed._world)
    many = min(feed._parts, -(-len(numbers) // feed._world))  # as many as the process that has most
    for part in range(many):
        inside = share(len(own), part, many)
        places = own[inside.start : inside.stop]
        yield made(places) if places else made(range(1)).muted()


class StreamFeed:
    """Batches from a stream. Each process reads all of it, and makes batches of its own share only."""

    def __init__(
        self,
        stream: Stream,
        objective: Objective,
        vocabulary: Vocabulary,
        *,
        batch: int,
        seed: int = 0,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check(parts, rank, world)
        if batch < 1:
            raise ConfigError(f"batch={batch} should be a number of rows, 1 or more.")
        self._stream, self._objective, self._vocabulary, self._batch = stream, objective, vocabulary, batch
        self._seed, self._parts, self._rank, self._world = seed, parts, rank, world
        self._next = 0

    def at(self, step: int) -> list[Batch]:
        """This process's parts of the next step. Raises TrainingError for any other."""
        if step != self._next:
            raise TrainingError(
                f"a stream gives step {self._next} next, and not step {step}; a run that did not stream cannot go on "
                "with data.stream."
            )
        rows = self._stream.take(self._batch)
        self._next += 1
        numbers = range(step * self._batch, (step + 1) * self._batch)
        return list(_batches(self, step, numbers, rows.__getitem__))

    def state(self) -> Mapping[str, Any]:
        """Where the stream stands: the first process tells, since all stand alike."""
        return {} if self._rank else {"next": self._next, "stream": self._stream.state_dict()}

    def load_state(self, told: Mapping[str, Any]) -> None:
        """Go on from there. Raises TrainingError for what is no state of a stream."""
        try:
            self._next = int(told["next"])
            self._stream.load_state_dict(told["stream"])
        except (KeyError, TypeError) as error:
            raise TrainingError(
                f"the run was saved without a stream's state ({error!r}); its data was another."
            ) from None


class Ahead:
    """A feed's batches, those of the next `steps` steps made in a thread while the model computes, inside of
    `with ahead:`; outside of it, made when they are asked for. They are the same batches: a step says all, whoever
    asks and when. What goes wrong in the thread is raised when its step is asked for. until: how many steps the run
    has; none beyond is made.

    At the block's end, whatever ends it, the thread has ended.
    """

    def __init__(self, feed: Feed, steps: int = 2, *, until: int | None = None) -> None:
        if steps < 1:
            raise ConfigError(f"steps={steps} should be 1 or more.")
        self._feed, self._steps, self._until = feed, steps, until
        self._thread: ThreadPoolExecutor | None = None
        self._made: dict[int, Future[list[Batch]]] = {}

    def __enter__(self) -> Ahead:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        return self

    def __exit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        self._made.clear()
        if thread is not None:
            thread.shutdown(cancel_futures=True)

    def at(self, step: int) -> list[Batch]:
        """The parts of a step."""
        if self._thread is None:
            return self._feed.at(step)
        last = step + self._steps if self._until is None else min(step + self._steps, self._until - 1)
        wanted = range(step, max(last, step) + 1)
        for other in [other for other in self._made if other not in wanted]:
            self._made.pop(other).cancel()
        for each in wanted:
            if each not in self._made:
                self._made[each] = self._thread.submit(self._feed.at, each)
        return self._made.pop(step).result()

    def state(self) -> Mapping[str, Any]:
        """The feed's: nothing."""
        return self._feed.state()

    def load_state(self, told: Mapping[str, Any]) -> None:
        """The feed's."""
        self._feed.load_state(told)


def once(
    rows: Rows, objective: Objective, vocabulary: Vocabulary, *, batch: int, seed: int = 0, most: int | None = None
) -> Iterator[Batch]:
    """Every row once, in order, for evaluation: the same batches each time. most: stop after so many batches."""
    order = InOrder(n_rows=len(rows), batch=batch)
    for step in range(order.n_steps if most is None else min(most, order.n_steps)):
        numbers = [int(number) for number in order.once(step)]
        yield objective.batch([rows[n] for n in numbers], vocabulary, Chance(seed=seed, step=step), numbers)


def _check(parts: int, rank: int, world: int) -> None:
    if parts < 1 or world < 1 or not 0 <= rank < world:
        raise ConfigError(f"parts={parts}, rank={rank}, world={world}: give 1 or more parts, and rank below world.")
