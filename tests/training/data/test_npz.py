"""Compact cells and label shards, as .npz files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ase_potnet.training.data import Dataset, labels, open_dataset
from ase_potnet.training.data.opening import recognise


def load(source: Any, **options: Any) -> Dataset:
    return open_dataset(source, progress=False, **options)


CELLS: dict[str, Any] = {
    "material_id": np.array(["mp-1", "mp-22"]),
    "natoms": np.array([1, 2], dtype=np.uint8),
    "cell": np.array([np.eye(3) * 3, [[4, 0, 0], [1, 4, 0], [0, 0, 5]]], dtype=np.float32),
    "numbers": np.array([29, 11, 17], dtype=np.uint8),
    "frac": np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0.25]], dtype=np.float32),
}


def test_cells(tmp_path: Path) -> None:
    path = tmp_path / "cells.npz"
    np.savez(path, gap=np.array([1.5, np.nan]), note=np.array(["a", "b"]), **CELLS)
    assert recognise(path)[0] == "cells-npz"
    data = load(path)
    assert data.ids == ["mp-1", "mp-22"]
    assert data[0].targets == {"gap": 1.5}
    assert data[1].targets == {}
    atoms = data[1].atoms
    assert atoms.get_chemical_formula() == "ClNa"
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.positions, [[2, 0, 0], [0.5, 2, 1.25]])
    assert load(path, limit=1).ids == ["mp-1"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("natoms", np.array([1, 3]), "do not fit 4 atoms"),
        ("frac", np.zeros((3, 2)), "do not fit 3 atoms"),
        ("cell", np.zeros((1, 3, 3)), "do not fit 2 values of natoms"),
        ("material_id", None, "no array material_id"),
        ("frac", None, "neither frac and cell nor energy and forces"),
    ],
)
def test_cells_that_do_not_fit(tmp_path: Path, key: str, value: Any, message: str) -> None:
    arrays = {name: array for name, array in (CELLS | {key: value}).items() if array is not None}
    np.savez(tmp_path / "cells.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "cells.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_damaged_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cells.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cells\.npz: damaged, truncated or no \.npz file"):
        load(tmp_path / "cells.npz")


def test_python_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", **(CELLS | {"material_id": np.array(["mp-1", 5], dtype=object)}))
    with pytest.raises(ValueError, match="damaged, truncated or no"):
        load(tmp_path / "cells.npz")


def test_complete_cells(shared_data: Path) -> None:
    path = shared_data / "mp" / "mp_small_cells.npz"
    data = load(path, limit=3000)
    assert len(data) == 3000
    assert not data.broken
    with np.load(path) as arrays:
        assert data.ids == arrays["material_id"][:3000].tolist()
        assert [len(record.atoms) for record in data] == arrays["natoms"][:3000].tolist()


def old_shard() -> dict[str, Any]:
    """Two frames and one dropped frame, without the arrays that newer shards have."""
    return {
        "material_id": np.array(["mp-5", "mp-7"]),
        "kind": np.array(["rattled", "relaxed"]),
        "seed": np.array([3, 4]),
        "ps": np.array([0, 1], dtype=np.int16),
        "index": np.array([10, 20]),
        "natoms": np.array([2, 1], dtype=np.int16),
        "cell": np.stack([np.eye(3) * 4, np.eye(3) * 3]).astype(np.float32),
        "energy": np.array([-3.5, -1.25]),
        "stress": np.array([[[1, 6, 5], [6, 2, 4], [5, 4, 3]], np.full((3, 3), np.nan)], dtype=np.float32) / 128,
        "numbers": np.array([11, 17, 29], dtype=np.uint8),
        "positions": np.array([[0, 0, 0], [2, 2, 2], [1, 1, 1]], dtype=np.float32),
        "forces": np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, 0, 0]], dtype=np.float32),
        "dropped_index": np.array([30]),
        "dropped_ps": np.array([2]),
    }


@pytest.mark.parametrize("place", ["shards/shard_00000.npz", "shard_00000.npz", "frames.npz"])
def test_shards_of_the_older_layout(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    np.savez_compressed(file, **old_shard())
    source = file if place == "frames.npz" else tmp_path
    assert recognise(source)[0] == "labels"
    data = load(source)
    assert data.ids == ["mp-5/rattled/0", "mp-7/relaxed/1"]
    assert [record.group for record in data] == ["mp-5", "mp-7"]
    first, second = (labels(record) for record in data)
    assert (first.energy, second.energy) == (-3.5, -1.25)
    np.testing.assert_array_equal(first.forces, [[0.5, 0, 0], [-0.5, 0, 0]])
    np.testing.assert_array_equal(first.stress, np.array([1, 2, 3, 4, 5, 6]) / 128)  # xx yy zz yz xz xy
    assert second.stress is None
    assert data[0].atoms.pbc.all()
    assert data.broken == [("row-30/dropped/2", "dropped: force above the limit, or not finite")]
    assert load(source, targets="energy")[1].targets == {"energy": -1.25}


@pytest.mark.parametrize("key", ["natoms", "forces", "energy", "kind"])
def test_shards_whose_arrays_do_not_fit(tmp_path: Path, key: str) -> None:
    arrays = old_shard()
    np.savez(tmp_path / "shard_00000.npz", **(arrays | {key: arrays[key][:-1]}))
    np.savez(tmp_path / "shard_00001.npz", **arrays)
    data = load(tmp_path)
    assert len(data) == 2
    assert data.broken[0][0] == "shard_00000"
    assert "do not fit" in data.broken[0][1]
