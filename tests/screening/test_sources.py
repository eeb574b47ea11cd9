"""Sources: every kind of file, mixed, compressed, broken."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import write

from ase_potnet.screening.sources import candidates, content_digest, count

SAMPLES = Path(__file__).parents[1] / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One crystal or several in every kind of file, and four that are broken."""
    copper, salt = bulk("Cu", cubic=True), bulk("NaCl", "rocksalt", a=5.64)
    place = tmp_path / "crystals"
    (place / "deep" / "CsCl").mkdir(parents=True)
    write(place / "copper.cif", copper)
    write(place / "deep" / "CsCl" / "POSCAR", bulk("CsCl", "cesiumchloride", a=4.1), format="vasp")
    write(place / "two.extxyz", [copper, salt])
    write(place / "one.xyz", salt, format="extxyz")
    (place / "packed.cif.gz").write_bytes(gzip.compress((place / "copper.cif").read_bytes()))
    (place / "salt.vasp.bz2").write_bytes(bz2.compress(_vasp(tmp_path, salt)))
    shutil.copy(SAMPLES / "jarvis_sample.json", place)
    shutil.copy(SAMPLES / "mp_cif_sample.csv", place)
    shutil.copy(SAMPLES / "mp_summary_sample.json", place)
    with connect(place / "base.db") as database:
        database.write(copper)
        database.write(salt)
    (place / "README.md").write_text("not a structure")
    (place / ".hidden.cif").write_text("nor this")
    (place / "broken.cif").write_text("data_x\n_cell_length_a 3.0\n")
    (place / "empty.cif").write_text("")
    whole = (place / "two.extxyz").read_text().splitlines(keepends=True)
    (place / "cut.extxyz").write_text("".join(whole[:-1]))
    (place / "cut.json.gz").write_bytes(gzip.compress((SAMPLES / "jarvis_sample.json").read_bytes())[:-500])
    return place


def _vasp(folder: Path, atoms: Atoms) -> bytes:
    write(folder / "temporary.vasp", atoms, format="vasp")
    return (folder / "temporary.vasp").read_bytes()


def test_everything_in_a_folder(folder: Path) -> None:
    found = list(candidates(folder))
    assert count(folder) == len(found)
    good = {c.id: c for c in found if c.atoms is not None}
    bad = {c.id: c.message for c in found if c.atoms is None}
    for name in ("copper", "deep/CsCl", "two-0", "two-1", "one", "packed", "salt", "base-1", "base-2", "cut-0"):
        assert name in good, (name, sorted(good), bad)
    assert {"broken", "empty", "cut-1"} <= bad.keys()
    assert "announced" in bad["cut-1"]
    assert any(name.startswith("cut") and "truncated" in message for name, message in bad.items())
    assert not any("README" in c.source or "hidden" in c.source for c in found)
    assert len({c.key for c in found}) == len(found)
    jarvis = json.loads((SAMPLES / "jarvis_sample.json").read_text())
    assert {item["jid"] for item in jarvis} <= good.keys()
    assert good["salt"].atoms is not None
    np.testing.assert_allclose(good["salt"].atoms.get_volume(), 5.64**3 / 4)
    assert good["packed"].digest == good["copper"].digest


def test_same_keys_whatever_the_order(folder: Path) -> None:
    one = {c.key for c in candidates([folder / "copper.cif", folder / "two.extxyz"])}
    other = {c.key for c in candidates([folder / "two.extxyz", str(folder / "cop*.cif"), folder / "copper.cif"])}
    pattern = {c.key for c in candidates(folder / "two.extxyz")}
    assert pattern <= one
    assert len(one) == len(other) == 3  # a file named twice is read once


def test_memory(metals: list[Atoms]) -> None:
    named = metals[0].copy()
    named.info["material_id"] = "mp-30"
    found = list(candidates(iter([named, ("mine", metals[1]), metals[2], metals[2]])))
    assert [c.id for c in found] == ["mp-30", "mine", "structure-2", "structure-3"]
    assert found[2].digest == found[3].digest
    assert found[2].key != found[3].key
    (one,) = candidates(("mine", metals[1]))
    assert (one.id, one.key) == ("mine", found[1].key)
    assert count(("mine", metals[1])) == 1
    twice = list(candidates([("a", metals[0]), ("a", metals[0])]))
    assert twice[1].key == f"{twice[0].key}-2"


def test_tables_in_folders(tmp_path: Path) -> None:
    text = (SAMPLES / "mp_cif_sample.csv").read_text(encoding="utf-8")
    (tmp_path / "crystals.csv").write_bytes(text.replace("data_mp", "# Å, Müller\ndata_mp", 1).encode("latin-1"))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode())[:-500])
    (tmp_path / "table.csv").write_bytes("name,gap\nMüller,1.1\n".encode("latin-1"))
    found = list(candidates(tmp_path))
    whole = list(candidates(SAMPLES / "mp_cif_sample.csv"))
    assert [c.key for c in found if Path(c.source).name == "crystals.csv"] == [c.key for c in whole]
    (broken,) = (c for c in found if c.atoms is None)
    assert "truncated" in broken.message
    assert not any(c.source.endswith("table.csv") for c in found)


def test_pymatgen() -> None:
    structures = pytest.importorskip("pymatgen.core")
    lattice = structures.Lattice.cubic(3.6)
    (found,) = candidates(structures.Structure(lattice, ["Cu"], [[0, 0, 0]]))
    assert found.atoms is not None
    assert found.atoms.get_volume() == pytest.approx(3.6**3)
    (partly,) = candidates(structures.Structure(lattice, [{"Cu": 0.5}], [[0, 0, 0]]))
    assert partly.atoms is None


def test_a_run_of_vasp_is_one_crystal(tmp_path: Path, metals: list[Atoms]) -> None:
    (tmp_path / "run").mkdir()
    for name, atoms in zip(("POSCAR", "CONTCAR"), metals, strict=False):
        write(tmp_path / "run" / name, atoms, format="vasp")
    for source in (tmp_path, str(tmp_path / "run" / "*")):
        (found,) = candidates(source)
        assert found.atoms is not None
        assert found.atoms.symbols[0] == metals[1].symbols[0]
    assert len(list(candidates([tmp_path / "run" / "POSCAR", tmp_path / "run" / "CONTCAR"]))) == 2


def test_molecules_of_pymatgen() -> None:
    core = pytest.importorskip("pymatgen.core")
    (found,) = candidates([core.Molecule(["H", "F"], [[0, 0, 0], [0, 0, 0.92]])])
    assert found.atoms is not None
    assert str(found.atoms.symbols) == "HF"
    assert not found.atoms.pbc.any()


def test_digest_sees_every_bit() -> None:
    atoms = bulk("Cu")
    other = atoms.copy()
    assert content_digest(atoms) == content_digest(other)
    other.positions[0, 0] = np.nextafter(0.0, 1.0)
    assert content_digest(atoms) != content_digest(other)


def test_nan_and_flat_cells() -> None:
    nan, flat = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    nan.positions[1, 2] = np.nan
    flat.cell[2] = flat.cell[1]
    messages = [c.message for c in candidates([nan, flat])]
    assert "not finite" in messages[0]
    assert "volume" in messages[1]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes")
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    write(tmp_path / "copper.cif", bulk("Cu"))
    (tmp_path / "copper.cif").rename(tmp_path / os.fsdecode(b"M\xfcller.cif"))
    (found,) = candidates(tmp_path)
    assert found.id == r"M\xfcller"
    assert found.atoms is not None


def test_nothing_there(tmp_path: Path) -> None:
    for wrong in (tmp_path / "absent.cif", str(tmp_path / "*.cif"), tmp_path):
        with pytest.raises(ValueError, match=r"^sources: no "):
            list(candidates(wrong))
    with pytest.raises(ValueError, match=r"structures\[0\]: wanted"):
        list(candidates([7]))


def test_every_structure_of_a_file(tmp_path: Path, metals: list[Atoms]) -> None:
    metals = [metals[0], metals[-1]]
    for name in ("copper.cif", "others.traj", "others.cif"):
        write(tmp_path / name, metals[:1] if name == "copper.cif" else metals)
    found = list(candidates(str(tmp_path)))
    assert [c.id for c in found] == ["copper", "others-0", "others-1", "others.traj-0", "others.traj-1"]
    assert len({c.key for c in found}) == 5
    for candidate, atoms in zip(found[1:], [*metals, *metals], strict=True):
        assert candidate.atoms is not None, candidate.message
        assert candidate.atoms.get_chemical_formula() == atoms.get_chemical_formula()
    assert [c.id for c in candidates(tmp_path / "others.traj")] == ["others.traj-0", "others.traj-1"]


def test_data_blocks_in_text_are_none(tmp_path: Path, metals: list[Atoms]) -> None:
    write(tmp_path / "one.cif", metals[0])
    text = (tmp_path / "one.cif").read_text()
    comment = "_publ_section_comment\n;\ndata_other\n_atom_site_label\n;\n"
    (tmp_path / "one.cif").write_text(text + comment + "data_without_atoms\n_cell_length_a 3\n")
    (found,) = candidates(tmp_path / "one.cif")
    assert found.atoms is not None, found.message
    assert found.id == "one"
