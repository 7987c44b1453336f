"""What did attention bring to translation? Multi30k, German to English: a Transformer and the GRUs that it replaced.

    python -m bench.translation                 trains all three and scores them (an hour each on 2 cores, or less)
    python -m bench.translation transformer     one of them: transformer, gru, gru-summary
    python -m bench.translation --score         only scores the newest checkpoints, trained to the end or not
    python -m bench.translation --quick         a few steps and 50 texts: does it run? nothing is kept

All three read the same batches for the same number of steps, with as many parameters (recipes/multi30k-de-en*.toml;
`gru-summary`, which has no attention, a tenth fewer). A training that is stopped (Ctrl-C saves) goes on where it was
when the bench is run again. Scored on test 2016 as it lies in the file, case and all, by sacrebleu (13a): with beam 5,
and greedily.
"""

from __future__ import annotations

import argparse
import gzip
import signal
import sys
import time
from pathlib import Path

import torch

from bench.measure import keep, kept
from clearhead.api.training import Run, read_recipe
from clearhead.generate import generate_ids
from clearhead.train import state
from clearhead.train.evaluate import bleu, chrf
from clearhead.train.journal import read
from clearhead.train.objectives.common import padded

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "multi30k"
MODELS = {
    "transformer": ("recipes/multi30k-de-en.toml", ()),
    "gru": ("recipes/multi30k-de-en-gru.toml", ()),
    "gru-summary": ("recipes/multi30k-de-en-gru.toml", ("model.reads=summary",)),
}


def lines(name: str, language: str) -> list[str]:
    return gzip.open(DATA / f"{name}.{language}.gz", "rt", encoding="utf-8").read().splitlines()


def train(name: str, folder: Path, changes: list[str]) -> float:
    """Train it from where it is; the seconds of all cores that it took this time. Ctrl-C saves and stops."""
    recipe, own = MODELS[name]
    begun = bool(state.checkpoints(folder))
    told = read_recipe(folder / "run.json", []) if begun else read_recipe(ROOT / recipe, [*own, *changes])
    run = Run(told, folder, resume=begun, say=print)
    stop: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: stop.append(number))
    start = time.process_time()
    for event in run.go():
        if event.validation is not None or run.done % 50 == 0:
            held_out = "" if event.validation is None else f", held out {event.validation:.3f}"
            print(f"{name}: step {run.done:,} of {told.loop.steps:,}, loss {event.step.loss:.3f}{held_out}", flush=True)
        if stop:
            sys.exit(f"stopped, and saved in {run.save()}; run the bench again to go on")
    signal.signal(signal.SIGINT, before)
    if (written := run.finish()) is not None:
        print(f"written to {written}")
    return time.process_time() - start


def translated(run: Run, sources: list[str], beams: int, batch: int = 50) -> list[str]:
    """What it writes for each, texts of like length together."""
    built = run.built
    tokenizer, eos = built.tokenizer, built.tokenizer.target.eos_id
    ids = [torch.tensor(tokenizer.encode(source).ids).numpy() for source in sources]
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    written = [""] * len(ids)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        table, real = padded([ids[at] for at in places], built.vocabulary.pad)
        found = generate_ids(
            built.model,
            table,
            attention_mask=real,
            max_new_tokens=min(2 * table.shape[1] + 10, 120),
            num_beams=beams,
            eos=() if eos is None else (eos,),
            pad=built.vocabulary.pad,
            decoder_start=built.vocabulary.start,
        )
        for at, row in zip(places, found[:, 1:].tolist(), strict=True):
            written[at] = tokenizer.target.decode(row)
    return written


def scored(name: str, folder: Path, test: str, most: int | None) -> dict[str, object]:
    """The newest checkpoint's figures."""
    run = Run(read_recipe(folder / "run.json", []), folder, resume=True)
    sources, right = lines(test, "de")[:most], lines(test, "en")[:most]
    began = time.perf_counter()
    said = translated(run, sources, beams=5)
    beam_s = time.perf_counter() - began
    greedy = bleu(translated(run, sources, beams=1), right)
    told, journal = bleu(said, right), read(folder)
    before = [0, *(line["tokens"] for line in journal[:-1])]
    seconds = sum((line["tokens"] - b) / line["tokens_per_s"] for line, b in zip(journal, before, strict=True))
    validation = [line["validation_loss"] for line in journal if "validation_loss" in line]
    figures = {
        "BLEU": round(told.value, 2),
        "chrF": round(chrf(said, right).value, 2),
        "BLEU, greedy": round(greedy.value, 2),
        "signature": told.note,
        "parameters": run.built.model.n_parameters(),
        "steps": run.done,
        "of": run.recipe.loop.steps,
        "minutes of training": round(seconds / 60, 1),
        "validation loss": validation[-1] if validation else None,
        "seconds of beam 5": round(beam_s, 1),
    }
    print(f"{name}, {run.done:,} of {run.recipe.loop.steps:,} steps in {seconds / 60:.1f} minutes, on {test}:")
    print(f"  BLEU {told.value:.2f} (beam 5), {greedy.value:.2f} (greedy), chrF {figures['chrF']}; {told.note}")
    for source, text, reference in list(zip(sources, said, right, strict=True))[:3]:
        print(f"    {source}\n  → {text}\n    {reference}")
    return figures


def main() -> None:
    """Train what is not trained, score, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "translation", help="where the runs lie")
    parser.add_argument("--score", action="store_true", help="train nothing")
    parser.add_argument("--test", default="test_2016_flickr", help="`val` to look at while you choose settings")
    parser.add_argument("--quick", action="store_true", help="a few steps, 50 texts, nothing kept")
    args = parser.parse_args()
    if strange := [name for name in args.names if name not in MODELS]:
        parser.error(f"there is no {strange[0]!r}; choose from {', '.join(MODELS)}")
    told = {key: value for key, value in kept("translation").items() if key in MODELS}
    for name in args.names or MODELS:
        folder = args.runs / name
        cpu_s = None
        if not args.score:
            cpu_s = train(name, folder, ["loop.steps=6", "loop.save_every=6"] if args.quick else [])
        figures = scored(name, folder, args.test, 50 if args.quick else None)
        told[name] = {**figures, **({"CPU seconds of the last go": round(cpu_s)} if cpu_s is not None else {})}
    if not args.quick and args.test == "test_2016_flickr":
        keep("translation", told)


if __name__ == "__main__":
    main()
