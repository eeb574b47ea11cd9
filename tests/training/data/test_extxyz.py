"""Extended XYZ: the fast path against ASE's reader, and damaged files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io.extxyz import read_xyz

from ase_potnet.readers.extxyz import _frames, parse_frame, parse_plain_frame
from ase_potnet.training.data import labels, open_dataset


def same(one: Atoms, two: Atoms) -> None:
    """Equal to the last bit, labels and info included."""
    np.testing.assert_array_equal(one.numbers, two.numbers)
    np.testing.assert_array_equal(one.positions, two.positions)
    np.testing.assert_array_equal(one.cell.array, two.cell.array)
    np.testing.assert_array_equal(one.pbc, two.pbc)
    assert one.info == two.info
    assert all(isinstance(one.info[key], float) == isinstance(two.info[key], float) for key in one.info)
    results = [getattr(atoms.calc, "results", {}) for atoms in (one, two)]
    assert results[0].keys() == results[1].keys()
    for key in results[0]:
        np.testing.assert_allclose(results[0][key], results[1][key], rtol=1e-15)


def test_fast_path_agrees_with_ase(samples: Path) -> None:
    for name, count in (("dft_forces_sample.extxyz", 12), ("mp_sample.extxyz", 64)):
        text = (samples / name).read_text(encoding="utf-8")
        theirs = list(read_xyz(io.StringIO(text), slice(None)))
        assert len(theirs) == count
        for frame, other in zip(_frames(io.StringIO(text)), theirs, strict=True):
            assert isinstance(frame, list)
            atoms = parse_plain_frame(frame)
            assert atoms is not None
            same(atoms, other)


LATTICE = 'Lattice="3 0 0 0 3 0 0 0 3"'
PLAIN = "Properties=species:S:1:pos:R:3"


@pytest.mark.parametrize(
    "comment",
    [
        f'{LATTICE} {PLAIN} pbc="T T F" a=1 b=2.5 c=word d="quoted" e=-3e-2',
        f"{LATTICE} {PLAIN} energy=-1 free_energy=-2",
        f"{PLAIN} energy=-1",  # no lattice
        f"{LATTICE} {PLAIN} flag=T other=False",
        f'{LATTICE} {PLAIN} list="1 2 3" stress="1 2 3 2 4 5 3 5 6"',
        f'{LATTICE} {PLAIN} raw="_JSON [1, 2.5]" words="two words"',
        f"{LATTICE} {PLAIN} magmom=1.5 virial_like=3",
        f'{LATTICE} {PLAIN} name="with \\"quotes\\""',
        f"{LATTICE} {PLAIN} bare key=1",
        f"{LATTICE} {PLAIN} x={{1 2 3}}",
        "just words",
        "",
    ],
)
def test_any_comment_gives_what_ase_gives(comment: str) -> None:
    lines = [comment + "\n", "H 0 0 0\n", "He 1 1 1.5\n"]
    theirs = next(iter(read_xyz(io.StringIO("2\n" + "".join(lines)), 0)))
    ours = parse_frame(lines)
    np.testing.assert_array_equal(ours.positions, theirs.positions)
    assert ours.info.keys() == theirs.info.keys()
    for key in ours.info:
        np.testing.assert_array_equal(ours.info[key], theirs.info[key])
    assert getattr(ours.calc, "results", {}).keys() == getattr(theirs.calc, "results", {}).keys()


def test_other_columns_give_what_ase_gives() -> None:
    columns = "Properties=species:S:1:pos:R:3:magmoms:R:1:tags:I:1"
    lines = [f"{LATTICE} {columns}\n", "H 0 0 0 0.5 1\n", "He 1 1 1.5 -0.5 2\n"]
    theirs = next(iter(read_xyz(io.StringIO("2\n" + "".join(lines)), 0)))
    same(parse_frame(lines), theirs)


def test_labels_and_ids(samples: Path) -> None:
    data = open_dataset(samples / "dft_forces_sample.extxyz", progress=False)
    assert len(data) == 12
    assert data[0].id == "dft_forces_sample-0"
    for record in data:
        found = labels(record)
        assert found.energy is not None
        assert found.forces is not None
        assert found.stress is not None
        assert "energy" not in record.targets
    energies = open_dataset(samples / "dft_forces_sample.extxyz", targets="energy", progress=False)
    assert energies[3].targets == {"energy": labels(data[3]).energy}
    named = open_dataset({"path": samples / "mp_sample.extxyz", "id": "material_id"}, limit=5, progress=False)
    assert len(named) == 5
    assert named[0].id == "mp-1147648"
    assert named[0].targets == {"formation_energy_per_atom": -2.144527}


def test_frames_of_one_crystal_share_a_group(tmp_path: Path) -> None:
    frame = f"1\n{LATTICE} {PLAIN} material_id=mp-1\nH 0 0 0\n"
    file = tmp_path / "a.xyz"
    file.write_text(frame * 3 + frame.replace("mp-1", "mp-2"), encoding="utf-8")
    data = open_dataset(file, progress=False)
    assert data.ids == ["mp-1", "mp-1#2", "mp-1#3", "mp-2"]
    assert [record.group for record in data] == ["mp-1"] * 3 + [None]


def test_damaged_frames_are_reported(tmp_path: Path) -> None:
    good = f"1\n{LATTICE} {PLAIN} gap=1\nH 0 0 0\n"
    file = tmp_path / "a.extxyz"
    file.write_text(
        good
        + good.replace("H 0", "Qq 0")
        + "1 what\nis this\n"
        + good.replace("0 0 0\n", "0 zero 0\n", 1).replace("H 0 0 0", "H 0 zero 0")
        + good.replace("3 0 0 0 3", "3 0 0 0 0")
        + "\n\n"
        + good
        + "5\ncut off\nH 0 0 0\n",
        encoding="utf-8",
    )
    data = open_dataset(file, progress=False)
    assert data.ids == ["a-0", "a-5"]
    reasons = dict(data.broken)
    assert list(reasons) == ["a-1", "a-2", "a-3", "a-4", "a-6"]
    assert "Qq" in reasons["a-1"]
    assert reasons["a-2"] == "line 7: wanted the number of atoms, got '1 what'"
    assert "no volume" in reasons["a-4"]
    assert reasons["a-6"].endswith("5 atoms announced, the file ends after 1")
    assert "5 broken entries left out" in data.summary()
