from __future__ import annotations

import csv
from pathlib import Path

import ase.io
import numpy as np
import phonopy
import pytest
from ase.build import bulk

from ase_potnet.cli import main
from ase_potnet.integrations.phonon_files import _tick_labels, parse_numbers

from . import lennard_jones

QUICK = ("--supercell", "2 2 2", "--mesh", "4 4 4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lennard_jones.save(tmp_path_factory.mktemp("models") / "solid")


def run(*args: str) -> int:
    """The exit status of the command."""
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    return int(caught.value.code or 0)


def test_files_are_written(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = bulk("Ar", "fcc", a=4.6, cubic=True)
    atoms.symbols[0] = "Kr"
    ase.io.write(tmp_path / "POSCAR", atoms)
    (tmp_path / "BORN").write_text("14.4\n2 0 0 0 2 0 0 0 2\n0.9 0 0 0 0.9 0 0 0 0.9\n-0.3 0 0 0 -0.3 0 0 0 -0.3\n")
    out = tmp_path / "out"
    born = str(tmp_path / "BORN")
    assert run("phonon", str(tmp_path / "POSCAR"), "-m", str(model), "-o", str(out), "--nac", born, *QUICK) == 0
    assert capsys.readouterr().out.count("written: ") == 3
    rows = list(csv.reader((out / "thermal_properties.csv").read_text().splitlines()))
    assert rows[0] == ["temperature (K)", "free energy (kJ/mol)", "entropy (J/K/mol)", "heat capacity (J/K/mol)"]
    assert [float(row[0]) for row in rows[1:]] == list(range(0, 1001, 10))
    assert (out / "phonons.png").read_bytes().startswith(b"\x89PNG")
    again = phonopy.load(out / "phonopy_params.yaml")
    assert again.nac_params is not None
    again.run_mesh((4, 4, 4), is_gamma_center=True)
    again.run_thermal_properties(temperatures=[300], exclude_gamma_acoustic=True)
    assert again.thermal_properties is not None
    assert float(rows[31][1]) == pytest.approx(again.thermal_properties.free_energy[0], abs=1e-4)


def test_analytic_force_constants_are_saved(model: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "ar.cif", bulk("Ar", "fcc", a=4.6))
    args = ("phonon", str(tmp_path / "ar.cif"), "-m", str(model), "-o", str(tmp_path), "--method", "analytic")
    assert run(*args, "--no-plot", *QUICK) == 0
    assert not (tmp_path / "phonons.png").exists()
    again = phonopy.load(tmp_path / "phonopy_params.yaml")
    assert again.run_qpoints([[0.5, 0.5, 0]]).frequencies.min() > 1


def test_imaginary_modes_are_told_in_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "sc.cif", bulk("Ar", "sc", a=3.3))
    assert run("phonon", str(tmp_path / "sc.cif"), "-m", str(model), "-o", str(tmp_path), *QUICK) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert len(lines) == 1
    assert "i THz at q =" in lines[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere.cif",), "error: FILE: no file nowhere.cif"),
        (("{file}", "--mesh", "4 4"), "error: --mesh: wanted one length in Å or three integers, got '4 4'"),
        (("{file}", "--supercell", "big"), "error: --supercell: wanted"),
        (("{file}", "--nac", "nowhere"), "error: nac: no file nowhere"),
        (("{file}", "--method", "magic"), "error: method: wanted one of finite, analytic"),
        (("{broken}",), "cannot be read"),
        (("{partial}",), "cannot be read: a site is occupied partially"),
        (("{file}", "--supercell", "2,2"), "error: --supercell: wanted"),
    ],
)
def test_errors_are_one_line(
    model: Path, tmp_path: Path, args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, broken = tmp_path / "ar.cif", tmp_path / "broken.cif"
    ase.io.write(file, bulk("Ar", "fcc", a=4.6))
    broken.write_text("data_nothing\n")
    partial = tmp_path / "partial.cif"
    partial.write_text(file.read_text().replace("1.0000\n", "0.5000\n"))
    words = [word.format(file=file, broken=broken, partial=partial) for word in args]
    assert run("phonon", *words, "-m", str(model), "-o", str(tmp_path), "--no-relax") == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_numbers_of_the_command_line() -> None:
    assert parse_numbers("--supercell", "auto") == "auto"
    assert parse_numbers("--supercell", "12.0") == 12.0
    assert isinstance(parse_numbers("--supercell", "2"), int)  # which ``phonons`` calls ambiguous
    assert parse_numbers("--mesh", "12") == 12.0
    assert parse_numbers("--mesh", "3,4,5") == [3, 4, 5]
    np.testing.assert_array_equal(parse_numbers("--supercell", "0 1 1 1 0 1 1 1 0"), 1 - np.eye(3))


def test_labels_where_the_path_jumps() -> None:
    labels = ["$\\Gamma$", "X", "U", "K", "$\\Gamma$"]
    assert _tick_labels(labels, [True, False, True]) == ["$Γ$", "X", "U|K", "$Γ$"]
