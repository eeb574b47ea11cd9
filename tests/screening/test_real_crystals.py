"""Tasks on real crystals with the packaged potential, against the calculator, ASE, phonopy and pymatgen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.eos import EquationOfState
from ase.spacegroup import crystal
from ase.units import GPa

from ase_potnet import PotNetCalculator, predict
from ase_potnet.screening import Record, records, screen

RUTILE = {"spacegroup": 136, "cellpar": [4.594, 4.594, 2.959, 90, 90, 90]}
ANATASE = {"spacegroup": 141, "cellpar": [3.785, 3.785, 9.514, 90, 90, 90]}
CRYSTALS = {
    "MgO": bulk("MgO", "rocksalt", a=4.211),
    "Si": bulk("Si", "diamond", a=5.431),
    "rutile": crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], **RUTILE),
}
OPTIONS = {"relax.fmax": 1e-3, "elastic.fmax": 1e-3, "eos.strain": 0.03, "phonon-stability.height": 7.0}
ELEMENTS = {
    "Cu": bulk("Cu", a=3.615),
    "Au": bulk("Au", a=4.078),
    "Pd": bulk("Pd", a=3.89),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Record]:
    tasks = "relax,energy,eos,elastic,phonon-stability,property:formation_energy_per_atom"
    every = {r.id: r for r in screen(CRYSTALS.items(), tasks, options=OPTIONS, dtype="float64", device="cpu")}
    assert {name: (r.status, r.message) for name, r in every.items()} == dict.fromkeys(CRYSTALS, ("done", ""))
    return every


@pytest.fixture(scope="module")
def calculator() -> PotNetCalculator:
    return PotNetCalculator(device="cpu")


def relaxed(record: Record) -> Atoms:
    assert record.atoms is not None
    return record.atoms.copy()


@pytest.mark.parametrize("name", CRYSTALS)
def test_bulk_modulus_is_that_of_ase(found: dict[str, Record], calculator: PotNetCalculator, name: str) -> None:
    atoms = relaxed(found[name])
    atoms.calc = calculator
    cell, volumes, energies = atoms.cell.copy(), [], []
    for strain in np.linspace(-0.03, 0.03, 7):
        atoms.set_cell(cell * (1 + strain) ** (1 / 3), scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    volume, _, modulus = EquationOfState(volumes, energies, "birchmurnaghan").fit(warn=False)
    assert found[name].values["bulk_modulus"] == pytest.approx(modulus / GPa, rel=0.02)
    assert found[name].values["eos_volume_per_atom"] == pytest.approx(volume / len(atoms), rel=1e-3)
    measured = {"MgO": 160, "Si": 98, "rutile": 210}[name]
    assert 0.5 * measured < found[name].values["bulk_modulus"] < 1.7 * measured


@pytest.mark.parametrize("name", CRYSTALS)
def test_elastic_constants_are_slopes_of_the_stress(
    found: dict[str, Record], calculator: PotNetCalculator, name: str
) -> None:
    from ase.optimize import BFGS

    constants = np.array(found[name].values["elastic_constants"])
    np.testing.assert_allclose(constants, constants.T)
    for component in (0, 3):  # xx, yz
        slopes = []
        for sign in (1, -1):
            atoms = relaxed(found[name])
            strain = np.zeros((3, 3))
            for i, j in {0: [(0, 0)], 3: [(1, 2), (2, 1)]}[component]:
                strain[i, j] = sign * 0.005 * (1.0 if i == j else 0.5)
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            atoms.calc = calculator
            BFGS(atoms, logfile=None).run(fmax=1e-3, steps=100)
            slopes.append(atoms.get_stress())
        expected = (slopes[0] - slopes[1]) / 0.01 / GPa
        np.testing.assert_allclose(constants[component], expected, atol=0.02 * np.abs(constants).max())
    assert found[name].values["mechanically_stable"] is True
    if name != "rutile":  # cubic: three constants
        np.testing.assert_allclose(np.diag(constants)[:3], constants[0, 0], rtol=0.01)
        np.testing.assert_allclose(np.diag(constants)[3:], constants[3, 3], rtol=0.01)
        modulus = (constants[0, 0] + 2 * constants[0, 1]) / 3
        assert found[name].values["bulk_modulus"] == pytest.approx(modulus, rel=0.05)


def test_frequencies_are_those_of_phonopy(found: dict[str, Record]) -> None:
    pytest.importorskip("phonopy")
    pytest.importorskip("symfc")
    from ase_potnet.integrations import phonons

    for name in ("MgO", "Si"):
        values = found[name].values
        assert values["phonon_stable"] is True
        ph = phonons(relaxed(found[name]), supercell=7.0, relax=False, mesh=(2, 2, 2), device="cpu")
        assert len(ph.supercell) == values["phonon_atoms"]
        at_x = ph.run_qpoints([[0.5, 0.5, 0.0]]).frequencies  # commensurate with the cubic supercell
        assert values["lowest_frequency"] <= at_x.min() + 0.02
        assert values["lowest_frequency"] > 0


def test_formation_energy_is_that_of_predict(found: dict[str, Record]) -> None:
    for name, record in found.items():
        (expected,) = predict(relaxed(record), "formation_energy_per_atom", device="cpu", dtype=None)
        assert record.values["formation_energy_per_atom"] == pytest.approx(expected, abs=1e-4), name


def test_hull_is_that_of_pymatgen(tmp_path: Path) -> None:
    diagrams = pytest.importorskip("pymatgen.analysis.phase_diagram")
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    ordered = bulk("Cu", a=3.75, cubic=True)
    ordered.symbols[0] = "Au"  # Cu3Au, L1_2
    layered = bulk("Cu", a=3.9, cubic=True)
    layered.symbols[[0, 1]] = "Au"  # CuAu, L1_0
    palladium = bulk("Cu", a=3.9, cubic=True)
    palladium.symbols[[0, 1]] = ["Pd", "Au"]
    reference = tmp_path / "reference.db"
    list(screen([*ELEMENTS.items(), ("Cu3Au", ordered)], "relax,energy", reference, device="cpu"))
    options = {"hull.reference": str(reference)}
    alloys = {"Cu3Au": ordered, "CuAu": layered, "Cu2PdAu": palladium}
    placed = {r.id: r for r in screen(alloys.items(), "relax,energy,hull", device="cpu", options=options)}
    entries = [ComputedEntry(Composition(r.formula), r.values["energy"]) for r in records(reference)]
    diagram = diagrams.PhaseDiagram(entries)
    for name, record in placed.items():
        assert record.status == "done", record
        entry = ComputedEntry(Composition(record.formula), record.values["energy"])
        above = diagram.get_e_above_hull(entry, allow_negative=True)
        assert record.values["energy_above_hull"] == pytest.approx(above, abs=1e-6), name
        formation = diagram.get_form_energy_per_atom(entry)
        assert record.values["formation_energy"] == pytest.approx(formation, abs=1e-6), name
    assert placed["Cu3Au"].values["energy_above_hull"] == pytest.approx(0, abs=1e-4)  # a phase of the reference


def test_duplicates_of_real_crystals() -> None:
    pytest.importorskip("pymatgen")
    rutile = CRYSTALS["rutile"]
    other_basis = rutile.copy()
    other_basis.set_cell([[1, 1, 0], [0, 1, 0], [0, 0, 1]] @ rutile.cell.array, scale_atoms=False)
    other_basis.positions += [1.1, 0.4, -0.3]
    anatase = crystal(["Ti", "O"], [(0, 0, 0), (0, 0, 0.208)], **ANATASE)
    fluorine = rutile.copy()
    fluorine.symbols[:2] = "Mg"
    fluorine.symbols[2:] = "F"
    sources = [
        ("rutile", rutile), ("basis", other_basis), ("double", rutile * (1, 1, 2)), ("anatase", anatase),
        ("MgF2", fluorine), ("same", rutile),
    ]  # fmt: skip
    for unique, same in (
        ("exact", {"same": "rutile"}),
        ("structure", {"basis": "rutile", "double": "rutile", "same": "rutile"}),
    ):
        with screen(sources, "energy", unique=unique, device="cpu") as run:
            every = {r.id: r for r in run}
        assert {r.id: r.message for r in every.values() if r.status == "duplicate"} == same
        assert run.summary.done + run.summary.duplicates == run.summary.found == len(sources)
