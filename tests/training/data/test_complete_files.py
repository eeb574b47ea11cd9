"""The complete files users download, where they are at hand: read whole, counted and timed."""

from __future__ import annotations

import csv
import gzip
import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from ase_potnet.readers.cif import parse_cif
from ase_potnet.training.data import Dataset, Split, labels, open_dataset


def read(path: Path, capsys: pytest.CaptureFixture[str]) -> Dataset:
    """The data set, with a line about its size and the time it took."""
    start = time.perf_counter()
    data = open_dataset(path, progress=False)
    with capsys.disabled():
        print(f"\n{path.name}: {len(data):,} structures in {time.perf_counter() - start:.1f} s")
    return data


def test_jarvis(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(shared_data / "jarvis" / "jdft_3d_subset.json.zip", capsys)
    assert len(data) == 16_204
    assert data.broken == []
    assert "formation_energy_peratom" not in data.skipped
    assert data.skipped["mbj_bandgap"] == 16_204 - len(data.select("mbj_bandgap"))
    parts = Split.from_json(shared_data / "jarvis" / "split.json").apply(data)
    assert [len(part) for part in parts] == [14_362, 1_842, 0]


def test_materials_project(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(shared_data / "mp" / "mp_train.csv.gz", capsys)
    assert len(data) == 24_498
    assert data.broken == []
    assert set(data.skipped) == {"band_gap"}
    assert len(data.select("band_gap")) == 24_498 - data.skipped["band_gap"]


def test_frames(shared_data: Path) -> None:
    data = open_dataset(shared_data / "distilled" / "mp_nequix_v0.extxyz.xz", limit=400, progress=False)
    assert len(data) == 400
    for record in data:
        found = labels(record)
        assert found.energy is not None
        assert np.shape(found.forces) == (len(record.atoms), 3)
        assert np.shape(found.stress) == (6,)
    assert len({record.group or record.id for record in data}) < 400


def test_cif_sample_against_pymatgen(shared_data: Path) -> None:
    cif = pytest.importorskip("pymatgen.io.cif")
    with gzip.open(shared_data / "mp" / "mp_train.csv.gz", "rt", encoding="utf-8") as file:
        texts = [row["cif"] for row in itertools.islice(csv.DictReader(file), 0, 5000, 50)]
    for text in texts:
        atoms = parse_cif(text)
        structure = cif.CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
        assert structure.lattice.matrix == pytest.approx(atoms.cell.array, abs=1e-9)
        assert sorted(structure.atomic_numbers) == sorted(atoms.numbers)
        distances = structure.lattice.get_all_distances(atoms.get_scaled_positions(), structure.frac_coords)
        assert distances.min(axis=1).max() < 1e-6
