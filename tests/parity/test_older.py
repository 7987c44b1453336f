"""transformers 4.57 reads what we export, and gives the same logits: files that only 5 reads rightly are not written.

It needs a Python that has it, named by CLEARHEAD_TRANSFORMERS4:

    python -m venv /tmp/v4 && /tmp/v4/bin/pip install torch transformers==4.57.6
    CLEARHEAD_TRANSFORMERS4=/tmp/v4/bin/python make test-all ARGS='tests/parity/test_older.py'
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from safetensors.torch import load_file, save_file

from clearhead.checkpoint import export, load
from tests.parity import support
from tests.parity.grids import grids

GRIDS = grids()
OLDER = os.environ.get("CLEARHEAD_TRANSFORMERS4")

SCRIPT = """
import json, sys, torch, transformers
from pathlib import Path
from safetensors.torch import load_file, save_file
transformers.utils.logging.set_verbosity_error()
for folder in map(Path, sys.argv[2:]):
    cls = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model, info = cls.from_pretrained(folder, output_loading_info=True, attn_implementation=sys.argv[1])
    wrong = {key: sorted(map(str, value)) for key, value in info.items() if value}
    with torch.no_grad():
        logits = model.eval()(**load_file(folder / "asked.safetensors")).logits
    save_file({"logits": logits.contiguous()}, folder / "said.safetensors", metadata={"wrong": json.dumps(wrong)})
    assert not wrong, (folder, wrong)
"""


@pytest.mark.slow
@pytest.mark.skipif(OLDER is None, reason="CLEARHEAD_TRANSFORMERS4 names no Python that has transformers 4.57")
@pytest.mark.parametrize("family", sorted(GRIDS))
def test_transformers_4_reads_our_export(family: str, tmp_path: Path) -> None:
    grid = GRIDS[family]
    kind = next(iter(grid.classes))
    folders: list[Path] = []

    @settings(max_examples=6, derandomize=True, phases=(Phase.generate,))
    @given(grid.configs)
    def drawn(config: Any) -> None:
        assume(grid.older(config))
        theirs = support.tiny(grid.classes[kind], config)
        path = tmp_path / str(len(folders))
        ours = support.loaded(theirs, path / "first")
        again = load(export(ours, path / "out")).model
        ids, real = support.texts(config.vocab_size, pad="right" if not grid.alone(config) else "none")
        asked = {"input_ids": ids, "attention_mask": real}
        if grid.inputs is not None:
            asked |= {name: value.contiguous() for name, value in grid.inputs(config, real).items()}
        if config.is_encoder_decoder:
            asked["decoder_input_ids"] = torch.randint(1, config.vocab_size, (3, 5))
        save_file(asked, path / "out" / "asked.safetensors")
        with torch.no_grad():
            if config.is_encoder_decoder:
                logits = again(ids, asked["decoder_input_ids"], attention_mask=real).logits
            else:
                logits = again(ids, attention_mask=real).logits
        save_file({"logits": logits.contiguous()}, path / "ours.safetensors")
        folders.append(path)

    drawn()
    assert OLDER is not None
    attention = (support.EAGER | dict(grid.options.get(kind, {})))["attn_implementation"]
    command = [OLDER, "-c", SCRIPT, attention, *(str(path / "out") for path in folders)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, check=False)
    print(done.stderr[-3000:], file=sys.stderr)
    assert done.returncode == 0, done.stderr[-500:]
    for path in folders:
        said, ours_said = load_file(path / "out" / "said.safetensors"), load_file(path / "ours.safetensors")
        at = load_file(path / "out" / "asked.safetensors")["attention_mask"].bool()
        got, want = ours_said["logits"], said["logits"]
        if got.shape[1] == at.shape[1]:
            got, want = got[at], want[at]
        support.close(got, want, f"{family} in transformers 4: {path}")
