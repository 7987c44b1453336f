"""M2M-100 and NLLB, past their grid: positions that begin behind another padding's row, and reach far."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration

from clearhead.checkpoint import load
from tests.parity import support
from tests.parity.grids.bart import SMALL
from tests.parity.test_bart import rewritten


@torch.no_grad()
def test_positions_are_counted_from_the_paddings_row(tmp_path: Path) -> None:
    config = M2M100Config(**(SMALL | {"pad_token_id": 3}), scale_embedding=False)
    theirs = support.tiny(M2M100ForConditionalGeneration, config)
    ours = support.loaded(theirs, tmp_path)
    assert ours.config.encoder is not None and ours.config.encoder.position.offset == 4  # type: ignore[union-attr]
    source, target = torch.randint(4, 20, (2, 7)), torch.randint(4, 20, (2, 5))
    source[1, :3] = 3
    real = source != 3
    want = theirs(source, attention_mask=real.long(), decoder_input_ids=target).logits
    support.close(ours.model(source, target, attention_mask=real).logits, want, "logits")
    support.same_both_ways(ours, theirs, tmp_path)


@torch.no_grad()
def test_far_positions_are_the_same(tmp_path: Path) -> None:
    theirs = support.tiny(M2M100ForConditionalGeneration, M2M100Config(**(SMALL | {"max_position_embeddings": 1024})))
    ours = support.loaded(theirs, tmp_path)
    source, target = torch.randint(1, 20, (1, 1024)), torch.randint(1, 20, (1, 900))
    want = theirs(source, decoder_input_ids=target).logits
    support.close(ours.model(source, target).logits, want, "logits")


def test_sinusoids_that_old_files_store_are_ignored_by_name(tmp_path: Path) -> None:
    theirs = support.tiny(M2M100ForConditionalGeneration, M2M100Config(**SMALL))
    theirs.save_pretrained(tmp_path)
    table = theirs.model.encoder.embed_positions.weights.clone()
    rewritten(tmp_path, tensors={"model.encoder.embed_positions.weights": table})
    ours = load(tmp_path)
    assert [account.fate for account in ours.report.tensors if "embed_positions" in account.name] == ["ignored"]
    support.same_pair(ours.model, theirs, 20, pads=("none",))
