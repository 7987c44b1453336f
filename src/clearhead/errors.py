"""Everything that can go wrong, as one family. Catch `ClearheadError` and you have caught it all.

    ClearheadError
    ├── ConfigError               a model description that contradicts itself, or a value out of its range
    ├── InputError                ids, masks or texts that do not fit the model they are given to
    │   └── ContextError          a text longer than the positions that the model was made for
    ├── TokenizerError            a tokenizer file that cannot be read, or a text that cannot be encoded
    ├── CheckpointError           a folder or file that does not hold what it says
    │   ├── UnknownModelError     a name that is no folder, no embedded model and no hub id we can reach
    │   ├── UnknownFamilyError    a `model_type` that has no table here
    │   ├── UnknownKeyError       a config key or a tensor that the family's table does not account for
    │   └── UnsafeFileError       pickles, paths that leave the folder, sizes that lie
    ├── LensError                 a look that cannot be had
    │   ├── NotWatchableError     a model whose attention cannot be watched; the message names the way out
    │   ├── OutsideError          an index past the map, the layers, the heads or the words (also an IndexError)
    │   └── ReleasedError         a map whose tensors were given back
    ├── TrainingError             a run that cannot begin or go on: no data, a loss that is no number, a full disk
    ├── ServeError                the explorer's server cannot start, or was asked for what it does not give
    └── MissingDependencyError    an optional library is absent; the message says which `pip install` brings it

Every message says what is wrong, where, and what to do. The command line prints it as one line and exits with 2;
the server answers with a 4xx and the same line. An exception outside this family is a bug of ours.
"""

from __future__ import annotations


class ClearheadError(Exception):
    """The root of the family: a mistake that the message explains and a user can mend."""

    def __str__(self) -> str:
        """The message on one line that any output can print: a line's end is a space, what is not printable escaped."""
        return "".join(
            one if one.isprintable() else " " if one.isspace() else one.encode("unicode_escape").decode()
            for one in super().__str__()
        )


class ConfigError(ClearheadError, ValueError):
    """A model description contradicts itself, or a value lies outside its range."""


class InputError(ClearheadError, ValueError):
    """Ids, masks or texts do not fit the model that they are given to."""


class ContextError(InputError):
    """The text is longer than the positions that the model was made for."""


class TokenizerError(ClearheadError, ValueError):
    """A tokenizer file cannot be read, or a text cannot be encoded with it."""


class CheckpointError(ClearheadError):
    """A checkpoint folder or file does not hold what it says."""


class UnknownModelError(CheckpointError):
    """A name is no folder, no embedded model, and no hub id that can be reached."""


class UnknownFamilyError(CheckpointError):
    """The checkpoint's `model_type` has no table here."""


class UnknownKeyError(CheckpointError):
    """A config key or a tensor is not accounted for by the family's table."""


class UnsafeFileError(CheckpointError):
    """A file that could run code, leave its folder, or lies about its sizes."""


class LensError(ClearheadError):
    """A look at attention that cannot be had."""


class NotWatchableError(LensError):
    """The model's attention cannot be watched; the message names the way out."""


class OutsideError(LensError, IndexError):
    """An index lies past the map, the layers, the heads or the words there are."""


class ReleasedError(LensError):
    """The map's tensors were given back; look again to have new ones."""


class TrainingError(ClearheadError):
    """A training run cannot begin, or cannot go on; what it has saved stays whole."""


class ServeError(ClearheadError):
    """The explorer's server cannot start, or was asked for what it does not give."""


class MissingDependencyError(ClearheadError, ImportError):
    """An optional library is absent; the message says which `pip install` brings it."""
