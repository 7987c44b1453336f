"""Archives. A look as one `.npz` file: q, k and log-sum-exp of every head, and how scores form. It can be had back.

    about                                     JSON: text, tokens, and of each call its scale, mask and bias
    decoder.0.q, decoder.0.k, decoder.0.lse   (H, Tq, D), (Hkv, Tk, D), (H, Tq) of that kind and layer's kept heads
    decoder.0.rule.0.real …                   what masks and biases hold as numbers

`read_npz` makes of it what was written: a Look, a Seen or an AttentionMap, with every weight. The file grows with the
text as what is kept does, not with its square. For a program that wants plain weights, `weights=True` writes those,

    decoder.0.weights                         (H, Tq, Tk)

numbers of bfloat16, which numpy has not, as the 16-bit whole numbers of the same bits. Nothing is pickled, and nothing
that was pickled is read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from clearhead.errors import LensError
from clearhead.lens.kept.call import KINDS, Call
from clearhead.lens.kept.placed import DistanceBias
from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import ARRAY_CELLS, AttentionMap
from clearhead.lens.reading import Reading
from clearhead.lens.seen import Seen
from clearhead.lens.ways_out.chosen import Source, check_source, layers_of
from clearhead.lens.ways_out.outputs import check_ending, check_path, whole_or_nothing
from clearhead.model import masks
from clearhead.model.kernels import Scoring
from clearhead.model.masks import Bias, Mask, Rule, Table
from clearhead.model.transformer import Output

SCHEMA = 1

PARTS: dict[str, type[Rule] | type[Bias]] = {
    part.__name__: part
    for part in (
        masks.Causal,
        masks.Window,
        masks.KeyPadding,
        masks.Documents,
        masks.Prefix,
        masks.Table,
        masks.SlopeBias,
        masks.RoundedSlopeBias,
        masks.BucketBias,
        masks.TableBias,
        DistanceBias,
    )
}
"""The rules and biases that a file may name. Another, which only its own code can tell, is written out as a Table."""

Arrays = dict[str, np.ndarray]


def write_npz(path: str | os.PathLike[str], source: Source, *, weights: bool = False, batch: int = 0) -> int:
    """Write a look, what was seen, or one map, all of it or nothing; returns the file's bytes.

    weights: write the weights themselves instead, a number for each pair of tokens, of at most `ARRAY_CELLS` in all.
    batch: which text of a Seen. Of a model that ran more than once, its last run is written.
    Raises LensError for a path that cannot be written to, and for weights that are too many.
    """
    check_source(source)
    where = check_path(path)
    check_ending(where, ("npz",), "numpy archive")
    arrays = _dense(source, batch) if weights else _kept(source, batch)
    with whole_or_nothing(where) as out:
        np.savez(out, allow_pickle=False, **arrays)
    return where.stat().st_size


def read_npz(path: str | os.PathLike[str]) -> Source:
    """What `write_npz` was given. A Look that was read has no `output`: asking for it raises LensError.

    Raises LensError for a file that is not such an archive.
    """
    where = Path(path)
    try:
        with where.open("rb") as file:
            arrays = _checked(file)
        about = json.loads(str(arrays.pop("about")))
        if about["schema"] != SCHEMA:
            raise LensError(f"{where} has schema {about['schema']}, which this version of clearhead does not know.")
        if about["holds"] == "weights":
            raise LensError(f"{where} holds the weights alone; read them with numpy.load({where.name!r}).")
        return _had_back(about, arrays)
    except OSError as problem:
        raise LensError(f"{where} cannot be read: {problem.strerror or problem}.") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, zipfile.BadZipFile) as problem:
        raise LensError(f"{where} is not what write_npz writes, or not all of it: {problem}.") from problem


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _kept(source: Source, batch: int) -> Arrays:
    batch = 0 if isinstance(source, AttentionMap) else batch  # a map is of one text already
    arrays: Arrays = {}
    calls = []
    for name, kind, layer, module, heads, keys_at, (q, k, lse, scoring) in _calls(source, batch):
        for part, tensor in (("q", q), ("k", k), ("lse", lse)):
            arrays[f"{name}.{part}"] = _array(tensor[0])
        described = {"name": name, "kind": kind, "layer": layer, "module": module, "heads": heads, "keys_at": keys_at}
        described["dtype"] = str(q.dtype).removeprefix("torch.")
        calls.append({**described, **_of_scoring(name, scoring, q, k, batch, arrays)})
    return {"about": np.array(json.dumps({**_about(source), "calls": calls})), **arrays}


def _dense(source: Source, batch: int) -> Arrays:
    arrays: Arrays = {}
    cells = 0
    for kind, layer, maps, _ in layers_of(source, batch=batch):
        rows, cols = next(iter(maps.values())).shape if maps else (0, 0)
        cells += len(maps) * rows * cols
        if cells > ARRAY_CELLS:
            raise LensError(
                f"these are more than {ARRAY_CELLS:,} weights; leave weights=True out, and q, k and log-sum-exp are "
                "written, from which every weight can be had, or write one head: look.map(layer, head)."
            )
        name = "map" if kind is None else f"{kind}.{layer}"
        arrays[f"{name}.weights"] = torch.stack([m.dense() for m in maps.values()]).cpu().numpy()
    about = {**_about(source), "holds": "weights"}
    return {"about": np.array(json.dumps(about)), **arrays}


def _about(source: Source) -> dict[str, Any]:
    about: dict[str, Any] = {"schema": SCHEMA, "holds": "seen"}
    if isinstance(source, AttentionMap):
        return {**about, "holds": "map", "name": source.name, "words": source.words and [list(x) for x in source.words]}
    if isinstance(source, Look):
        reading = source.reading
        sides = {"text": (source.text, source.tokens, source.offsets, reading.ids[0].tolist())}
        if source.target is not None and reading.target_ids is not None:
            ids = reading.target_ids[0].tolist()
            sides["target"] = (source.target, source.target_tokens, source.target_offsets, ids)
        about |= {"holds": "look", "model": source.name, "sides": sides}
    return about


def _calls(source: Source, batch: int) -> Iterator[tuple[Any, ...]]:
    """Each call: its name, kind, layer, module, heads, the key head of each; and (q, k, lse, scoring), of one text."""
    if isinstance(source, AttentionMap):
        yield "map", None, None, "", [1, 0], [0], (source.q, source.k, source.lse, source.scoring)
        return
    seen = source.seen if isinstance(source, Look) else source
    for kind, layer, *_ in layers_of(source, batch=batch):
        call = seen.call(layer or 0, kind)
        q, k, lse = (x[batch : batch + 1] for x in call.tensors)
        heads = [call.n_heads, *call.heads]
        yield f"{kind}.{layer}", kind, layer, call.module, heads, list(call.keys_at), (q, k, lse, call.scoring)


def _of_scoring(name: str, scoring: Scoring, q: Tensor, k: Tensor, batch: int, arrays: Arrays) -> dict[str, Any]:
    if scoring.sinks is not None:
        arrays[f"{name}.sinks"] = _array(scoring.sinks.float())
    mask = scoring.mask
    known = (
        rule if type(rule).__name__ in PARTS else _written_out(rule, mask.offset, q.shape[2], k.shape[2], q.device)
        for rule in mask.rules
    )
    rules, biases = [_of_text(rule, batch) for rule in known], [_of_text(bias, batch) for bias in mask.biases]
    return {
        "scale": scoring.scale,
        "softcap": scoring.softcap,
        "bias_dtype": None if scoring.bias_dtype is None else str(scoring.bias_dtype).removeprefix("torch."),
        "offset": mask.offset,
        "rules": [_part(f"{name}.rule.{n}", rule, arrays) for n, rule in enumerate(rules)],
        "biases": [_part(f"{name}.bias.{n}", bias, arrays) for n, bias in enumerate(biases)],
    }


def _written_out(rule: Rule, offset: int, rows: int, cols: int, device: torch.device) -> Table:
    """A rule that is someone's own function, as the table of what it allows, at the positions of the queries."""
    if (rows + offset) * cols > ARRAY_CELLS:
        raise LensError(
            f"this mask is a {type(rule).__name__}, which can only be written out, and for {rows:,} × {cols:,} tokens "
            "that is too large; write one map's weights, weights=True, or a shorter text."
        )
    return Table(rule.allows(torch.arange(rows + offset, device=device), torch.arange(cols, device=device)))


def _of_text(part: Rule | Bias, batch: int) -> Any:
    """A rule or a bias of one text of the batch, with all heads still in it."""
    match part:
        case masks.Table(table) | masks.TableBias(table):
            return type(part)(table[batch : batch + 1]) if table.shape[0] > 1 else part
        case masks.RoundedSlopeBias(places=places):
            return dataclasses.replace(part, places=places[batch : batch + 1])
        case DistanceBias(values=values) if values.shape[0] > 1:
            return dataclasses.replace(part, values=values[batch : batch + 1])
        case masks.KeyPadding() | masks.Documents() | masks.Prefix():
            return part.of(batch, 0)
    return part  # what depends on positions alone


def _part(name: str, part: Rule | Bias, arrays: Arrays) -> dict[str, Any]:
    """A rule or a bias: its numbers here, its tensors among the arrays."""
    if type(part).__name__ not in PARTS:
        raise LensError(f"this bias is a {type(part).__name__}, which an archive cannot name; write weights=True.")
    said: dict[str, Any] = {"is": type(part).__name__}
    for field in dataclasses.fields(part):  # type: ignore[arg-type]  # every rule and bias is a dataclass
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            arrays[f"{name}.{field.name}"] = _array(value)
            value = {"array": f"{name}.{field.name}", "dtype": str(value.dtype).removeprefix("torch.")}
        said[field.name] = value
    return said


def _array(x: Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _checked(file: IO[bytes]) -> Arrays:
    """The arrays, of an archive that lies about no size: what is stored as it is cannot be larger than the file."""
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
            with members.open(member) as one:
                version = np.lib.format.read_magic(one)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(one)
                if int(np.prod(shape, dtype=object)) * dtype.itemsize != member.file_size - one.tell():
                    raise ValueError(f"{member.filename} does not hold what it says")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _had_back(about: dict[str, Any], arrays: Arrays) -> Source:
    if about["holds"] == "map":
        (only,) = about["calls"]
        q, k, lse, scoring = _tensors(only, arrays)
        m = AttentionMap(q, k, lse, scoring, name=str(about["name"]))
        if about["words"] is not None:
            rows, cols = about["words"]
            m.words = list(map(str, rows)), list(map(str, cols))
        return m
    seen = Seen()
    for each in about["calls"]:
        if each["kind"] not in KINDS:
            raise ValueError(f"no kind of attention is called {each['kind']!r}")
        q, k, lse, scoring = _tensors(each, arrays)
        seen.record(_call(q, k, lse, scoring, each))
    if about["holds"] != "look":
        return seen
    sides = {side: _Side.of(*those) for side, those in about["sides"].items()}
    text, target = sides["text"], sides.get("target")
    ids = torch.tensor([text.ids])
    reading = Reading(text.text, text, ids)
    if target is not None:
        reading = Reading(text.text, text, ids, None, target.text, target, torch.tensor([target.ids]))
    return Recalled(seen, reading, name=str(about["model"]))


def _call(q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, said: dict[str, Any]) -> Call:
    n_heads, *heads = said["heads"]
    call = Call(q, k, lse, scoring, kind=said["kind"], layer=int(said["layer"]), module=str(said["module"]))
    call.number_heads(n_heads, tuple(heads))
    return call


def _tensors(said: dict[str, Any], arrays: Arrays) -> tuple[Tensor, Tensor, Tensor, Scoring]:
    q, k = (_tensor(arrays[f"{said['name']}.{part}"], said["dtype"])[None] for part in "qk")
    lse = torch.from_numpy(arrays[f"{said['name']}.lse"])[None]
    n_heads, *heads = said["heads"]
    some = len(heads) != n_heads
    if q.ndim != 4 or k.ndim != 4 or lse.shape != q.shape[:3] or q.shape[3] != k.shape[3] or not k.shape[1]:
        raise ValueError(f"q, k and log-sum-exp of {said['name']} do not fit one another")
    if some and len(said["keys_at"]) == q.shape[1]:
        k = k[:, said["keys_at"]]  # of a part of a layer each head has its keys beside it
    if q.shape[1] % k.shape[1] or (some and k.shape[1] != len(heads)):
        raise ValueError(f"q, k and log-sum-exp of {said['name']} do not fit one another")
    sinks = arrays.get(f"{said['name']}.sinks")
    mask = Mask(
        tuple(_part_back(part, arrays) for part in said["rules"]),
        tuple(_part_back(part, arrays) for part in said["biases"]),
        int(said["offset"]),
    )
    softcap = said["softcap"]
    scoring = Scoring(
        float(said["scale"]),
        mask,
        None if softcap is None else float(softcap),
        None if sinks is None else torch.from_numpy(sinks),
        {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(said.get("bias_dtype") or ""),
    )
    one = torch.arange(1)  # what does not fit is told here
    if not some:
        scoring.scores(q[:, :, :1], k[:, :, :1], one, one)
    for at, head in enumerate(heads if some else ()):
        part = slice(at, at + 1)
        if scoring.of(0, head).scores(q[:, part, :1], k[:, part, :1], one, one).numel() != 1:
            raise ValueError(f"head {head} of {said['name']} has no scores")
    return q, k, lse, scoring


def _part_back(said: dict[str, Any], arrays: Arrays) -> Any:
    fields = {
        name: _tensor(arrays[value["array"]], value["dtype"]) if isinstance(value, dict) else value
        for name, value in said.items()
        if name != "is"
    }
    return PARTS[said["is"]](**fields)


def _tensor(array: np.ndarray, dtype: str) -> Tensor:
    tensor = torch.from_numpy(array)
    kind = getattr(torch, dtype)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"there is no dtype {dtype!r}")
    return tensor.view(kind) if kind == torch.bfloat16 else tensor


@dataclass(frozen=True)
class _Side:
    """A text with its tokens, as a `Reading` takes them."""

    text: str
    labels: list[str]
    offsets: list[tuple[int, int]]
    ids: list[int]
    type_ids: list[int]

    @classmethod
    def of(cls, text: str, tokens: list[str], offsets: list[list[int]], ids: list[int]) -> _Side:
        if not len(tokens) == len(offsets) == len(ids):
            raise ValueError("the tokens and their places do not fit one another")
        places = [(int(start), int(end)) for start, end in offsets]
        return cls(str(text), list(map(str, tokens)), places, list(map(int, ids)), [0] * len(ids))


class Recalled(Look):
    """A look that was read from a file: all of it but the model's output."""

    def __init__(self, seen: Seen, reading: Reading, *, name: str = "") -> None:
        nothing = Output(torch.empty(0, 0, 0))
        super().__init__(seen, reading, nothing, name=name)

    def __getattribute__(self, name: str) -> Any:
        if name == "output":
            raise LensError("this look was read from a file, which does not hold the model's output; look again.")
        return super().__getattribute__(name)
