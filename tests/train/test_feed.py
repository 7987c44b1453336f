"""The feed: from files to batches, the same for any number of processes, exact after a stop."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

from clearhead.errors import ConfigError, TrainingError
from clearhead.model.transformer import Output
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.data.encoders import Text
from clearhead.train.data.order import ByLength, Drawn, Shuffled
from clearhead.train.data.packing import Blocks, Documents, Windows, packed
from clearhead.train.data.readers import GivenRows, TextLines
from clearhead.train.data.stream import Stream
from clearhead.train.feed import Ahead, Feed, StreamFeed, once
from clearhead.train.loop import Batches
from clearhead.train.loss import total_loss
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.common import Vocabulary
from clearhead.train.objectives.masked import MaskedLanguageModel
from tests.train.data.support import VERSES, bytes_tokenizer, cache_of, pieces_tokenizer


def flat(batches):
    """Each row as (number, ids, labels), without padding. Mute batches have none."""
    found = []
    for batch in batches:
        if batch.mute:
            assert batch.n_labels == batch.n_tokens == 0 and batch.rows == () and len(batch.labels) == 1
            continue
        mask = batch.inputs.get("attention_mask", torch.ones_like(batch.inputs["input_ids"], dtype=torch.bool))
        for number, ids, labels, on in zip(batch.rows, batch.inputs["input_ids"], batch.labels, mask, strict=True):
            found.append((number, ids[on].tolist(), labels[on].tolist()))
    return found


@pytest.fixture
def masked(tmp_path):
    tokenizer = pieces_tokenizer()
    cache = cache_of(tmp_path, GivenRows([{"text": v} for v in VERSES * 3]), tokenizer, Text(special=True))
    return packed(cache, Documents()), MaskedLanguageModel(), Vocabulary.of(tokenizer)


@pytest.mark.parametrize("kind", ["shuffled", "by length"])
def test_any_number_of_processes_and_parts_makes_the_same_batches(masked, kind):
    rows, learn, vocabulary = masked

    def feed(**settings):
        order = (
            Shuffled(n_rows=len(rows), batch=7, seed=5)
            if kind == "shuffled"
            else ByLength(rows.lengths, batch=7, seed=5)
        )
        return Feed(rows, order, learn, vocabulary, seed=5, **settings)

    for step in range(4):
        whole = flat(feed().at(step))
        for world, parts in ((1, 3), (2, 1), (3, 2), (8, 2)):
            shares = [feed(rank=rank, world=world, parts=parts).at(step) for rank in range(world)]
            assert [one for share in shares for one in flat(share)] == whole
            assert all(len(share) <= parts for share in shares)
            assert len({len(share) for share in shares}) == 1  # processes compute in step, or they wait for ever
    assert isinstance(feed(), Batches) and feed().state() == {}
    with pytest.raises(ConfigError, match="rank below world"):
        feed(rank=2, world=2)


def test_batches_made_ahead_are_the_same(masked):
    rows, learn, vocabulary = masked
    feed = Feed(rows, Shuffled(n_rows=len(rows), batch=4), learn, vocabulary)
    ahead = Ahead(feed, steps=2)
    steps = (0, 1, 2, 7, 8, 3)  # also after a jump, forth and back
    right = [flat(feed.at(step)) for step in steps]
    assert [flat(ahead.at(step)) for step in steps] == right  # not yet begun
    for _ in range(2):  # and begun again
        with ahead:
            assert [flat(ahead.at(step)) for step in steps] == right
            assert threads() == 1
        assert threads() == 0
    assert flat(ahead.at(7)) == right[3] and threads() == 0
    assert isinstance(ahead, Batches) and ahead.state() == {}


def threads():
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


class Noted:
    """A feed that notes who asks for which step, and has one that cannot be made."""

    def __init__(self, broken=-1):
        self.asked, self.broken = [], broken

    def at(self, step):
        self.asked.append((step, threading.current_thread().name))
        if step == self.broken:
            raise TrainingError(f"row {step} is gone")
        return [step]


def test_what_goes_wrong_ahead_is_said_in_its_step(as_a_user):
    """And not before, nor where the run ends before it; the thread ends in any case."""
    with pytest.raises(TrainingError, match="row 3 is gone"), Ahead(Noted(broken=3), 2) as ahead:
        assert [ahead.at(step) for step in range(3)] == [[0], [1], [2]]
        ahead.at(3)
    with Ahead(Noted(broken=3), 2) as ahead:
        assert ahead.at(1) == [1] and ahead.at(2) == [2]
    with pytest.raises(KeyboardInterrupt), Ahead(Noted()) as ahead:
        ahead.at(0)
        raise KeyboardInterrupt
    assert threads() == 0
    with pytest.raises(ConfigError, match="1 or more"):
        Ahead(Noted(), 0)


def test_no_step_beyond_the_last_is_made(as_a_user):
    noted = Noted()
    with Ahead(noted, 3, until=5) as ahead:
        assert [ahead.at(step) for step in range(5)] == [[step] for step in range(5)]
    assert [step for step, _ in noted.asked] == [0, 1, 2, 3, 4]
    assert all(name.startswith("batches") for _, name in noted.asked)


def test_a_mute_batch_teaches_nothing(masked):
    """Labels of tokens, of texts, and numbers: its loss is 0, and so is its gradient."""
    rows, learn, vocabulary = masked
    feed = Feed(rows, Shuffled(n_rows=len(rows), batch=2), learn, vocabulary, rank=0, world=3)
    (batch,) = feed.at(0)
    assert batch.mute and batch.labels.shape == batch.inputs["input_ids"].shape
    width, ids = 4, {"input_ids": torch.ones(1, 3, dtype=torch.long)}
    for labels in (torch.zeros(1, 3).long(), torch.zeros(1).long(), torch.zeros(1), torch.zeros(1, width)):
        one = Batch(inputs=ids, labels=labels, rows=(4,)).muted()
        logits = torch.randn(*one.labels.shape, width, requires_grad=True)
        loss = total_loss(Output(hidden=torch.zeros(1, 1, 1), logits=logits), one, smoothing=0.1)
        loss.backward()
        assert float(loss.detach()) == 0.0 == float(logits.grad.abs().sum()) and one.n_labels == 0
    assert batch.to("cpu").mute


def test_windows_as_nanogpt_draws_them(tmp_path):
    text = "".join(VERSES)
    cache = cache_of(tmp_path, GivenRows([{"text": text}]), bytes_tokenizer(), Text(end=False))
    rows = packed(cache, Windows(length=16), ahead=1)
    feed = Feed(rows, Drawn(n_rows=len(rows), batch=6), CausalLanguageModel(), Vocabulary.of(bytes_tokenizer()))
    (batch,) = feed.at(0)
    assert batch.inputs.keys() == {"input_ids"} and batch.labels.shape == (6, 16) and batch.n_labels == 96
    for start, ids, labels in flat([batch]):
        assert bytes(ids) == text.encode()[start : start + 16] and labels == [*ids[1:], text.encode()[start + 16]]


def test_one_pass_reads_everything_once(tmp_path):
    tokenizer = bytes_tokenizer()
    cache = cache_of(tmp_path, GivenRows([{"text": v} for v in VERSES]), tokenizer, Text())
    rows = packed(cache, Blocks(length=32), ahead=1)
    learn, vocabulary = CausalLanguageModel(), Vocabulary.of(tokenizer)
    batches = list(once(rows, learn, vocabulary, batch=3))
    inputs = [id for _, ids, _ in flat(batches) for id in ids]
    everything = [id for row in cache for id in row["ids"].tolist()]
    assert inputs == everything[:-1]
    borders = len(VERSES) - 1
    assert sum(batch.n_labels for batch in batches) == len(everything) - 1 - borders
    assert len(list(once(rows, learn, vocabulary, batch=3, most=2))) == 2


def test_a_stream_feeds_the_loop_and_goes_on(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(VERSES * 5), "utf-8")
    vocabulary = Vocabulary.of(bytes_tokenizer())

    def feed(**settings):
        stream = Stream(
            TextLines(paths=(str(tmp_path),)), bytes_tokenizer(), Text(), packing=Blocks(length=24), ahead=1, shuffle=6
        )
        return StreamFeed(stream, CausalLanguageModel(), vocabulary, batch=5, **settings)

    one = feed()
    whole = [flat(one.at(step)) for step in range(6)]
    several = [feed(rank=rank, world=3, parts=2) for rank in range(3)]
    for step in range(3):
        assert [row for each in several for row in flat(each.at(step))] == whole[step]
    state = json.loads(json.dumps(several[0].state()))
    assert several[1].state() == several[2].state() == {}  # they all stand alike
    alone = feed()  # saved on three, goes on on one
    alone.load_state(state)
    assert [flat(alone.at(step)) for step in range(3, 6)] == whole[3:]
    assert isinstance(alone, Batches)
    with pytest.raises(TrainingError, match="gives step 6 next, and not step 2; a run that did not stream"):
        alone.at(2)
    with pytest.raises(TrainingError, match="without a stream's state"):
        alone.load_state({})


def test_no_label_is_an_id_of_padding(masked):
    rows, learn, vocabulary = masked
    for batch in once(rows, learn, vocabulary, batch=5):
        mask = batch.inputs.get("attention_mask")
        if mask is not None:
            assert (batch.labels[~mask] == IGNORED).all()
            assert (batch.inputs["input_ids"][~mask] == vocabulary.pad).all()
    assert np.isin(vocabulary.mask, list(vocabulary.special))
