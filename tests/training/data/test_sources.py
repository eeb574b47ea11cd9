"""Every source through `open_dataset`: recognised by itself, read right, damage reported."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from ase_potnet.training.data import KINDS, Dataset, labels, leaderboard_split, open_dataset
from ase_potnet.training.data.opening import recognise


def load(source: Any, **options: Any) -> Dataset:
    return open_dataset(source, progress=False, **options)


def kind_of(path: Path | str) -> str:
    return recognise(path)[0]


# JARVIS


@pytest.fixture(scope="module")
def jarvis(samples: Path) -> list[dict[str, Any]]:
    return json.loads((samples / "jarvis_sample.json").read_text(encoding="utf-8"))


def test_jarvis(samples: Path, jarvis: list[dict[str, Any]]) -> None:
    path = samples / "jarvis_sample.json"
    assert kind_of(path) == "jarvis"
    data = load(path)
    assert data.ids == [entry["jid"] for entry in jarvis]
    for record, entry in zip(data, jarvis, strict=True):
        assert record.targets == {k: v for k, v in entry.items() if isinstance(v, (int, float))}
        assert record.atoms.get_chemical_symbols() == entry["atoms"]["elements"]
        np.testing.assert_array_equal(record.atoms.cell.array, entry["atoms"]["lattice_mat"])
        scaled = record.atoms.get_scaled_positions(wrap=False)
        np.testing.assert_allclose(scaled, entry["atoms"]["coords"], rtol=0, atol=1e-12)
        assert record.group is None
    na = sum(entry["mbj_bandgap"] == "na" for entry in jarvis)
    assert 0 < na < 12
    assert data.skipped["mbj_bandgap"] == na
    assert load(path, targets="mbj_bandgap").select("mbj_bandgap").skipped == {"mbj_bandgap": na}


@pytest.mark.parametrize("ending", [".json.zip", ".json.gz", ".json.xz"])
def test_compressed(samples: Path, tmp_path: Path, ending: str) -> None:
    text = (samples / "jarvis_sample.json").read_bytes()
    path = tmp_path / f"jdft_3d-1-1-2026{ending}"
    if ending == ".json.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("jdft_3d-1-1-2026.json", text)
    else:
        path.write_bytes((gzip if ending == ".json.gz" else lzma).compress(text))
    assert load(path).ids == load(samples / "jarvis_sample.json").ids


def test_jarvis_cartesian_and_broken(tmp_path: Path) -> None:
    atoms = {
        "lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
        "coords": [[0, 0, 0], [2, 2, 2]],
        "elements": ["Cs", "Cl"],
    }
    entries = [
        {"jid": "good", "atoms": atoms | {"cartesian": True}, "gap": 1.0, "text": "word"},
        {"jid": "missing", "gap": 1.0},
        {"jid": "element", "atoms": atoms | {"elements": ["Cs", "Xx"]}, "gap": 1.0},
        {"jid": "short", "atoms": atoms | {"elements": ["Cs"]}, "gap": 1.0},
        {"jid": "flat", "atoms": atoms | {"lattice_mat": [[4, 0, 0]] * 3}, "gap": 1.0},
        {"jid": "nan", "atoms": atoms | {"coords": [[0, 0, float("nan")], [0, 0, 0]]}, "gap": 1.0},
        {"jid": "close", "atoms": atoms | {"coords": [[0, 0, 0], [1, 1, 1]]}, "gap": 1.0},
        7,
        {"jid": "good", "atoms": atoms | {"cartesian": True}, "gap": float("inf")},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    data = load(path)
    assert data.ids == ["good", "good#2"]
    assert data.skipped == {"gap": 1}
    np.testing.assert_allclose(data[0].atoms.positions[1], 2)
    assert data[0].targets == {"gap": 1.0}
    reasons = dict(data.broken)
    assert set(reasons) == {"missing", "element", "short", "flat", "nan", "close", "entry-7"}
    assert reasons["element"] == "unknown element 'Xx'"
    assert reasons["close"] == "atoms 0 and 1 are 0.000 Å apart"


def test_repeated_ids_and_infinite_targets(jarvis: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([jarvis[0], jarvis[1], jarvis[0] | {"ehull": float("inf")}]), encoding="utf-8")
    data = load(path, targets=["ehull"])
    first = jarvis[0]["jid"]
    assert data.ids == [first, jarvis[1]["jid"], f"{first}#2"]
    assert [record.group for record in data] == [first, None, first]
    assert data.skipped["ehull"] >= 1
    assert data[2].targets == {}


def test_json_cut_off_is_an_error(samples: Path, tmp_path: Path) -> None:
    text = (samples / "jarvis_sample.json").read_text(encoding="utf-8")
    path = tmp_path / "a.json"
    path.write_text(text[:-200], encoding="utf-8")
    with pytest.raises(ValueError, match=r"a.json: truncated or not JSON, at character \d+"):
        load(path)
    assert len(load(path, limit=3)) == 3  # what comes later is not read
    packed = tmp_path / "b.json.gz"
    packed.write_bytes(gzip.compress(text.encode())[:-300])
    with pytest.raises(ValueError, match=r"b.json.gz: damaged, truncated"):
        load(packed)


def test_json_is_read_in_pieces(jarvis: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        json.dumps(jarvis, indent=1),
        "\n".join(map(json.dumps, jarvis)) + "\n",
        json.dumps({"data": jarvis}),
    ):
        path = tmp_path / "a.json"
        path.write_text(text, encoding="utf-8")
        for chunk in (1, 7, 1000, 1 << 20):
            monkeypatch.setattr("ase_potnet.readers.files._CHUNK", chunk)
            assert load(path).ids == [entry["jid"] for entry in jarvis]


# Materials Project


def test_cif_csv(samples: Path) -> None:
    path = samples / "mp_cif_sample.csv"
    assert kind_of(path) == "cif-csv"
    data = load(path)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert data.ids == [row["material_id"] for row in rows]
    assert set(data.target_names) == {"formation_energy_per_atom", "band_gap", "e_above_hull"}
    empty = sum(row["band_gap"] == "" for row in rows)
    assert empty > 0
    assert data.skipped == {"band_gap": empty}
    assert data[0].targets["formation_energy_per_atom"] == float(rows[0]["formation_energy_per_atom"])


def test_cif_csv_columns_and_broken_rows(samples: Path, tmp_path: Path) -> None:
    with (samples / "mp_cif_sample.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "gap", "structure"])
        writer.writerow(["one", "1.5", rows[0]["cif"]])
        writer.writerow(["two", "na", rows[1]["cif"]])
        writer.writerow(["three", "2"])
        writer.writerow(["four", "2", "data_nothing"])
    data = load({"path": path, "id": "name"})
    assert data.ids == ["one", "two"]
    assert data[0].targets == {"gap": 1.5}
    assert data.skipped == {"gap": 1}
    assert [name for name, _ in data.broken] == ["three", "four"]
    assert load(path).ids == ["row-1", "row-2"]
    before = csv.field_size_limit()
    with pytest.raises(ValueError, match=r"no column 'cif'; there are name, gap, structure"):
        load(path, kind="cif-csv")
    assert csv.field_size_limit() == before


def test_mp_summary(samples: Path) -> None:
    path = samples / "mp_summary_sample.json"
    assert kind_of(path) == "mp-summary"
    data = load(path)
    same = load(samples / "mp_cif_sample.csv", limit=6)
    assert data.ids == same.ids
    for one, two in zip(data, same, strict=True):
        assert one.targets["formation_energy_per_atom"] == two.targets["formation_energy_per_atom"]
        assert sorted(one.atoms.numbers) == sorted(two.atoms.numbers)
        np.testing.assert_allclose(one.atoms.cell.array, two.atoms.cell.array, atol=1e-8)
        np.testing.assert_allclose(one.atoms.positions, two.atoms.positions, atol=2e-4 * one.atoms.cell.lengths().max())


def test_mp_summary_nested_and_disordered(samples: Path, tmp_path: Path) -> None:
    documents = json.loads((samples / "mp_summary_sample.json").read_text(encoding="utf-8"))
    documents[0]["bulk_modulus"] = {"vrh": 50.0, "voigt": None}
    documents[1]["structure"]["sites"][0]["species"][0]["occu"] = 0.5
    documents[2]["structure"] = None
    path = tmp_path / "docs.json"
    path.write_text(json.dumps(documents), encoding="utf-8")
    data = load(path)
    assert data[0].targets["bulk_modulus.vrh"] == 50.0
    assert data.skipped["bulk_modulus.vrh"] == 3
    assert dict(data.broken)[documents[1]["material_id"]] == "site 0 is occupied partially"
    assert documents[2]["material_id"] in dict(data.broken)


# folders


def leaderboard_folder(samples: Path, folder: Path, naming: str) -> Dataset:
    data = load(samples / "jarvis_sample.json")
    folder.mkdir()
    lines = []
    for record in data:
        name = naming.format(record.id)
        write(folder / name, record.atoms, format="vasp", direct=True)
        lines.append(f"{name},{record.targets['optb88vdw_bandgap']}\n")
    (folder / "id_prop.csv").write_text("".join(lines), encoding="utf-8")
    info = {"prop": "optb88vdw_bandgap", "n_train": 8, "n_val": 3, "n_test": 1}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return data


@pytest.mark.parametrize("naming", ["{}", "POSCAR-{}.vasp"])
def test_leaderboard(samples: Path, tmp_path: Path, naming: str) -> None:
    folder = tmp_path / "DataPath"
    original = leaderboard_folder(samples, folder, naming)
    assert kind_of(folder) == "leaderboard"
    data = load(folder)
    assert data.ids == original.ids
    for new, old in zip(data, original, strict=True):
        assert new.targets == {"optb88vdw_bandgap": old.targets["optb88vdw_bandgap"]}
        np.testing.assert_allclose(new.atoms.positions, old.atoms.positions, atol=1e-8)
    split = leaderboard_split(folder)
    parts = split.apply(data)
    assert parts.train.ids == original.ids[:8]
    assert parts.val.ids == original.ids[8:11]
    assert parts.test.ids == original.ids[11:]


def test_leaderboard_damage(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "DataPath"
    original = leaderboard_folder(samples, folder, "{}")
    (folder / original[2].id).unlink()
    (folder / original[3].id).write_text("not a POSCAR\n", encoding="utf-8")
    data = load(folder)
    assert [name for name, _ in data.broken] == [original[2].id, original[3].id]
    assert data.broken[0][1] == f"no structure file {original[2].id}"
    assert len(leaderboard_split(folder).apply(data).train) == 6
    (folder / "dataset_info.json").write_text('{"n_train": 8, "n_val": 3, "n_test": 3}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"counts 8 \+ 3 \+ 3 structures, id_prop.csv has 12"):
        leaderboard_split(folder)
    (folder / "dataset_info.json").unlink()
    assert load(folder).target_names == ["target"]
    with pytest.raises(ValueError, match="has no n_train, n_val and n_test"):
        leaderboard_split(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "crystals"
    (place / "sub" / "Si").mkdir(parents=True)
    write(place / "salt.cif", bulk("NaCl", "rocksalt", a=5.64))
    write(place / "iron.vasp", bulk("Fe"), format="vasp")
    write(place / "sub" / "Si" / "POSCAR", bulk("Si"), format="vasp")
    write(place / "water.xyz", molecule("H2O"), format="xyz")
    (place / "notes.txt").write_text("not a structure", encoding="utf-8")
    (place / "torn.cif").write_text("data_torn", encoding="utf-8")
    (place / "torn.xyz").write_bytes(b"\x1f\x8b no gzip")
    (place / ".checkpoints").mkdir()
    write(place / ".checkpoints" / "salt.cif", bulk("Si"))
    return place


def test_structure_folder(folder: Path) -> None:
    assert kind_of(folder) == "structures"
    data = load(folder)
    assert data.ids == ["iron", "salt", "sub/Si", "water"]
    assert [name for name, _ in data.broken] == ["torn", "torn"]
    assert [record.atoms.pbc.all() for record in data] == [True, True, True, False]


def test_targets_csv(folder: Path) -> None:
    table = folder / "targets.csv"
    table.write_text("id,gap,note\niron.vasp,0\nsub/Si,1.17,measured\nsalt,na,\ngold,0,\n", encoding="utf-8")
    for source in (folder, {"path": folder, "targets_csv": table}, table):
        data = load(source)
        assert {record.id: record.targets.get("gap") for record in data} == {
            "iron": 0.0,
            "salt": None,
            "sub/Si": 1.17,
            "water": None,
        }
        assert data.skipped == {"gap": 2}
        assert ("gold", "no structure file for the row 'gold'") in data.broken
    table.write_text("id,gap\nsalt,1\nsalt,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'salt' occurs twice"):
        load(folder)
    with pytest.raises(ValueError, match="targets_csv: no file"):
        load({"path": folder, "targets_csv": folder / "absent.csv"})


def test_compressed_files_have_targets(tmp_path: Path) -> None:
    write(tmp_path / "A.cif", bulk("Cu"))
    (tmp_path / "B.cif.gz").write_bytes(gzip.compress((tmp_path / "A.cif").read_bytes()))
    write(tmp_path / "C.extxyz", bulk("Ag"))
    (tmp_path / "C.extxyz.bz2").write_bytes(bz2.compress((tmp_path / "C.extxyz").read_bytes()))
    (tmp_path / "C.extxyz").unlink()
    (tmp_path / "targets.csv").write_text("id,gap\nA,1\nB,2\nC,3\n")
    for path in (tmp_path, tmp_path / "?.*"):
        found = open_dataset(path, progress=False)
        assert [(record.id, record.targets["gap"]) for record in found] == [("A", 1), ("B", 2), ("C", 3)]
        assert not found.broken
    assert len(open_dataset(tmp_path / "B.cif.gz", progress=False)) == 1


def test_globs_lists_and_single_files(folder: Path) -> None:
    assert load(f"{folder}/*.vasp").ids == ["iron"]
    assert load(f"{folder}/**/POSCAR").ids == ["sub/Si"]
    assert load(folder / "salt.cif").ids == ["salt"]
    assert load([folder / "salt.cif", folder / "iron.vasp"]).ids == ["salt", "iron"]
    assert load({"path": [folder / "salt.cif", folder / "iron.vasp"]}).ids
    with pytest.raises(ValueError, match="no folder, file or files like"):
        load(f"{folder}/*.pdb")
    with pytest.raises(ValueError, match="path: no file"):
        load({"path": [folder / "absent.cif"]})


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_runs_of_vasp_are_one_structure_each(tmp_path: Path, ending: str) -> None:
    for symbol in ("Cu", "Al"):
        place = tmp_path / symbol
        place.mkdir()
        for name, strain in (("POSCAR", 1.1), ("CONTCAR", 1.0)):
            atoms = bulk(symbol)
            atoms.set_cell(strain * atoms.cell, scale_atoms=True)
            write(place / name, atoms, format="vasp")
            if ending:
                (place / (name + ending)).write_bytes(gzip.compress((place / name).read_bytes()))
                (place / name).unlink()
    (tmp_path / "targets.csv").write_text("id,gap\nCu,1\nAl,2\n", encoding="utf-8")
    for source in (tmp_path, tmp_path / "*" / "*CAR*"):
        data = load(source)
        assert {record.id: record.targets["gap"] for record in data} == {"Al": 2.0, "Cu": 1.0}
        assert not data.broken
        for record in data:
            assert record.atoms.get_volume() == pytest.approx(bulk(record.id).get_volume())  # as relaxed
    (tmp_path / "Cu" / f"CONTCAR{ending}").write_bytes(b"")  # a run that has not got to its end
    volumes = {record.id: record.atoms.get_volume() for record in load(tmp_path)}
    assert volumes["Cu"] == pytest.approx(1.1**3 * bulk("Cu").get_volume())
    (tmp_path / "Cu" / f"POSCAR{ending}").unlink()
    assert [name for name, _ in load(tmp_path).broken] == ["Cu"]


# files that ASE alone reads


def frames_of_a_run() -> list[Atoms]:
    frames = []
    for number in range(3):
        atoms = bulk("NaCl", "rocksalt", a=5.6)
        atoms.rattle(0.05, seed=number)
        results = {"energy": -7.0 - number, "forces": np.eye(2, 3) * number, "stress": np.arange(6) / 7}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def test_trajectory(tmp_path: Path) -> None:
    frames = frames_of_a_run()
    frames[1].info |= {"id": "middle", "group": "run", "gap": 0.5}
    path = tmp_path / "md@300K.traj"
    write(path, frames)
    assert kind_of(path) == "ase"
    data = load(path)
    assert data.ids == ["md@300K-0", "middle", "md@300K-2"]
    assert [record.group for record in data] == [None, "run", None]
    assert [record.targets for record in data] == [{}, {"gap": 0.5}, {}]
    for record, frame in zip(data, frames, strict=True):
        label = labels(record)
        assert label.energy == frame.calc.results["energy"]
        np.testing.assert_array_equal(label.forces, frame.calc.results["forces"])
        np.testing.assert_array_equal(label.stress, frame.calc.results["stress"])
        np.testing.assert_array_equal(record.atoms.positions, frame.positions)
    assert len(load(path, limit=2)) == 2
    assert load(path, targets="energy")[2].targets == {"energy": -9.0}
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"ASE cannot read .*md@300K.traj as traj"):
        load(path)


def _rows(name: str, rows: Any) -> str:
    text = "".join(f"<v> {' '.join(f'{x:.10f}' for x in row)} </v>" for row in np.asarray(rows))
    return f'<varray name="{name}">{text}</varray>'


@pytest.mark.parametrize("ending", [".xml", ".xml.gz"])
def test_vasprun(tmp_path: Path, ending: str) -> None:
    frames = frames_of_a_run()
    places = [_rows("positions", atoms.get_scaled_positions(wrap=False)) for atoms in frames]
    structures = [f"<crystal>{_rows('basis', frames[0].cell.array)}</crystal>{place}" for place in places]
    text = f"<modeling><kpoints>{_rows('kpointlist', [[0, 0, 0]])}{_rows('weights', [[1]])}</kpoints>"
    text += '<atominfo><array name="atoms"><set><rc><c>Na</c></rc><rc><c>Cl</c></rc></set></array></atominfo>'
    text += f'<structure name="initialpos">{structures[0]}</structure>'
    for atoms, structure in zip(frames, structures, strict=True):
        energy = atoms.calc.results["energy"]
        text += f"<calculation><scstep><energy><i name='e_fr_energy'>{energy}</i><i name='e_0_energy'>{energy}</i>"
        text += f"</energy></scstep><structure>{structure}</structure>{_rows('forces', atoms.calc.results['forces'])}"
        text += f"<energy><i name='e_fr_energy'>{energy}</i></energy></calculation>"
    path = tmp_path / f"vasprun{ending}"
    content = (text + "</modeling>").encode()
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    assert kind_of(path) == "ase"
    data = load(path)
    assert data.ids == ["vasprun-0", "vasprun-1", "vasprun-2"]
    for record, frame in zip(data, frames, strict=True):
        assert labels(record).energy == frame.calc.results["energy"]
        np.testing.assert_allclose(labels(record).forces, frame.calc.results["forces"])
        np.testing.assert_allclose(record.atoms.positions, frame.positions, atol=1e-6)


# ASE databases


@pytest.mark.parametrize("ending", [".db", ".json"])
def test_ase_db(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    database = connect(path)
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=np.zeros((1, 3)), stress=np.arange(6.0))
    database.write(atoms, gap=0.5, material_id="mp-1", note="word", data={"dos": 2.5, "table": [1, 2]})
    database.write(bulk("Si"), gap=1.1)
    database.write(Atoms("H", cell=[3, 3, 0], pbc=True))
    assert kind_of(path) == "ase-db"
    data = load(path)
    assert data.ids == ["mp-1", "mine-2"]
    assert data[0].targets == {"gap": 0.5, "dos": 2.5}
    assert labels(data[0]).energy == -3.5
    assert labels(data[1]).energy is None
    assert data.skipped == {"dos": 1}
    assert data.broken == [("mine-3", "the periodic cell has no volume")]
    assert load(path, targets=["energy"])[0].targets == {"energy": -3.5}


def test_aselmdb(tmp_path: Path) -> None:
    pytest.importorskip("ase_db_backends", reason="needs ase-db-backends")
    path = tmp_path / "mine.aselmdb"
    with connect(path) as database:
        database.write(bulk("Cu"), data={"gap": 0.5})
    assert load(path)[0].targets == {"gap": 0.5}


def test_damaged_ase_db(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    path.write_bytes(b"SQLite format 3\0 and no more")
    with pytest.raises(ValueError, match=r"path: ASE cannot open the database .*mine.db"):
        load(path)


# open_dataset itself


def test_specs_are_joined(samples: Path) -> None:
    data = load([samples / "jarvis_sample.json", {"path": samples / "mp_cif_sample.csv", "limit": 2}], limit=4)
    assert len(data) == 6
    assert data.skipped["formation_energy_peratom"] == 2


def test_wrong_arguments(samples: Path, tmp_path: Path) -> None:
    path = samples / "jarvis_sample.json"
    with pytest.raises(ValueError, match=r"path: no file or folder absent.json"):
        load("absent.json")
    with pytest.raises(ValueError, match=r"path: no file or folder absent.json"):
        load("absent.json", kind="jarvis")
    with pytest.raises(ValueError, match=f"kind: wanted auto or one of {', '.join(KINDS)}, got 'hdf5'"):
        load(path, kind="hdf5")
    with pytest.raises(ValueError, match=r"targets: .* has no field 'gap'; it has func, formation_energy_peratom"):
        load(path, targets=["gap"])
    with pytest.raises(ValueError, match="limit: wanted at least 1 or None, got 0"):
        load(path, limit=0)
    with pytest.raises(ValueError, match="a source of kind jarvis has no option column"):
        load({"path": path, "column": "x"})
    with pytest.raises(ValueError, match="a mapping needs 'path'; it has file"):
        load({"file": path})
    with pytest.raises(ValueError, match="path_or_spec: an empty list"):
        load([])
    with pytest.raises(ValueError, match=r"none of 12 entries can be used; the first, .*: no 'structure'"):
        load(path, kind="mp-summary")


def test_a_csv_file_that_is_not_utf_8(samples: Path, tmp_path: Path) -> None:
    text = (samples / "mp_cif_sample.csv").read_text(encoding="utf-8")
    (tmp_path / "old.csv").write_bytes(text.replace("data_mp", "# Müller, 4.2 Å\ndata_mp", 1).encode("latin-1"))
    assert kind_of(tmp_path / "old.csv") == "cif-csv"
    assert load(tmp_path / "old.csv").ids == load(samples / "mp_cif_sample.csv").ids


def test_unrecognised_content(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has neither id_prop.csv nor structure files"):
        load(tmp_path / "empty")
    for name, text, reason in (
        ("a.json", '[{"x": 1}]', "its first entry has x"),
        ("a.csv", "x,y\n1,2\n", "its columns are x, y"),
        ("a.txt", "anything", r"cannot tell what .*a\.txt holds"),
        ("OUTCAR", "anything", "ASE cannot read .*OUTCAR as vasp-out"),
        ("b.json", "[]", "its first entry has no fields"),
    ):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=reason):
            load(path)
    with pytest.raises(ValueError, match="no entries"):
        load(tmp_path / "b.json", kind="jarvis")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("b", "2")
    with pytest.raises(ValueError, match="an archive of 2 files"):
        load(tmp_path / "two.zip")
    (tmp_path / "image").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not text"):
        load(tmp_path / "image")
    shutil.copy(samples / "dft_forces_sample.extxyz", tmp_path / "frames")
    assert kind_of(tmp_path / "frames") == "extxyz"


def test_progress_bar_only_when_asked(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (samples / "jarvis_sample.json", samples / "mp_cif_sample.csv"):
        open_dataset(path)
        out, err = capsys.readouterr()
        assert (out, err) == ("", "")
    pytest.importorskip("rich")
    open_dataset(samples / "jarvis_sample.json", progress="always")
    assert capsys.readouterr().out == ""
