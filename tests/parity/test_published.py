"""Checkpoints as they are published: their config.json with every old key in it, made small, and tensors that newer
versions of transformers no longer save. Each loads, and says what transformers says.

`published.json` has a line for each: the class that loads it, its config, and those tensors: a shape, or the name of
the one that it repeats. Widths and counts are ours; the keys are theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import clearhead
from clearhead.model import EncoderDecoder
from clearhead.model.config import SequenceClassification
from tests.parity import support
from tests.parity.grids.falcon import SDPA

PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = json.loads(
    Path(__file__).with_suffix(".json").with_name("published.json").read_text()
)
CODE = ("torch_dtype", "dtype", "auto_map", "custom_pipelines")
"""Keys that transformers would act on; the model is built in float32, of its own classes."""

pytestmark = [pytest.mark.filterwarnings("ignore:::transformers"), pytest.mark.usefixtures("as_a_user")]


def made(name: str, folder: Path) -> Any:
    """The random model of transformers in its folder, under the published config."""
    cls, keys, more = PUBLISHED[name]
    file = folder / "config.json"
    file.write_text(json.dumps({key: value for key, value in keys.items() if key not in CODE}))
    config = transformers.AutoConfig.from_pretrained(folder)
    options = SDPA if config.model_type == "falcon" else {}
    theirs = support.tiny(getattr(transformers, cls)._model_mapping[type(config)], config, **options)
    theirs.save_pretrained(folder)
    file.write_text(json.dumps(keys))
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    for tensor, says in more.items():
        known = theirs.state_dict()
        tensors[tensor] = known[says].clone() if isinstance(says, str) else torch.randn(says)
    save_file(tensors, weights, {"format": "pt"})
    return theirs


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_is_what_transformers_makes_of_it(name: str, tmp_path: Path) -> None:
    theirs = made(name, tmp_path)
    lm = clearhead.load(tmp_path, dtype=torch.float32)
    ids = torch.randint(3, 95, (2, 20))
    ids[ids == lm.config.tokens.pad] = 5
    if isinstance(lm.config.head, SequenceClassification) and isinstance(lm.model, EncoderDecoder):
        ids[:, -1] = lm.config.tokens.eos[0]  # whose vector the head reads
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if isinstance(lm.model, EncoderDecoder) and not isinstance(lm.config.head, SequenceClassification):
        given["decoder_input_ids"] = ids[:, :7].flip(1)
    with torch.no_grad():
        want, found = theirs(**given), lm.model(**given)
    if hasattr(want, "last_hidden_state"):
        support.close(found.hidden, want.last_hidden_state, name)
    elif lm.config.head is None:  # ELECTRA's discriminator is read as the base that it is
        support.close(found.hidden, theirs.electra(**given).last_hidden_state, name)
    else:
        support.close(found.logits, want.logits, name)
