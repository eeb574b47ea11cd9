"""Records, data sets, and the checks of structures."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_potnet.readers.structures import TOO_CLOSE, atomic_number, check, crystal
from ase_potnet.training.data import Dataset, Record, join, labels, open_dataset
from ase_potnet.training.data.dataset import Labels, as_number, relabelled


def three() -> Dataset:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    targets = [{"gap": 5.0, "e": -1.0}, {"e": -3.0}, {"gap": 1.0, "e": 1.0}]
    return Dataset([Record(name, atoms, t) for name, t in zip("abc", targets, strict=True)], broken=[("d", "torn")])


def test_sequence() -> None:
    data = three()
    assert len(data) == 3
    assert data[0].id == "a"
    assert data[-1].id == "c"
    assert data[1:].ids == ["b", "c"]
    assert "b" in data
    assert data[0] in data
    assert "x" not in data
    assert 1 not in data
    assert data.record("c").targets == {"gap": 1.0, "e": 1.0}
    assert [record.id for record in data] == data.ids == ["a", "b", "c"]
    assert data.target_names == ["gap", "e"]


def test_targets_from_the_calculator_are_written_once(tmp_path: Path) -> None:
    atoms = Atoms("Cu", cell=[2, 2, 2], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-3.7)
    write(tmp_path / "one.extxyz", atoms)
    data = open_dataset(tmp_path / "one.extxyz", targets=["energy"], progress=False)
    back = open_dataset(data.to_extxyz(tmp_path / "two.extxyz"), targets=["energy"], progress=False)
    assert [record.targets for record in back] == [{"energy": -3.7}]


def test_select_and_subset() -> None:
    data = three()
    gaps = data.select("gap")
    assert gaps.ids == ["a", "c"]
    assert gaps.skipped == {"gap": 1}
    assert gaps.broken == [("d", "torn")]
    assert data.select("gap", "e").skipped == {"gap": 1, "e": 0}
    assert data.subset(["c", "a"]).ids == ["c", "a"]
    with pytest.raises(ValueError, match="targets: no record has a value for 'volume'; there are gap, e"):
        data.select("volume")
    with pytest.raises(ValueError, match="ids: 1 of 2 are not in the data set: 'x'"):
        data.subset(["a", "x"])
    with pytest.raises(ValueError, match="id: no record 'x'"):
        data.record("x")


def test_ids_are_unique() -> None:
    atoms = bulk("Si")
    with pytest.raises(ValueError, match=r"ids must be unique, 'a' occur"):
        Dataset([Record("a", atoms, {}), Record("a", atoms, {})])


def test_summary() -> None:
    text = three().summary()
    assert text.splitlines() == [
        "3 structures, 2 elements, 2 to 2 atoms, 2.0 on average",
        "target     present     missing        mean         std         min         max",
        "gap              2           1           3           2           1           5",
        "e                3           0          -1       1.633          -3           1",
        "1 broken entries left out",
        "  d: torn",
    ]
    assert Dataset([]).summary() == "0 structures"


def test_join_gives_suffixes_and_groups() -> None:
    data = three()
    twice = join([data, data])
    assert twice.ids == ["a", "b", "c", "a#2", "b#2", "c#2"]
    assert [record.group for record in twice] == ["a", "b", "c"] * 2
    assert twice.skipped == {"gap": 2, "e": 0}
    assert len(twice.broken) == 2
    assert join([twice, data]).ids[6:] == ["a#3", "b#3", "c#3"]


def test_labels() -> None:
    atoms = bulk("Cu") * (2, 1, 1)
    assert labels(atoms).energy is None
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=np.ones((2, 3)), stress=np.arange(6.0))
    found = labels(Record("a", atoms, {}))
    assert found.energy == -1.5
    assert found.forces is not None
    assert found.forces.shape == (2, 3)
    assert found.stress is not None
    np.testing.assert_array_equal(found.stress, np.arange(6.0))
    atoms.calc = SinglePointCalculator(atoms, energy=np.nan, forces=np.full((2, 3), np.inf))
    assert labels(atoms).energy is None
    assert labels(atoms).forces is None


def test_labels_of_other_form() -> None:
    atoms = bulk("Cu")
    matrix = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    for energy, stress in ((np.array([-1.5]), matrix), (-1.5, matrix.ravel())):
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = {"energy": energy, "stress": stress}
        found = labels(atoms)
        assert found.energy == -1.5
        np.testing.assert_array_equal(found.stress, np.arange(1.0, 7.0))
    for energy in ("None", "N/A", "-1.5D+01", [1.0, 2.0], [[1.0], [2.0, 3.0]]):
        atoms.calc.results = {"energy": energy, "forces": np.zeros(3), "stress": np.zeros(5)}
        assert labels(atoms) == Labels(None, None, None)


def test_text_in_a_label_costs_that_label_alone(tmp_path: Path) -> None:
    frame = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 REF_energy={0} energy={0}'
    text = "".join(f"1\n{frame.format(value)}\nCu 0 0 0 0.1 0 0\n" for value in ("-1.5", "None", "N/A", "-2.5"))
    (tmp_path / "frames.extxyz").write_text(text)
    records = open_dataset(tmp_path / "frames.extxyz", progress=False)
    for found in (list(records), relabelled(records, {"energy": "REF_energy"})):
        assert [labels(record).energy for record in found] == [-1.5, None, None, -2.5]
        assert all(labels(record).forces is not None for record in found)


@pytest.mark.parametrize("value", ["na", "", None, "nan", float("nan"), float("inf"), "-inf", "text", [1.0], {}])
def test_missing_values(value: object) -> None:
    assert as_number(value) is None


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), ("-1.5e-3", -1.5e-3), (np.float32(0.5), 0.5), (True, 1.0)])
def test_numbers(value: object, number: float) -> None:
    assert as_number(value) == number


def test_extxyz_round_trip(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6401234567)
    atoms.info["spacegroup_kind"] = "Fm-3m"
    atoms.rattle(0.01, seed=1)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.23456789012345, forces=np.eye(2, 3), stress=np.arange(6) / 7)
    records = [
        Record("007", atoms, {"gap": 0.1 + 0.2, "formation.e": -1e-300}, "1e5"),
        Record("T", bulk("Fe"), {}, None),
        Record("with a space", bulk("Fe"), {"gap": 2.0}, None),
        Record('ü/"q"', bulk("Fe"), {"band gap": 3.0}, None),
        Record("C:\\x", bulk("Fe"), {}, None),
        Record("C:\\my x", bulk("Fe"), {}, None),
    ]
    data = Dataset(records)
    for name in ("a.extxyz", "a.extxyz.gz", "a.xyz.xz"):
        back = open_dataset(data.to_extxyz(tmp_path / name), progress=False)
        assert back.ids == data.ids
        assert [record.targets for record in back] == [record.targets for record in data]
        assert [record.group for record in back] == ["1e5", *[None] * 5]
        assert back[0].atoms.info["spacegroup_kind"] == "Fm-3m"
        for old, new in zip(data, back, strict=True):
            np.testing.assert_array_equal(new.atoms.numbers, old.atoms.numbers)
            np.testing.assert_allclose(new.atoms.positions, old.atoms.positions, rtol=0, atol=1e-8)
            np.testing.assert_array_equal(new.atoms.cell.array, old.atoms.cell.array)
        assert labels(back[0]).energy == -1.23456789012345
        np.testing.assert_allclose(labels(back[0]).stress, np.arange(6) / 7, rtol=1e-14)
        np.testing.assert_allclose(labels(back[0]).forces, np.eye(2, 3))
    assert "id" not in atoms.info  # the records are untouched


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_interrupted_extxyz_leaves_what_was_there(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "folder" / f"a.extxyz{ending}"
    three().to_extxyz(path)
    before = path.read_bytes()

    def interrupted(file: TextIO, atoms: Atoms) -> None:
        file.write("2\n")
        raise KeyboardInterrupt

    monkeypatch.setattr("ase.io.extxyz.write_xyz", interrupted)
    with pytest.raises(KeyboardInterrupt):
        three().to_extxyz(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_good_structures_pass() -> None:
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    slab.cell[2] = 0
    for atoms in (bulk("Si"), slab, molecule("H2O"), Atoms("H", cell=[0, 0, 3], pbc=(False, False, True))):
        check(atoms)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms(), "no atoms"),
        (Atoms("X"), "atomic numbers"),
        (Atoms("H", positions=[[0, np.nan, 0]]), "positions are not finite"),
        (Atoms("H", cell=[1, 2, np.inf], pbc=True), "cell is not finite"),
        (Atoms("H", cell=[3, 3, 0], pbc=True), "no volume"),
        (Atoms("H", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True), "no volume"),
        (Atoms("H", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=(True, True, False)), "no volume"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.05]]), "atoms 0 and 1 are 0.050 Å apart"),
    ],
)
def test_bad_structures_are_refused(atoms: Atoms, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check(atoms)


@pytest.mark.parametrize("count", [2, 63, 64, 65, 130])
def test_overlap_is_found_across_the_cell(count: int) -> None:
    """In a skewed cell, over the boundary, and in every block of atoms."""
    cell = np.array([[20.0, 0, 0], [18, 9, 0], [-17, 4, 12]])
    line = np.linspace(0, 0.9, count - 1)[:, None] * [1.0, 0.0, 0.0]
    scaled = np.vstack([line, [[-1 + 0.5 * TOO_CLOSE / 20, 2, 3]]])
    with pytest.raises(ValueError, match=f"atoms 0 and {count - 1} are 0.050"):
        check(crystal(["H"] * count, cell, scaled=scaled))
    scaled[-1, 0] = 0.95
    check(crystal(["H"] * count, cell, scaled=scaled))


def test_symbols() -> None:
    assert [atomic_number(symbol) for symbol in ("Fe", "Fe3+", "O2-", "D", "Na+", "Fe2.5+")] == [26, 26, 8, 1, 11, 26]
    for symbol in ("", "X", "Qq", "fe", "C1"):
        with pytest.raises(ValueError, match="unknown element"):
            atomic_number(symbol)
    with pytest.raises(ValueError, match="2 elements but coordinates of shape"):
        crystal(["H", "H"], np.eye(3), scaled=[[0, 0, 0]])
