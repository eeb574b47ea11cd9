"""screen(): batches against single crystals, resuming, failures, counts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_potnet import PotNetCalculator
from ase_potnet.pretrained import load_model
from ase_potnet.screening import Ask, Crystal, ScreeningFailure, records, screen
from ase_potnet.screening.elasticity import birch_murnaghan
from ase_potnet.screening.hull import read_references
from ase_potnet.screening.store import DONE, FAILED
from ase_potnet.screening.tasks import make_tasks


@dataclass(frozen=True)
class Count:
    """Atoms; with troubles on request."""

    name: ClassVar[str] = "count"
    columns: ClassVar[Mapping[str, str]] = {"atoms": ""}

    def run(self, crystal: Crystal) -> dict[str, Any]:
        if crystal.id == "raises":
            raise RuntimeError("out of\nluck")
        if crystal.id == "hangs":
            time.sleep(60)
        if crystal.id == "loops":
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    continue
        if crystal.id == "gives up":
            raise ScreeningFailure("too blue", "the crystal is blue")
        if crystal.id == "exits":
            raise SystemExit(3)
        if crystal.id == "no JSON":
            return {"atoms": 1j}
        if crystal.id == "taken":
            return {"status": "fine"}
        return {"atoms": len(crystal.atoms)}


def balanced(run: Any) -> None:
    summary = run.summary
    assert summary.found == summary.before + summary.done + summary.failed + summary.duplicates
    assert sum(summary.reasons.values()) == summary.failed


def test_relaxation_agrees_with_ase(model: Path, metals: list[Atoms]) -> None:
    options = {"relax.fmax": 0.001, "relax.symprec": 0.0}
    found = {r.id: r for r in screen(metals[:4], "relax", model=model, options=options, dtype="float64")}
    calculator: Calculator = PotNetCalculator(model)
    for number, atoms in enumerate(metals[:4]):
        record = found[f"structure-{number}"]
        assert record.status == DONE, record
        reference = atoms.copy()
        reference.calc = calculator
        assert BFGS(FrechetCellFilter(reference), logfile=None).run(fmax=0.001, steps=200)
        assert record.values["energy"] == pytest.approx(reference.get_potential_energy(), abs=2e-5)
        assert record.atoms is not None
        assert record.atoms.get_volume() == pytest.approx(reference.get_volume(), rel=2e-3)
        check = record.atoms.copy()
        check.calc = calculator
        assert np.abs(check.get_forces()).max() < 0.001
        assert np.abs(check.get_stress() * check.get_volume() / len(check)).max() < 0.001


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")
def test_symmetry_is_kept(model: Path) -> None:
    import spglib

    hexagonal = bulk("Zn", "hcp", a=2.8, c=4.9)
    hexagonal.positions += 1e-4 * np.random.default_rng(0).normal(size=(2, 3))  # symmetric to 0.01 Å, not exactly
    silicon = bulk("Si", a=5.2)
    for atoms in (hexagonal, silicon):
        (record,) = screen(atoms, "relax", model=model, options={"relax.fmax": 0.002})
        assert record.status == DONE
        after = record.atoms
        assert after is not None
        before, now = (
            spglib.get_symmetry((a.cell.array, a.get_scaled_positions(), a.numbers), symprec=s)["rotations"]
            for a, s in ((atoms, 0.01), (after, 1e-5))
        )
        assert len(now) == len(before) >= 24
        assert record.values["volume_change"] != 0


def test_pressure_in_a_cell_that_stays(model: Path, metals: list[Atoms]) -> None:
    for tasks in ("relax", "relax,energy"):
        (record,) = screen(metals[1], tasks, model=model, options={"relax.cell": False}, dtype="float64")
        assert record.status == DONE, record
        assert record.atoms is not None
        after = record.atoms.copy()
        after.calc = PotNetCalculator(model)
        pressure = -after.get_stress()[:3].mean() / 0.00624150907
        assert record.values["pressure"] == pytest.approx(pressure, rel=1e-6, abs=1e-6)


def test_batches_are_single_points(model: Path, metals: list[Atoms]) -> None:
    one = Atoms("Ar", positions=[[0, 0, 0]])
    large = bulk("Cu", a=3.7, cubic=True) * (5, 5, 5)
    assert len(large) == 500
    crystals = [*metals, one, large]
    found = {r.id: r for r in screen(iter(crystals), "energy", model=model, dtype="float64")}
    calculator = PotNetCalculator(model)
    assert len(found) == len(crystals)
    for number, atoms in enumerate(crystals):
        reference = atoms.copy()
        reference.calc = calculator
        values = found[f"structure-{number}"].values
        assert values["energy"] == pytest.approx(reference.get_potential_energy(), abs=1e-8)
        assert values["largest_force"] == pytest.approx(np.linalg.norm(reference.get_forces(), axis=1).max(), abs=1e-8)
        if atoms.pbc.all():
            pressure = -reference.get_stress()[:3].mean() / 0.00624150907
            assert values["pressure"] == pytest.approx(pressure, rel=1e-6, abs=1e-6)


def test_failures_are_records_and_counts_agree(model: Path, metals: list[Atoms], tmp_path: Path) -> None:
    heavy, close, nan = bulk("Cu"), bulk("Cu", cubic=True), bulk("Cu")
    heavy.numbers[:] = 110
    close.positions[1] = close.positions[0] + [0.2, 0, 0]
    nan.positions[0, 0] = np.nan
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a 3.0\n")
    names = ("raises", "hangs", "loops", "gives up", "exits", "no JSON", "taken")
    crystals: list[Any] = [("heavy", heavy), ("close", close), ("nan", nan), tmp_path / "broken.cif"]
    crystals += [(name, metals[0]) for name in names] + metals[:5]
    start = time.monotonic()
    with screen(crystals, ["energy", Count()], tmp_path / "r.db", model=model, time_limit=0.5) as run:
        found = {r.id: r for r in run}
    assert time.monotonic() - start < 30
    balanced(run)
    assert run.summary.found == len(crystals) == len(found)
    assert run.summary.done == 5
    reasons = {name: record.reason for name, record in found.items() if record.status == FAILED}
    assert reasons == {
        "heavy": "unsupported element", "close": "exploded", "nan": "bad file", "broken": "bad file",
        "raises": "task error", "hangs": "time limit", "loops": "time limit", "gives up": "too blue",
        "exits": "task error", "no JSON": "task error", "taken": "task error",
    }  # fmt: skip
    assert found["raises"].message == "RuntimeError: out of luck"
    assert found["raises"].task == "count"
    assert "energy" in found["raises"].values  # of the task before
    assert len(list(records(tmp_path / "r.db"))) == len(crystals)
    assert "11 failed" in str(run.summary)


@dataclass(frozen=True)
class Nothing:
    """Asks about no structure, twice."""

    name: ClassVar[str] = "nothing"
    columns: ClassVar[Mapping[str, str]] = {"answers": ""}

    def run(self, crystal: Crystal) -> Iterator[Ask]:
        first = yield Ask([])
        second = yield Ask([], forces=False)
        return {"answers": len(first) + len(second)}


def test_a_question_about_nothing_is_answered(model: Path, metals: list[Atoms]) -> None:
    with screen(metals[:3], [Nothing(), "energy"], model=model) as run:
        found = list(run)
    balanced(run)
    assert [record.values["answers"] for record in found] == [0, 0, 0]


def test_a_run_goes_on_and_repeats_nothing(model: Path, metals: list[Atoms], tmp_path: Path) -> None:
    out = tmp_path / "r.db"
    with screen(metals[:5], "energy", out, model=model) as first:
        next(first)
    some = len(list(records(out)))
    assert 1 <= some <= 5
    with screen(metals, "energy", out, model=model) as second:
        new = list(second)
    balanced(second)
    assert second.summary.before == some
    assert len(new) == len(metals) - some
    with screen(metals, "energy", out, model=model) as third:
        assert list(third) == []
    assert third.summary.before == len(metals)
    assert len({r.key for r in records(out)}) == len(metals)
    with pytest.raises(ValueError, match="made otherwise"):
        screen(metals, "relax", out, model=model)


def test_other_weights_or_references_are_other_settings(model: Path, metals: list[Atoms], tmp_path: Path) -> None:
    network = load_model(model)
    for _ in range(2):  # the same weights are the same settings
        with screen(metals[:1], "energy", tmp_path / "r.db", model=network) as run:
            list(run)
    assert run.summary.before == 1
    with torch.no_grad():
        network.scale += 1
    with pytest.raises(ValueError, match="made otherwise"):
        screen(metals[:1], "energy", tmp_path / "r.db", model=network)
    reference = tmp_path / "elements.csv"
    reference.write_text("formula,energy_per_atom\nCu,-0.5\n")
    settings = {"model": model, "options": {"hull.reference": str(reference)}}
    with screen(metals[:1], "hull", tmp_path / "h.db", **settings) as run:
        list(run)
    reference.write_text("formula,energy_per_atom\nCu,-0.6\n")
    with pytest.raises(ValueError, match="made otherwise"):
        screen(metals[:1], "hull", tmp_path / "h.db", **settings)


def test_not_converged_keeps_its_values(model: Path, metals: list[Atoms]) -> None:
    (record,) = screen(metals[1], "relax,energy", model=model, options={"relax.max_steps": "1"})
    assert (record.status, record.task, record.reason) == (FAILED, "relax", "not converged")
    assert record.values["relax_steps"] == 1
    assert record.values["relax_force"] > 0.02


def test_duplicates(model: Path, metals: list[Atoms]) -> None:
    pytest.importorskip("pymatgen")
    double = metals[0] * (1, 1, 2)
    crystals = [("a", metals[0]), ("b", metals[0]), ("c", double), ("d", metals[2])]
    for unique, same in (("exact", {"b": "a"}), ("structure", {"b": "a", "c": "a"})):
        with screen(crystals, "energy", model=model, unique=unique) as run:
            found = list(run)
        balanced(run)
        assert {r.id: r.message for r in found if r.status == "duplicate"} == same


def test_equation_of_state_and_elastic_constants(model: Path) -> None:
    volumes = np.linspace(9, 11, 7)
    x = (10 / volumes) ** (2 / 3)  # a Birch-Murnaghan curve: V0 = 10, B = 0.5, B' = 4.5
    energies = -3 + 9 * 10 * 0.5 / 16 * ((x - 1) ** 3 * 4.5 + (x - 1) ** 2 * (6 - 4 * x))
    np.testing.assert_allclose(birch_murnaghan(volumes, energies), (10, -3, 0.5, 4.5), rtol=1e-6)
    options = {"relax.fmax": 1e-4, "eos.strain": 0.02}
    (record,) = screen(bulk("Cu", a=4.0), "relax,eos,elastic", model=model, options=options, dtype="float64")
    assert record.status == DONE, record.message
    constants = np.array(record.values["elastic_constants"])
    assert record.values["bulk_modulus"] == pytest.approx(constants[:3, :3].mean(), rel=0.01)
    assert record.values["bulk_modulus_vrh"] == pytest.approx(record.values["bulk_modulus"], rel=0.01)
    np.testing.assert_allclose(constants[3:, 3:], constants[3, 3] * np.eye(3), atol=0.05)
    np.testing.assert_allclose(constants[0, 1], constants[3, 3], rtol=0.01)  # Cauchy: pair forces alone


def test_elastic_constants_are_those_of_the_standard_axes(model: Path) -> None:
    atoms = bulk("Cu", a=4.0)
    turned = atoms.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    crystals = [atoms, bulk("Cu", a=4.0, cubic=True), turned]
    found = [
        np.array(record.values["elastic_constants"])
        for record in screen(crystals, "elastic", model=model, dtype="float64")
    ]
    for constants in found:
        np.testing.assert_allclose(constants, found[1], atol=1e-6 * np.abs(constants).max())
        np.testing.assert_allclose(np.diag(constants)[:3], constants[0, 0])


def test_an_equation_of_state_without_a_minimum_names_the_pressure(model: Path) -> None:
    (record,) = screen(bulk("Cu", a=3.2), "eos", model=model)
    assert record.reason == "not converged"
    assert re.search(r"the pressure is about \d+\.\d GPa there", record.message)


def test_hull(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pymatgen")
    (tmp_path / "elements.csv").write_text("formula,energy_per_atom\nCu,-0.5\n,\nAg,\nAu,-0.3\n")  # Ag failed
    alloy = bulk("Cu", a=4.0, cubic=True)
    alloy.symbols[:2] = "Au"
    options = {"hull.reference": str(tmp_path / "elements.csv")}
    found = {r.id: r for r in screen([alloy, bulk("Ag", a=4.0)], "energy,hull", model=model, options=options)}
    values = found["structure-0"].values
    assert values["formation_energy"] == pytest.approx(values["energy_per_atom"] + 0.4, abs=1e-6)
    assert values["energy_above_hull"] == pytest.approx(values["formation_energy"], abs=1e-6)
    assert found["structure-1"].reason == "no reference"


def test_rows_that_are_not_done_are_no_references(tmp_path: Path) -> None:
    rows = "formula,energy_per_atom,status\nCu,-0.5,done\nAu,-9.0,failed\nAg,,failed\nAu,-0.3,done\n"
    (tmp_path / "screened.csv").write_text(rows)
    assert list(read_references(tmp_path / "screened.csv")) == [("Cu", -0.5), ("Au", -0.3)]


@pytest.mark.parametrize("row", ["O2,abc", "O2,nan", ",-1.0", "nothing"])
def test_a_hull_reference_is_read_before_the_first_crystal(row: str, tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text(f"formula,energy_per_atom\nMg,-1.5\n{row}\n")
    with pytest.raises(ValueError, match=r"hull\.reference: "):
        make_tasks("hull", {"hull.reference": str(tmp_path / "reference.csv")})
    (tmp_path / "empty.csv").write_text("formula,energy_per_atom\n")
    with pytest.raises(ValueError, match=r"hull\.reference: .* holds no phase"):
        make_tasks("hull", {"hull.reference": str(tmp_path / "empty.csv")})


def test_properties_of_overlapping_atoms_are_refused() -> None:
    close = bulk("MgO", "rocksalt", a=4.2)
    close.positions[1] = close.positions[0] + [0.15, 0, 0]
    found = list(screen([bulk("MgO", "rocksalt", a=4.2), close], "property:band_gap", device="cpu"))
    assert [record.reason for record in found] == ["", "exploded"]
    assert "0.3" in found[1].message


def test_phonon_stability(model: Path) -> None:
    pytest.importorskip("phonopy")
    pytest.importorskip("symfc")
    options = {"phonon-stability.height": 7.0}
    (fcc,) = screen(bulk("Cu", a=4.0), "relax,phonon-stability", model=model, options=options)
    assert fcc.status == DONE, fcc
    assert fcc.values["phonon_stable"] is True
    square = bulk("Po", "sc", a=2.85)  # pair forces shear it
    (sc,) = screen(square, "phonon-stability", model=model, options=options)
    assert sc.status == DONE, sc
    assert sc.values["phonon_stable"] is False
    assert sc.values["lowest_frequency"] < -0.3


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ("relaxx", {}, "tasks: there is no task 'relaxx'; did you mean 'relax'"),
        ("relax", {"relax.fmx": 1}, "relax has no option 'fmx'; did you mean 'fmax'"),
        ("relax", {"eos.points": 7}, "'eos.points' names no task of this run"),
        ("relax", {"relax.fmax": "small"}, "relax.fmax wants float, got 'small'"),
        ("relax", {"relax.fmax": -1.0}, "relax.fmax: wanted a positive force"),
        ("relax", {"relax.symprec": 2.0}, "relax.symprec: wanted a length from 0 to 0.5"),
        ("relax", {"relax.max_steps": -1}, "relax.max_steps: wanted a number from 0"),
        ("energy,hull", {}, "hull.reference: wanted a file"),
        ("", {}, "tasks: wanted at least one"),
    ],
)
def test_wrong_tasks(tasks: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make_tasks(tasks, options)
