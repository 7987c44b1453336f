"""CONTRIBUTING's worked example is a whole family: it loads, and it goes out again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clearhead.checkpoint import export, families, load

ROOT = Path(__file__).resolve().parents[2]


def test_the_family_of_the_page_loads_and_goes_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), space)
    (family,) = space["FAMILIES"]
    monkeypatch.setitem(families.families(), family.model_type, family)

    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 20}
    theirs = LlamaForCausalLM(LlamaConfig(vocab_size=20, num_hidden_layers=2, **sizes)).eval()
    theirs.save_pretrained(tmp_path / "in")
    path = tmp_path / "in" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "alpaca", "q_bias": False}))
    ours = load(tmp_path / "in")
    ids = torch.randint(20, (2, 7))
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids).logits, theirs(ids).logits)
    assert load(export(ours, tmp_path / "out")).config == ours.config
