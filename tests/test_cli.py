from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Lattice, Structure

from ase_potnet import predict
from ase_potnet.cli import main
from ase_potnet.models import build_model
from ase_potnet.pretrained import Target, packaged, save_model
from ase_potnet.readers.structure_files import read_checked
from ase_potnet.structure_files import relaxed_name

SAMPLES = Path(__file__).resolve().parent / "data"
JARVIS = SAMPLES / "jarvis_sample.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, trained by the command on twelve crystals."""
    folder = tmp_path_factory.mktemp("training")
    recipe = {
        "output": str(folder / "run"),
        "data": {
            "path": str(JARVIS),
            "targets": [{"name": "formation_energy_per_atom", "field": "formation_energy_peratom", "unit": "eV/atom"}],
            "split": {"fractions": [0.7, 0.2, 0.1]},
        },
        "model": {"name": "potnet", "options": {"width": 8, "n_layers": 1}},
        "batch": {"structures": 4},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run("train", str(folder / "recipe.yaml"), "--set", "epochs=2") == 0
    return folder / "run" / "model"


def run(*args: str) -> int:
    """The exit status of the command."""
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    return int(caught.value.code or 0)


def test_training_leaves_a_model_with_a_picture(trained: Path) -> None:
    assert (trained / "weights.safetensors").is_file()
    assert (trained.parent / "parity_val.png").is_file()
    assert len((trained.parent / "log.csv").read_text().splitlines()) == 3


def test_progress_is_a_line_an_epoch(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(trained.parents[1] / "recipe.yaml")
    assert run("train", recipe, "-s", "epochs=3", "-s", f"output={tmp_path / 'run'}") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("epoch")] == [["epoch", str(n)] for n in range(3)]
    assert lines[-1].startswith("3 epochs are done.")


def test_evaluate_writes_the_leaderboard_form(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("evaluate", "-m", str(trained), "-d", str(JARVIS), "-o", str(out)) == 0
    text = capsys.readouterr().out
    assert "12 structures" in text
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert list(rows[0]) == ["id", "target", "prediction"]
    assert len(rows) == 12
    assert all(row["id"].startswith("JVASP-") for row in rows)
    error = [abs(float(row["target"]) - float(row["prediction"])) for row in rows]
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]["formation_energy_per_atom"]
    assert metrics["mae"] == pytest.approx(np.mean(error), rel=1e-5)
    assert f"{metrics['mae']:.5g}" in text
    assert (out / "parity.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_wants_a_split(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "-m", str(trained), "-d", str(JARVIS), "--part", "val") == 2
    assert "part: 'val' of what?" in capsys.readouterr().err


def test_evaluate_a_potential_by_element(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_model("equivariant-potnet", {"width": 8})
    folder = save_model(model, tmp_path / "potential", targets=["energy"], task="energy")
    frames = SAMPLES / "dft_forces_sample.extxyz"
    args = ("evaluate", "-m", str(folder), "-d", str(frames), "-o", str(tmp_path / "out"))
    assert run(*args) == 0
    plain = json.loads((tmp_path / "out" / "metrics.json").read_text())
    text = capsys.readouterr().out
    assert {"energy_per_atom", "forces", "stress"} <= set(plain["metrics"])
    assert "force MAE" in text
    assert "Eu" in plain["by_element"]
    assert (tmp_path / "out" / "elements.png").read_bytes().startswith(b"\x89PNG")
    assert run(*args, "--fit-shifts") == 0
    shifted = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "energies after a shift per element, fitted to these data" in shifted["notes"]
    assert shifted["metrics"]["energy_per_atom"]["mae"] < 0.1 * plain["metrics"]["energy_per_atom"]["mae"]
    assert shifted["metrics"]["forces"] == plain["metrics"]["forces"]


def test_evaluate_labels_under_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_model(build_model("equivariant-potnet", {"width": 8}), tmp_path / "potential", task="energy")
    frames = ase.io.read(SAMPLES / "dft_forces_sample.extxyz", ":4")
    for atoms in frames:
        results, atoms.calc = atoms.calc.results, None
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = results["energy"], results["forces"]
    ase.io.write(tmp_path / "frames.extxyz", frames)
    args = ("evaluate", "-m", str(folder), "-d", str(tmp_path / "frames.extxyz"), "-o", str(tmp_path / "out"))
    assert run(*args, "--target", "energy=REF_energy", "--target", "forces=REF_forces") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert metrics["forces"]["count"] == 3 * sum(map(len, frames))
    assert metrics["energy_per_atom"]["count"] == 4
    capsys.readouterr()
    assert run(*args, "--target", "gap=REF_gap") == 2
    assert "predicts energy, forces and stress, not gap" in capsys.readouterr().err


def test_evaluate_leaves_out_targets_that_the_data_do_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_model("invariant-potnet", {"width": 8, "n_layers": 1, "n_targets": 2})
    targets = ["magnetisation", Target("gap", "eV", "optb88vdw_bandgap")]
    args = ("evaluate", "-m", str(save_model(model, tmp_path / "two", targets=targets)), "-d", str(JARVIS))
    assert run(*args, "-o", str(tmp_path / "out")) == 0
    assert "magnetisation: the data have no field magnetisation" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(written["metrics"]) == ["gap"]
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    gaps = {entry["jid"]: entry["optb88vdw_bandgap"] for entry in json.loads(JARVIS.read_text())}
    assert all(float(row["target"]) == pytest.approx(gaps[row["id"]]) for row in rows)
    assert run(*args, "--target", "magnetisation=spin") == 2
    assert "error: data: no field spin (for magnetisation); there are" in capsys.readouterr().err
    mp = str(SAMPLES / "mp_summary_sample.json")  # its fields have the names of the packaged targets, not JARVIS's
    assert run("evaluate", "-m", "jarvis", "-d", mp) == 0
    table = capsys.readouterr().out
    assert re.search(r"formation_energy_per_atom .* eV/atom\n", table)
    assert re.search(r"band_gap .* eV\n", table)


def test_evaluate_takes_a_part_and_another_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [entry["jid"] for entry in json.loads(JARVIS.read_text())]
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ids[:8], "val": ids[8:10], "test": ids[10:]}))
    renamed = "formation_energy_per_atom=optb88vdw_bandgap"
    args = ("evaluate", "-m", str(trained), "-d", str(JARVIS), "--split", str(split), "--part", "val")
    assert run(*args, "--target", renamed) == 0
    assert "2 structures" in capsys.readouterr().out
    assert run(*args, "--limit", "1") == 0  # of the part, which is not at the beginning of the data
    assert capsys.readouterr().out.startswith("1 structures")
    assert run(*args, "--limit", "0") == 2
    assert "limit: wanted at least 1" in capsys.readouterr().err


def test_evaluate_leaves_out_elements_that_the_model_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_model("equivariant-potnet", {"width": 8})
    model.elements[[55, 84]] = False  # Cs, Po
    folder = save_model(model, tmp_path / "potential", targets=["energy"], task="energy")
    frames = [bulk("Po", "sc", a=3.35), bulk("Cu"), bulk("CsCl", "cesiumchloride", a=4.1)]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    ase.io.write(tmp_path / "all.extxyz", frames)
    assert run("evaluate", "-m", str(folder), "-d", str(tmp_path / "all.extxyz"), "-o", str(tmp_path / "out")) == 0
    note = "2 structures left out: elements the model does not know (Cs, Po)"
    assert capsys.readouterr().out.startswith(f"1 structures\n{note}\n")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"] == [note]
    ase.io.write(tmp_path / "none.extxyz", frames[:1])
    assert run("evaluate", "-m", str(folder), "-d", str(tmp_path / "none.extxyz")) == 2
    assert "elements the model does not know (Po)" in capsys.readouterr().err


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A CIF, two frames of extxyz and a POSCAR in a folder."""
    paths = [tmp_path / "a.cif", tmp_path / "b.extxyz", tmp_path / "sub" / "POSCAR"]
    paths[2].parent.mkdir()
    ase.io.write(paths[0], bulk("Si"))
    ase.io.write(paths[1], [bulk("Fe"), bulk("NaCl", "rocksalt", a=5.6)])
    ase.io.write(paths[2], bulk("Cu"), format="vasp")
    return [paths[0], paths[1], paths[2].parent]


def test_predict_prints_what_the_function_gives(
    trained: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [ase.io.read(files[0]), *ase.io.read(files[1], ":"), ase.io.read(files[2] / "POSCAR")]
    expected = list(predict(frames, model=trained))
    args = ("predict", *map(str, files), "-m", str(trained))
    assert run(*args, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["unit"] == "eV/atom"
    values = [row["formation_energy_per_atom"] for row in data["predictions"]]
    assert values == pytest.approx(expected, rel=1e-5)
    assert [row["formula"] for row in data["predictions"]] == ["Si2", "Fe", "NaCl", "Cu"]
    assert data["predictions"][2]["structure"].endswith("b.extxyz#2")
    assert run(*args, "--format", "csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [float(row["formation_energy_per_atom"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    assert run(*args) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["structure", "formula", "formation_energy_per_atom", "(eV/atom)"]
    assert len(table) == 5


def test_predict_goes_on_after_broken_files(
    trained: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.cif").write_text("data_nothing\n")
    out = tmp_path / "out.csv"
    paths = [str(files[0]), str(tmp_path / "broken.cif"), str(files[2])]
    assert run("predict", *paths, "-m", str(trained), "-f", "csv", "-o", str(out)) == 1
    assert "broken.cif" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 3


def test_predict_refuses_a_site_shared_by_elements(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alloy = Structure(Lattice.cubic(3.8), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    alloy.to(str(tmp_path / "partial.cif"))
    assert run("predict", str(tmp_path / "partial.cif"), "-m", str(trained), "-f", "csv") == 1
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 1
    assert "partial.cif: a site is occupied partially" in found.err


def test_predict_takes_structure_files_of_a_folder_and_the_target_of_the_model(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "Kristalle für alle"
    folder.mkdir()
    ase.io.write(folder / "Silizium ü.cif.gz", bulk("Si"))
    (folder / "README.md").write_text("Not a crystal.")
    assert run("predict", str(folder), "-m", str(trained), "-f", "csv") == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["structure"].endswith("Silizium ü.cif.gz")
    assert "formation_energy_per_atom" in row


def test_predict_reads_collections_by_their_ids(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", str(JARVIS), "-m", str(trained), "-f", "csv") == 0
    names = [row["structure"] for row in csv.DictReader(capsys.readouterr().out.splitlines())]
    assert names == [entry["jid"] for entry in json.loads(JARVIS.read_text())]


def test_relax_writes_the_crystal_beside_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "MgO.cif", bulk("MgO", "rocksalt", a=4.1))
    assert run("relax", str(tmp_path / "MgO.cif"), "--fmax", "0.05") == 0
    text = capsys.readouterr().out
    relaxed = ase.io.read(tmp_path / "MgO_relaxed.cif")
    assert relaxed.get_volume() == pytest.approx(4.21**3 / 4, rel=0.06)
    assert float(text.rsplit(" Å^3", 1)[0].split()[-1]) == pytest.approx(relaxed.get_volume(), abs=1e-3)
    assert run("relax", str(tmp_path / "MgO.cif"), "--max-steps", "1", "-o", str(tmp_path / "new" / "POSCAR")) == 1
    assert "NOT relaxed" in capsys.readouterr().out
    ase.io.write(tmp_path / "far.cif", bulk("MgO", "rocksalt", a=4.8))
    assert run("relax", str(tmp_path / "far.cif"), "--fmax", "0.1") == 0
    assert "warning: the volume changed by -" in capsys.readouterr().err
    assert len(ase.io.read(tmp_path / "new" / "POSCAR")) == 2


def test_the_last_of_several_structures_is_taken_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [bulk("Cu"), bulk("Al")]
    for name in ("one.json", "one.db"):
        ase.io.write(tmp_path / name, bulk("Al"))
        assert read_checked(tmp_path / name).get_chemical_formula() == "Al"
    for name in ("frames.extxyz", "frames.cif", "frames.traj"):
        ase.io.write(tmp_path / name, frames)
        found = read_checked(tmp_path / name)
        assert found.get_chemical_formula() == "Al"
        assert f"{name} holds 2 structures; the last one is taken" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="wants a folder in which even root cannot write")
@pytest.mark.parametrize("arguments", [("relax", "-o", "x.cif"), ("phonon", "-o", "."), ("predict", "-o", "x.csv")])
def test_a_folder_that_cannot_be_written_is_said_first(
    arguments: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ase.io.write(tmp_path / "Cu.cif", bulk("Cu"))
    never = Mock(side_effect=AssertionError("calculated first"))
    monkeypatch.setattr("ase_potnet.structure_files.predict_batches", never)
    monkeypatch.setattr("ase_potnet.integrations.relaxation.relax", never)
    monkeypatch.setattr("ase_potnet.integrations.phonon_files.phonons", never)
    command, option, name = arguments
    assert run(command, str(tmp_path / "Cu.cif"), option, f"/proc/self/{name}") != 0
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "/proc/self" in error
    assert not never.called


@pytest.mark.parametrize(
    ("name", "relaxed"),
    [
        ("POSCAR", "POSCAR_relaxed"),
        ("a.b.cif.gz", "a.b_relaxed.cif"),
        ("x y.vasp", "x y_relaxed.vasp"),
        ("m.traj", "m_relaxed.traj"),
        ("geometry.in", "geometry_relaxed.in"),
        ("m.foo", "m_relaxed.extxyz"),
        ("OUTCAR", "relaxed.extxyz"),
    ],
)
def test_relaxed_names(name: str, relaxed: str) -> None:
    assert relaxed_name(Path("sub") / name, bulk("MgO", "rocksalt", a=4.2)) == Path("sub") / relaxed


def test_relax_names_an_output_that_cannot_be_written_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "MgO.cif", bulk("MgO", "rocksalt", a=4.1))
    assert run("relax", str(tmp_path / "MgO.cif"), "-o", str(tmp_path / "relaxed.foo")) == 2
    assert "--output: wanted a name of a format that ASE writes" in capsys.readouterr().err
    assert run("relax", str(tmp_path / "MgO.cif"), "-o", str(tmp_path / "o.pwi")) == 2  # wants pseudopotentials, too
    assert "--output: wanted a name of a format that ASE writes" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["MgO.cif"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_predictions_of_files_whose_names_are_no_utf8(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "crystals"
    folder.mkdir()
    ase.io.write(folder / "MgO.cif", bulk("MgO", "rocksalt", a=4.1))
    (folder / "MgO.cif").rename(os.fsdecode(os.fsencode(folder) + b"/\xff.cif"))
    out = tmp_path / "out.csv"
    assert run("predict", str(folder), "-m", str(trained), "-f", "csv", "-o", str(out)) == 0
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["structure"].endswith("\\xff.cif")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "-s", "data.path=x"), "RECIPE: wanted a YAML file or the name of a packaged recipe"),
        (("evaluate", "-m", "default", "-d", "x", "--target", "a=b"), "predicts energy, forces and stress, not a"),
        (("evaluate", "-m", "jarvis", "-d", "x", "--fit-shifts"), "fit_shifts: only of energies"),
        (("screen", "x", "-o", "out.db", "--shard", "0"), "--shard: wanted a positive number of crystals"),
    ],
)
def test_options_that_have_no_meaning_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_one_model_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "default", "--json") == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == ["default"]


@pytest.mark.parametrize("suffix", [".extxyz.gz", ".res.gz", ".res"])
def test_compressed_files_of_a_structure(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"m{suffix}"
    plain = tmp_path / f"m{suffix.removesuffix('.gz')}"
    ase.io.write(plain, bulk("MgO", "rocksalt", a=4.2))
    if suffix.endswith(".gz"):
        file.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_checked(file).get_chemical_formula() == "MgO"


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.split() == ["potnet", version("ase-potnet")]


def test_models_lists_packaged_models(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaged, "weights_folder", lambda: trained.parent)
    assert run("models") == 0
    text = capsys.readouterr().out
    assert "model: potnet, predicts formation_energy_per_atom (eV/atom)" in text
    assert "val formation_energy_per_atom: MAE" in text
    assert run("models", "model") == 0
    assert capsys.readouterr().out.startswith("# model")
    assert run("models", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["task"] == "property"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "nowhere.yaml"), "error: recipe: no file nowhere.yaml"),
        (("train", "custom", "-s", "epohcs=3"), "unknown key 'epohcs', did you mean 'epochs'?"),
        (("train", "custom", "-s", "epochs"), "error: --set: wanted key=value, got 'epochs'"),
        (("train", "custom", "-s", "data.path=[a"), "error: --set: the value of data.path is no YAML: '[a'"),
        (("train", "custom", "-s", "data.path=nowhere"), "error: path: no file or folder nowhere"),
        (("evaluate", "-m", "nowhere", "-d", str(JARVIS)), "error: model: no packaged model and no folder 'nowhere'"),
        (("predict", "nowhere.cif", "-m", "nowhere"), "error: model: no packaged model"),
        (("predict", "nowhere.cif"), "error: files: no file or folder nowhere.cif"),
        (("predict", str(JARVIS), "-f", "excel"), "error: --format: wanted one of table, csv, json, got 'excel'"),
        (("predict", str(JARVIS), "--device", "cuda:99"), "CUDA devices, got 'cuda:99'"),
        (
            ("screen", str(JARVIS), "--out", "new.db", "--export", "a.xls"),
            "error: export: wanted a name that ends with",
        ),
        (("relax", "nowhere.cif"), "error: FILE: no file nowhere.cif"),
        (("relax", str(SAMPLES)), "is a folder"),
        (("models", "nowhere"), "error: model: no packaged model"),
    ],
)
def test_errors_are_one_line(args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_relax_says_what_slabs_want(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    ase.io.write(tmp_path / "slab.extxyz", slab)
    assert run("relax", "--no-cell", str(tmp_path / "slab.extxyz")) == 2
    assert "three periodic directions, got pbc=[True, True, False]; slabs and molecules" in capsys.readouterr().err


def test_an_interrupted_screening_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ase_potnet.screening.command.run_screen", Mock(side_effect=KeyboardInterrupt))
    assert run("screen", str(JARVIS), "--out", str(tmp_path / "r.db")) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("command", [("predict", "a.cif", "-o"), ("screen", "a.cif", "--out")])
def test_an_output_that_is_a_folder_is_refused_at_once(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, str(tmp_path)) == 2
    assert "directory" in capsys.readouterr().err
    assert not Path(f"{tmp_path}.lock").exists()


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--list") == 0
    assert "jarvis_formation_energy" in capsys.readouterr().out.split()


def test_help_needs_nothing_heavy() -> None:
    code = """
import sys
from ase_potnet.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"torch", "numpy", "ase", "lightning", "matplotlib", "pydantic"}.intersection(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "predict" in result.stdout
