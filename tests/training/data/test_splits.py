"""Splits: against sequences worked out by hand, and their rules."""

from __future__ import annotations

import itertools
import json
import random
import zipfile
from pathlib import Path

import pytest
from ase.build import bulk

from ase_potnet.training.data import Dataset, Record, Split, formula_group, group_split, seeded_split

# random.seed(123); order = list(range(20)); random.shuffle(order), as ALIGNN and PotNet do it
ORDER = [7, 17, 3, 4, 14, 12, 11, 9, 5, 10, 15, 6, 0, 16, 19, 18, 13, 2, 8, 1]


def dataset(groups: list[str | None]) -> Dataset:
    atoms = bulk("Si")
    return Dataset([Record(f"r{i}", atoms, {}, group) for i, group in enumerate(groups)])


def test_seeded_split_is_that_of_alignn() -> None:
    split = seeded_split(dataset([None] * 20))
    assert split.train == tuple(f"r{i}" for i in ORDER[:16])
    assert split.val == ("r13", "r2")
    assert split.test == ("r8", "r1")


def test_seeded_split_drops_what_rounding_leaves() -> None:
    """27 records: 21 + 2 + 2; ALIGNN leaves the two between training and validation out."""
    split = seeded_split([f"r{i}" for i in range(27)])
    assert (len(split.train), len(split.val), len(split.test)) == (21, 2, 2)
    order = list(range(27))
    random.Random(123).shuffle(order)
    assert split.val == tuple(f"r{i}" for i in order[23:25])
    assert split.test == tuple(f"r{i}" for i in order[25:])


def test_seeded_split_leaves_the_global_generator_alone() -> None:
    state = random.getstate()
    seeded_split([str(i) for i in range(50)])
    assert random.getstate() == state


def test_seeded_split_without_test_part() -> None:
    split = seeded_split([str(i) for i in range(10)], fractions=(0.8, 0.2, 0.0))
    assert (len(split.train), len(split.val), len(split.test)) == (8, 2, 0)
    assert not set(split.train) & set(split.val)


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.1, -0.1, 0.0)])
def test_bad_fractions(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="fractions: wanted three numbers"):
        seeded_split(["a"] * 100, fractions=fractions)


def test_too_few_records() -> None:
    split = seeded_split([str(i) for i in range(9)])
    assert (len(split.train), len(split.val), len(split.test)) == (7, 1, 1)
    assert len(group_split(dataset([None] * 6), fractions=(0.9, 0.1, 0.0)).val) == 1
    with pytest.raises(ValueError, match=r"fractions: 2 records are too few for 0.8 for train, 0.1 for val"):
        seeded_split(["a", "b"])


def test_group_split() -> None:
    groups = [f"g{i % 17}" for i in range(100)] + [None] * 20
    data = dataset(groups)
    split = group_split(data)
    parts = [set(part) for part in (split.train, split.val, split.test)]
    assert set.union(*parts) == set(data.ids)
    assert sum(map(len, parts)) == len(data)
    found = [{data.record(name).group for name in part} - {None} for part in parts]
    assert all(one.isdisjoint(two) for one, two in itertools.combinations(found, 2))
    assert 6 <= len(parts[1]) <= 12
    assert 6 <= len(parts[2]) <= 12
    backwards = group_split(Dataset(list(data)[::-1]))
    assert (backwards.train, backwards.val, backwards.test) == (split.train, split.val, split.test)
    assert group_split(data, seed=1).test != split.test


def test_group_split_by_formula() -> None:
    names = ["Si", "Ge", "Cu", "Al", "Fe", "W", "Mo", "Ag", "Au", "Pt"]
    records = [Record(f"{name}{n}", bulk(name) * (n, 1, 1), {}) for name in names for n in (1, 2)]
    data = Dataset(records)
    split = group_split(data, group=formula_group)
    for part in (split.train, split.val, split.test):
        assert all(name[:-1] + {"1": "2", "2": "1"}[name[-1]] in part for name in part)


def test_group_split_needs_groups_that_fit() -> None:
    with pytest.raises(ValueError, match="too few or too large to fill the val part"):
        group_split(dataset(["one"] * 100))


def test_overlap_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 ids occur more than once, the first, 'b', in train, test"):
        Split(["a", "b"], ["c"], ["b"])
    with pytest.raises(ValueError, match="'a', in train"):
        Split(["a", "a"], ["c"])


def test_apply() -> None:
    data = dataset([None] * 5)
    parts = Split(["r3", "r0"], ["r1"]).apply(data)
    assert (parts.train.ids, parts.val.ids, parts.test.ids) == (["r3", "r0"], ["r1"], [])
    with pytest.raises(ValueError, match="split: 1 of 2 ids are not in the data set, the first is 'x'"):
        Split(["r3"], ["x"]).apply(data)
    assert Split(["r3"], ["x"]).apply(data, missing="skip").val.ids == []
    broken = Dataset(data, broken=[("x", "torn")])
    assert Split(["r3"], ["x"]).apply(broken).train.ids == ["r3"]
    with pytest.raises(ValueError, match="missing: wanted 'error' or 'skip', got 'ignore'"):
        Split(["r3"], []).apply(data, missing="ignore")


def test_json_round_trip(tmp_path: Path) -> None:
    split = Split(["a", "b"], ["c"], ["é"])
    assert Split.from_json(split.to_json(tmp_path / "split.json")) == split


def test_layouts_of_others(tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["a"], "val": ["b"]}), encoding="utf-8")
    assert Split.from_json(file) == Split(["a"], ["b"])
    file.write_text(json.dumps({"id_train": ["a"], "id_val": ["b"], "id_test": [7]}), encoding="utf-8")
    assert Split.from_json(file) == Split(["a"], ["b"], ["7"])
    packed = tmp_path / "dft_3d_gap.json.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("dft_3d_gap.json", json.dumps({"train": {"a": 1.0}, "test": {"b": 2.0}}))
    assert Split.from_json(packed) == Split(["a"], [], ["b"])


@pytest.mark.parametrize("text", ['["a"]', '{"training": ["a"]}', '{"train": 3}', "{"])
def test_bad_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "split.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="path: "):
        Split.from_json(file)
