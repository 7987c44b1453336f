"""Tokenising: pieces of the data to parts of a cache, in as many processes as there are processors.

The processes are fresh ones (`python -m clearhead.train.data.tokenise`), so no program needs a guard around its main
part, and nothing is forked beside running threads. Each is told the work once, then takes one piece after another.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from clearhead.errors import ClearheadError, TrainingError
from clearhead.text import Tokenizer
from clearhead.train.data.cache import Part, dtype_of
from clearhead.train.data.encoders import Encoder, Fields
from clearhead.train.data.rows import Piece, Reader, Skipped

_AT_A_TIME = 1 << 20
"""Numbers that wait to be written."""


@dataclass(frozen=True)
class Work:
    """What every process is told: where rows come from, what becomes of them, and with which tokenizer."""

    reader: Reader
    encoder: Encoder
    vocab_size: int


def encode_piece(work: Work, tokenizer: Tokenizer, piece: Piece, prefix: Path) -> Part:
    """Write the numbers of one piece's rows, by field. Raises TrainingError naming the row that cannot be had."""
    notes: Counter[str] = Counter()
    joins = False
    with _Columns(work, prefix) as columns:
        for found in work.reader.read(piece):
            if isinstance(found, Skipped):
                notes[found.why] += 1
                continue
            try:
                fields = work.encoder.encode(found.row, tokenizer, notes, first=found.first, last=found.last)
            except ClearheadError as error:
                raise found.refused(error) from error
            joins = joins or (columns.rows == 0 and not found.first)
            columns.add(fields)
    return Part(prefix=prefix, rows=columns.rows, joins=joins, largest=columns.largest, notes=notes)


class _Columns:
    """The files of a part. A packed file of any size is one piece, so rows are written as they come, some at a time."""

    def __init__(self, work: Work, prefix: Path) -> None:
        self._kinds = work.encoder.fields
        self._dtypes = {name: dtype_of(kind, work.vocab_size) for name, kind in self._kinds.items()}
        part = Part(prefix=prefix, rows=0, joins=False, largest={}, notes={})
        self._paths = {name: (part.numbers(name), part.lengths(name)) for name in self._kinds}
        self._waiting: dict[str, list[np.ndarray]] = {name: [] for name in self._kinds}
        self._many = self.rows = 0
        self.largest: dict[str, int] = {}

    def __enter__(self) -> _Columns:
        self._open = ExitStack()
        self._files = {
            name: [self._open.enter_context(open(path, "wb")) for path in paths]  # noqa: SIM115
            for name, paths in self._paths.items()
        }
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._open:
            if kind is None:
                self._write()

    def add(self, fields: Fields) -> None:
        """A row more."""
        for name, values in fields.items():
            self._waiting[name].append(np.asarray(values, dtype=self._dtypes[name]))
            self._many += len(values)
        self.rows += 1
        if self._many > _AT_A_TIME:
            self._write()

    def _write(self) -> None:
        for name, arrays in self._waiting.items():
            numbers, lengths = self._files[name]
            whole = np.concatenate(arrays) if arrays else np.zeros(0, self._dtypes[name])
            if self._kinds[name] == "ids" and len(whole):
                self.largest[name] = max(self.largest.get(name, 0), int(whole.max()))
            numbers.write(whole.tobytes())
            lengths.write(np.array([len(each) for each in arrays], dtype="<i8").tobytes())
            arrays.clear()
        self._many = 0


def parts(
    work: Work, tokenizer: Tokenizer, pieces: list[Piece], folder: Path, workers: int, done: Callable[[Piece], None]
) -> Generator[Part, None, None]:
    """The parts of all pieces, in order. folder: where they may be written; it holds the saved tokenizer."""
    named = [(piece, folder / f"{number:06d}") for number, piece in enumerate(pieces)]
    if workers <= 1:
        for piece, prefix in named:
            part = encode_piece(work, tokenizer, piece, prefix)
            done(piece)
            yield part
        return
    idle: SimpleQueue[_Process] = SimpleQueue()
    processes = []
    try:
        for _ in range(workers):
            processes.append(_Process(work, folder))
            idle.put(processes[-1])

        def run(piece: Piece, prefix: Path) -> Part:
            process = idle.get()
            try:
                return process.ask(piece, prefix)
            finally:
                idle.put(process)

        with ThreadPoolExecutor(workers) as threads:
            waiting: list[tuple[Piece, Future[Part]]] = []
            try:
                for piece, prefix in named:  # a few ahead, so that parts do not pile up on the disk
                    waiting.append((piece, threads.submit(run, piece, prefix)))
                    if len(waiting) >= 4 * workers:
                        yield _first(waiting, done)
                while waiting:
                    yield _first(waiting, done)
            finally:
                for _, future in waiting:
                    future.cancel()
                for process in processes:
                    process.stop()
    finally:
        for process in processes:
            process.stop()


def _first(waiting: list[tuple[Piece, Future[Part]]], done: Callable[[Piece], None]) -> Part:
    piece, future = waiting.pop(0)
    part = future.result()
    done(piece)
    return part


class _Process:
    """A process that tokenises one piece after another."""

    def __init__(self, work: Work, folder: Path) -> None:
        paths = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clearhead.train.data.tokenise", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )
        self._work: Work | None = work

    def ask(self, piece: Piece, prefix: Path) -> Part:
        """The part of a piece. Raises the process's own TrainingError, or says that it is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if self._work is not None:  # pickles go from us to our own child, and back
                _send(self._process.stdin, self._work)
                self._work = None
            _send(self._process.stdin, (piece, prefix))
            answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, OSError, pickle.UnpicklingError):
            code = self._process.poll()
            raise TrainingError(
                f"a process that tokenised {piece.path} ended ({'killed' if code is None or code < 0 else code}); "
                "if the memory was full, ask for fewer with workers = 1."
            ) from None
        if isinstance(answer, Part):
            return answer
        raise answer

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not read is of no use any more
                    pipe.close()


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _serve(folder: Path) -> None:
    """What such a process does: read the work, then pieces, until there are no more."""
    read, written = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    work = pickle.load(read)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    while True:
        try:
            piece, prefix = pickle.load(read)
        except EOFError:
            return
        try:
            answer: Any = encode_piece(work, tokenizer, piece, prefix)
        except ClearheadError as error:
            answer = TrainingError(str(error))
        except OSError as error:
            answer = OSError(*error.args)
        _send(written, answer)


if __name__ == "__main__":
    try:
        _serve(Path(sys.argv[1]))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
