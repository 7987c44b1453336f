"""Order: pure functions of seed and step, every row once an epoch, the same batches for any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data.order import ByLength, Drawn, InOrder, Shuffled, permuted, share, shuffled


@given(st.integers(1, 3000), st.integers(0, 2**64), st.integers(0, 5))
def test_it_is_a_permutation(n, seed, epoch):
    assert sorted(permuted(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


def test_it_needs_no_table():
    n = 10**15 + 7
    found = permuted(np.array([0, 1, n - 1]), n, 0, 0)
    assert ((found >= 0) & (found < n)).all() and len(set(found.tolist())) == 3


@pytest.mark.parametrize("how", [shuffled, permuted])
def test_it_shuffles(how):
    """No place keeps its row more often than by chance, and neighbours part: with or without a table."""
    n, epochs = 60, 500
    tables = np.stack([how(np.arange(n), n, 1, epoch) for epoch in range(epochs)])
    counts = np.stack([np.bincount(tables[:, place], minlength=n) for place in range(n)])
    chi2 = ((counts - epochs / n) ** 2 / (epochs / n)).sum() / (n - 1) ** 2
    assert 0.85 < chi2 < 1.15  # the spread of chance itself is 0.024
    assert abs((np.diff(tables, axis=1) == 1).mean() * n - 1) < 0.15


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 3))
def test_every_row_once_an_epoch_across_epochs_ends(n, batch, seed):
    order = Shuffled(n_rows=n, batch=batch, seed=seed)
    steps = -(-3 * n // batch)
    rows = np.concatenate([order.rows(step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(rows[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    again = Shuffled(n_rows=n, batch=batch, seed=seed)  # asked for out of order, by another run
    assert again.rows(steps - 1).tolist() == order.rows(steps - 1).tolist()
    if n > 20:
        assert rows[:n].tolist() != rows[n : 2 * n].tolist()
        assert rows[:n].tolist() != list(range(n))
    assert order.epoch(steps) == steps * batch / n


@given(st.integers(0, 50), st.integers(1, 7), st.integers(1, 5))
def test_shares_are_the_whole(places, world, parts):
    found = [
        place
        for rank in range(world)
        for part in range(parts)
        for place in list(share(places, rank, world))[slice(*_bounds(len(share(places, rank, world)), part, parts))]
    ]
    assert found == list(range(places))
    sizes = [len(share(places, rank, world)) for rank in range(world)]
    assert max(sizes) - min(sizes) <= 1


def _bounds(n, part, parts):
    own = share(n, part, parts)
    return own.start, own.stop


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 9), st.booleans(), st.integers(1, 4))
def test_rows_of_like_length_come_together(lengths, batch, by_tokens, pool):
    lengths = np.array(lengths)
    tokens = 30 + 7 * batch
    order = ByLength(lengths, **({"tokens": tokens} if by_tokens else {"batch": batch}), seed=3, pool=pool)
    seen, step = [], 0
    while len(seen) < 2 * len(lengths):
        rows = order.rows(step)
        if by_tokens:
            assert len(rows) * lengths[rows].max() <= tokens
        else:
            assert len(rows) <= batch
        assert (np.diff(lengths[rows]) >= 0).all()
        seen.extend(rows.tolist())
        step += 1
    for epoch in range(2):
        assert sorted(seen[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))
    again = ByLength(lengths, **({"tokens": tokens} if by_tokens else {"batch": batch}), seed=3, pool=pool)
    for at in (step - 1, 0, step // 2):
        assert again.rows(at).tolist() == order.rows(at).tolist()


def test_little_is_padding():
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    order = ByLength(lengths, tokens=1000)
    batches = [order.rows(step) for step in range(50)]
    full = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert sum(lengths[rows].sum() for rows in batches) / full > 0.95


def test_the_others(as_a_user):
    assert InOrder(n_rows=5, batch=2).n_steps == 3
    assert [InOrder(n_rows=5, batch=2).once(step).tolist() for step in range(3)] == [[0, 1], [2, 3], [4]]
    assert InOrder(n_rows=5, batch=2).rows(2).tolist() == [4, 0]
    drawn = Drawn(n_rows=1000, batch=500, seed=1)
    assert drawn.rows(3).tolist() == Drawn(n_rows=1000, batch=500, seed=1).rows(3).tolist() != drawn.rows(4).tolist()
    assert drawn.rows(0).min() >= 0 and drawn.rows(0).max() < 1000
    with pytest.raises(TrainingError, match="no rows"):
        Shuffled(n_rows=0, batch=1)
    with pytest.raises(ConfigError, match="batch=0"):
        Drawn(n_rows=1, batch=0)
    with pytest.raises(ConfigError, match="one of batch and tokens"):
        ByLength(np.array([1]))
    with pytest.raises(ConfigError, match="row 1 has 9 tokens, more than a batch of tokens = 8"):
        ByLength(np.array([1, 9]), tokens=8)
