"""Exports hold every record, read back by the tools that they are for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from ase_potnet.file_safety import replacing
from ase_potnet.screening import Record, records, screen
from ase_potnet.screening import export as module
from ase_potnet.screening.export import export
from ase_potnet.screening.sources import candidates
from ase_potnet.screening.store import DONE, Store


@pytest.fixture
def results(model: Path, metals: list[Atoms], tmp_path: Path) -> Path:
    """Four that are done, a duplicate, a broken file and one that did not converge."""
    (tmp_path / "broken.cif").write_text("")
    rough = bulk("Cu", "fcc", a=4.1, cubic=True) * (2, 1, 1)
    rough.rattle(0.2, seed=1)
    crystals = [*metals[:3], ("twice", metals[2]), metals[4], ("rough", rough), tmp_path / "broken.cif"]
    options = {"relax.max_steps": 7, "elastic.fmax": 0.02}
    out = tmp_path / "results.db"
    with screen(crystals, "relax,elastic", out, model=model, options=options, unique="exact") as run:
        list(run)
    assert (run.summary.found, run.summary.failed, run.summary.duplicates) == (7, 2, 1)
    assert dict(run.summary.reasons) == {"bad file": 1, "not converged": 1}
    return out


def test_csv(results: Path, tmp_path: Path) -> None:
    with export(results, tmp_path / "r.csv").open() as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    kept = {record.id: record for record in records(results)}
    assert rows.keys() == kept.keys()
    for name, record in kept.items():
        row = rows[name]
        assert (row["status"], row["reason"], row["message"]) == (record.status, record.reason, record.message)
        assert (row["energy"] == "") == ("energy" not in record.values)
        if record.status == DONE:
            assert float(row["energy"]) == record.values["energy"]
            assert json.loads(row["elastic_constants"]) == record.values["elastic_constants"]


@pytest.mark.parametrize("rows_at_once", [2, 10_000])
def test_parquet(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    monkeypatch.setattr(module, "_ROWS", rows_at_once)
    table = parquet.read_table(export(results, tmp_path / "r.parquet"))
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["energy"], types["n_atoms"], types["relax_steps"]) == ("double", "int64", "int64")
    assert (types["mechanically_stable"], types["elastic_constants"]) == ("bool", "string")
    rows = table.to_pylist()
    for row, record in zip(rows, records(results), strict=True):
        assert (row["id"], row["key"], row["n_atoms"]) == (record.id, record.key, record.n_atoms)
        assert (row["status"], row["reason"]) == (record.status, record.reason)
        for name, value in record.values.items():
            assert (json.loads(row[name]) if isinstance(value, list) else row[name]) == value
        assert all(row[name] is None for name in types.keys() - record.values.keys() - set(module.FIXED))


def test_parquet_of_mixed_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    values = [{"a": 1, "b": 1, "c": None}, {"a": 2.5, "b": "many", "c": None}, {"b": None}]
    with Store(tmp_path / "r.db", {}) as store:
        for n, some in enumerate(values):
            store.add(Record(f"k{n}", f"id{n}", "memory", DONE, values=some))
    table = parquet.read_table(export(tmp_path / "r.db", tmp_path / "r.parquet")).to_pydict()
    assert table["a"] == [1.0, 2.5, None]
    assert table["b"] == ["1", "many", None]
    assert table["c"] == [None, None, None]


def test_extxyz(results: Path, tmp_path: Path) -> None:
    frames = read(export(results, tmp_path / "r.extxyz"), ":")
    done = [record for record in records(results) if record.status == DONE]
    assert len(frames) == len(done) == 4
    for frame, record in zip(frames, done, strict=True):
        assert record.atoms is not None
        assert frame.info["id"] == record.id
        assert frame.get_potential_energy() == pytest.approx(record.values["energy"], abs=1e-8)
        assert frame.info["relax_steps"] == record.values["relax_steps"]
        np.testing.assert_allclose(frame.cell.array, record.atoms.cell.array, atol=1e-8)
        np.testing.assert_allclose(frame.positions, record.atoms.positions, atol=1e-8)


def test_pymatgen_json(results: Path, tmp_path: Path) -> None:
    text = export(results, tmp_path / "r.json").read_text()
    entries = pytest.importorskip("pymatgen.entries.computed_entries")
    made = [entries.ComputedStructureEntry.from_dict(item) for item in json.loads(text)]
    done = [record for record in records(results) if record.status == DONE]
    for entry, record in zip(made, done, strict=True):
        assert record.atoms is not None
        assert (entry.entry_id, entry.energy) == (record.id, record.values["energy"])
        assert entry.data["elastic_constants"] == record.values["elastic_constants"]
        assert entry.structure.volume == pytest.approx(record.atoms.get_volume())
        assert entry.composition.num_atoms == record.n_atoms
        np.testing.assert_allclose(entry.structure.cart_coords, record.atoms.positions, atol=1e-9)


@pytest.mark.parametrize("name", ["r.extxyz", "r.json"])
def test_exports_in_a_folder_are_not_screened_again(results: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "Cu.cif", bulk("Cu"))
    exported = export(results, folder / name)
    assert [candidate.id for candidate in candidates(folder)] == ["Cu"]
    assert len(list(candidates(exported))) == 4  # unless it is asked for


def test_what_cannot_be_exported(model: Path, results: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="export: wanted a name"):
        export(results, tmp_path / "r.xls")


def test_pymatgen_gets_no_molecules(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list(screen([("n2", molecule("N2")), ("cu", bulk("Cu"))], "energy", tmp_path / "n2.db", model=model))
    (entry,) = json.loads(export(tmp_path / "n2.db", tmp_path / "n2.json").read_text())
    assert entry["entry_id"] == "cu"
    assert "1 structures left out that have no cell" in capsys.readouterr().err


def test_a_failed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())
