"""Parquet and Hugging Face's datasets, through the library: rows as they are, classes by name, complaints in a line."""

from __future__ import annotations

import json
import sys

import pytest

from clearhead.errors import MissingDependencyError, TrainingError
from clearhead.train.data.encoders import Labelled, Text
from clearhead.train.data.stream import Stream
from clearhead.train.data.tables import Dataset, Parquet
from tests.train.data.support import VERSES, bytes_tokenizer, cache_of, read

datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")

ROWS = {"text": VERSES, "label": [0, 1, 1, -1]}


@pytest.fixture(scope="module")
def table():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    return datasets.Dataset.from_dict(ROWS, features=features)


@pytest.fixture
def saved(table, tmp_path):
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library")


def test_a_saved_dataset_with_its_classes_by_name(saved, tmp_path):
    rows, _ = read(Dataset(name=saved))
    assert [row["label"] for row in rows] == ["bad", "good", "good", -1]
    assert [row["text"] for row in rows] == VERSES
    assert [row["text"] for row in read(Dataset(name=saved, split="test"))[0]] == VERSES[1:2]
    with pytest.raises(TrainingError, match="has no split 'dev'; it has train, test"):
        Dataset(name=saved, split="dev").open()
    many = cache_of(tmp_path / "2", Dataset(name=saved), bytes_tokenizer(), Text(), workers=2)
    one = cache_of(tmp_path / "1", Dataset(name=saved), bytes_tokenizer(), Text(), workers=1)
    assert one.manifest["fields"] == many.manifest["fields"] and one.fingerprint == many.fingerprint
    with pytest.raises(TrainingError, match="row 3: the label '-1' in column 'label' is none of bad, good"):
        cache_of(tmp_path, Dataset(name=saved), bytes_tokenizer(), Labelled(labels=("bad", "good")))


def test_parquet(table, tmp_path):
    table.to_parquet(str(tmp_path / "data" / "a.parquet")) if (tmp_path / "data").mkdir() is None else None
    rows, _ = read(Parquet(paths=(str(tmp_path / "data"),)))
    assert [row["text"] for row in rows] == VERSES
    (tmp_path / "data" / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(TrainingError, match="cannot be read: "):
        Parquet(paths=(str(tmp_path / "data"),)).open()
    with pytest.raises(TrainingError, match=r"the dataset .*none.* cannot be read"):
        Dataset(name=str(tmp_path / "none")).open()


def test_without_the_library(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clearhead\[train\]'"):
        Dataset(name=saved).open()


@pytest.mark.parametrize("kind", ["dataset", "parquet"])
def test_a_folder_of_data_files_streams_and_goes_on(tmp_path, kind):
    (tmp_path / "data").mkdir()
    if kind == "dataset":
        (tmp_path / "data" / "a.jsonl").write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(7)))
        source = Dataset(name=str(tmp_path / "data"))
    else:
        rows = datasets.Dataset.from_dict({"text": [f"row {n}" for n in range(7)]})
        rows.to_parquet(str(tmp_path / "data" / "a.parquet"))
        source = Parquet(paths=(str(tmp_path / "data"),))

    def stream():
        return Stream(source, bytes_tokenizer(), Text(end=False), shuffle=3, seed=1)

    whole = stream()
    every = [bytes(row["ids"].tolist()).decode() for row in whole.take(20)]
    assert set(every) == {f"row {n}" for n in range(7)}
    first = stream()
    first.take(9)
    second = stream()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [bytes(row["ids"].tolist()).decode() for row in second.take(11)] == every[9:]
    assert not list((tmp_path / "library").glob("**/*.arrow"))  # nothing was copied
