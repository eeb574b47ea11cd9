"""PotNetCalculator as ASE users expect it, with random weights."""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError, get_calculator_class
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet

import ase_potnet
from ase_potnet import PotNetCalculator, evaluate, load_model, predict
from ase_potnet.models import build_model
from ase_potnet.pretrained import save_model

OPTIONS = {"width": 8, "message_width": (4, 2, 2), "n_sources": 2}


@pytest.fixture(scope="module")
def network(random_network: Callable[..., Any]) -> torch.nn.Module:
    return random_network("equivariant-potnet", **OPTIONS)


@pytest.fixture(scope="module")
def folder(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(network, tmp_path_factory.mktemp("models") / "random", task="energy")


def test_a_calculator_that_cannot_be_made_leaves_the_atoms_alone() -> None:
    atoms = bulk("Cu")
    with pytest.raises(ValueError, match="model"):
        PotNetCalculator("nosuch", atoms=atoms)
    assert atoms.calc is None


def test_inference_mode_changes_nothing(network: torch.nn.Module) -> None:
    atoms, plain = salt(), salt()
    plain.calc = PotNetCalculator(network, device="cpu")
    with torch.inference_mode():
        atoms.calc = PotNetCalculator(network, device="cpu")
        forces = atoms.get_forces()
        (result,) = evaluate(atoms, network, device="cpu")
    assert np.array_equal(forces, plain.get_forces())
    np.testing.assert_allclose(result.forces, forces, atol=1e-12)
    for moved in (atoms, plain):  # with what the calculator has kept
        moved.positions[0, 0] += 0.01
    np.testing.assert_allclose(atoms.get_forces(), plain.get_forces(), atol=1e-12)


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.05, seed=1)
    return atoms


def forces_of(calculator: PotNetCalculator, atoms: Atoms | None = None) -> Any:
    atoms = (atoms or salt()).copy()
    atoms.calc = calculator
    return atoms.get_forces()


def test_results_are_the_slopes_of_the_energy(folder: Path) -> None:
    atoms = salt()
    atoms.calc = PotNetCalculator(folder)
    assert atoms.get_potential_energy() == pytest.approx(atoms.get_potential_energies().sum())
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    stress = atoms.get_stress()
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)
    np.testing.assert_allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)


def test_same_numbers_as_evaluate(folder: Path) -> None:
    atoms = salt()
    (expected,) = evaluate(atoms, folder)
    atoms.calc = PotNetCalculator(folder)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-9)
    np.testing.assert_allclose(atoms.get_stress(), expected.stress, atol=1e-10)


def test_all_results_come_from_one_pass(network: torch.nn.Module) -> None:
    calculator = PotNetCalculator(network)
    calls: list[int] = []
    calculator.model.register_forward_hook(lambda *_: calls.append(1))
    atoms = salt()
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    atoms.get_potential_energies()
    assert len(calls) == 1
    atoms.set_initial_charges([1, -1])
    atoms.set_initial_magnetic_moments([1, 1])
    atoms.get_forces()
    assert len(calls) == 1
    atoms.positions[0, 0] += 1e-3
    atoms.get_forces()
    assert len(calls) == 2


def test_implemented_properties_are_never_changed(folder: Path) -> None:
    before = list(PotNetCalculator.implemented_properties)
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    slab.calc = PotNetCalculator(folder)
    slab.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        slab.get_stress()
    with pytest.raises(PropertyNotImplementedError):
        slab.get_stresses()
    assert slab.calc.implemented_properties == before == PotNetCalculator.implemented_properties
    assert "stress" in before


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 1, 0), (1, 1, 1)])
def test_float32_of_atoms_far_from_the_origin(folder: Path, pbc: tuple[int, int, int]) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.pbc = pbc
    away = atoms.copy()
    turns = np.random.default_rng(0).integers(-1000, 1000, (len(atoms), 3)) * atoms.pbc
    away.positions += turns @ atoms.cell.array + 1e4 * ~atoms.pbc
    exact = forces_of(PotNetCalculator(folder), atoms)
    single = PotNetCalculator(folder, dtype="float32")
    np.testing.assert_allclose(forces_of(single, away), exact, atol=2e-5)
    away.calc = single
    away.positions[0, 0] += 1e-3  # the same cell again: only positions are read anew
    atoms.positions[0, 0] += 1e-3
    np.testing.assert_allclose(away.get_forces(), forces_of(PotNetCalculator(folder), atoms), atol=2e-5)
    one = PotNetCalculator(folder, dtype="float32")
    forces_of(one, atoms)
    np.testing.assert_allclose(forces_of(one, away), away.get_forces(), atol=2e-5)  # far after near
    (found,) = evaluate(away, folder, dtype="float32")
    np.testing.assert_allclose(found.forces, away.get_forces(), atol=2e-5)


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 1), (1, 1, 1)])
def test_any_periodicity(folder: Path, pbc: tuple[int, int, int]) -> None:
    atoms = molecule("H2O", vacuum=4.0)
    atoms.pbc = pbc
    atoms.calc = PotNetCalculator(folder)
    assert np.isfinite(atoms.get_potential_energy())
    np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-9)
    single = Atoms("Fe", cell=[9, 9, 9], pbc=pbc, calculator=atoms.calc)
    np.testing.assert_allclose(single.get_forces(), 0, atol=1e-9)


def test_neighbour_list_of_a_moving_crystal(folder: Path) -> None:
    """A trajectory with the skin is that without."""
    ends = []
    for skin in (0.0, 0.5):
        atoms = salt().repeat((2, 1, 1))
        atoms.calc = PotNetCalculator(folder, skin=skin)
        atoms.set_momenta(np.random.default_rng(0).normal(size=(4, 3)))
        VelocityVerlet(atoms, 2 * units.fs).run(12)
        ends.append(atoms.positions)
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-8)


def test_deterministic_and_leaves_torch_alone(folder: Path) -> None:
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().sum(), torch.is_grad_enabled())
    first, second = (forces_of(PotNetCalculator(folder)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    after = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().sum(), torch.is_grad_enabled())
    assert before == after


def test_a_loaded_model_is_copied(network: torch.nn.Module) -> None:
    double, single = PotNetCalculator(network), PotNetCalculator(network, dtype="float32")
    assert next(network.parameters()).requires_grad
    np.testing.assert_allclose(forces_of(double), forces_of(single), atol=1e-3)
    assert forces_of(double).dtype == np.float64


def test_copies_and_pickles(folder: Path) -> None:
    calculator = PotNetCalculator(folder)
    expected = forces_of(calculator)
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        np.testing.assert_array_equal(forces_of(other), expected)
        assert other.parameters == calculator.parameters


def test_threads(folder: Path) -> None:
    calculators = [PotNetCalculator(folder) for _ in range(4)]
    frames = [salt() for _ in range(4)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.02, seed=k)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(forces_of, calculators, frames))
    for forces, atoms in zip(found, frames, strict=True):
        np.testing.assert_allclose(forces, forces_of(calculators[0], atoms), atol=1e-12)


@pytest.mark.slow
def test_processes(folder: Path) -> None:
    calculator = PotNetCalculator(folder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        atoms = salt()
        atoms.calc = calculator
        (found,) = pool.map(Atoms.get_forces, [atoms])
    np.testing.assert_allclose(found, forces_of(calculator), atol=1e-12)


def test_parameters_are_json(folder: Path, network: torch.nn.Module) -> None:
    settings = json.loads(json.dumps(PotNetCalculator(folder, tolerance=1e-8).todict()))
    assert settings["model"] == str(folder)
    assert settings["version"] == ase_potnet.__version__
    assert len(settings["sha256"]) == 64
    assert settings["tolerance"] == 1e-8
    assert json.loads(json.dumps(PotNetCalculator(network).todict()))["model"] == "EquivariantPotNet"


def test_tolerance_is_used(folder: Path) -> None:
    exact, coarse = (forces_of(PotNetCalculator(folder, tolerance=tolerance)) for tolerance in (1e-12, 1e-2))
    assert not np.array_equal(exact, coarse)
    np.testing.assert_allclose(exact, coarse, atol=0.1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"modle": "default"}, "no keyword 'modle', did you mean 'model'"),
        ({"devise": "cpu"}, "did you mean 'device'"),
        ({"dtype": "float16"}, "dtype: wanted 'float64' or 'float32', got 'float16'"),
        ({"device": "toaster"}, "device: wanted"),
        ({"skin": -1.0}, "skin: wanted"),
        ({"skin": float("inf")}, "skin: wanted"),
        ({"skin": "a"}, "skin: wanted"),
        ({"tolerance": "1e-5"}, "tolerance: wanted"),
        ({"tolerance": 0.0}, "tolerance: wanted"),
        ({"model": "nowhere"}, "model: no packaged model"),
        ({"model": torch.nn.Linear(1, 1)}, "model: wanted an interatomic potential, got Linear"),
    ],
)
def test_wrong_keywords(folder: Path, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PotNetCalculator(**({"model": folder} | keywords))


def test_a_calculator_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot be changed"):
        PotNetCalculator(folder).set(dtype="float32")


def with_nan() -> Atoms:
    atoms = salt()
    atoms.positions[0, 0] = np.nan
    return atoms


def overlapping() -> Atoms:
    return Atoms("NaCl", positions=[[0, 0, 0], [0.2, 0, 0]], cell=[6, 6, 6], pbc=True)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "atoms must have at least one atom"),
        (with_nan(), "atoms must have finite positions"),
        (Atoms("Na", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "atoms must have independent periodic lattice"),
        (Atoms("Lr", cell=[6, 6, 6], pbc=True), "atoms must hold .*Lr"),
        (Atoms("X", cell=[6, 6, 6], pbc=True), "atoms must hold atomic numbers"),
        (overlapping(), r"Na \(atom 0\) and Cl \(atom 1\) are 0.200 Å apart"),
        (Atoms("Na2", positions=np.zeros((2, 3))), "are 0.000 Å apart"),
        (Atoms("Na", cell=[0.25, 6, 6], pbc=True), "are 0.250 Å apart"),
    ],
)
def test_impossible_atoms(folder: Path, atoms: Atoms, message: str) -> None:
    atoms.calc = PotNetCalculator(folder)
    for _ in range(2):  # nothing stale is left behind
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()
    assert not atoms.calc.results


def test_works_again_after_an_error(folder: Path) -> None:
    calculator = PotNetCalculator(folder)
    expected = forces_of(calculator)
    with pytest.raises(ValueError, match="finite"):
        forces_of(calculator, with_nan())
    np.testing.assert_array_equal(forces_of(calculator), expected)


def test_pymatgen_relaxes_and_calculates(folder: Path) -> None:
    from pymatgen.core import Molecule, Structure

    structure = Structure([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]], ["Na", "Cl"], [[0, 0, 0], [0.45, 0.5, 0.5]])
    calculator = PotNetCalculator(folder)
    done = structure.calculate(calculator=calculator)
    assert {"energy", "forces", "stress"} <= set(done.results)
    before = float(done.results["energy"])
    relaxed = structure.relax(calculator=calculator, steps=3, fmax=1e-6)
    assert isinstance(relaxed, Structure)
    assert relaxed.calc.results["energy"] < before
    water = Molecule(["O", "H", "H"], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    assert isinstance(water.relax(calculator=calculator, steps=2), Molecule)
    with pytest.warns(UserWarning, match="stress_weight is ignored"):
        PotNetCalculator(folder, stress_weight=0.01)


def test_ase_finds_it_by_name(folder: Path) -> None:
    ase_potnet.register()
    ase_potnet.register()
    assert get_calculator_class("potnet") is PotNetCalculator


def test_ase_plugin_is_light() -> None:
    pytest.importorskip("ase._4.plugins.plugin", reason="this ASE has no plugins yet")
    code = """
import sys
from ase_potnet.integrations.ase_plugin import __ase_plugins__
assert not {"torch", "ase_potnet.calculator"}.intersection(sys.modules)
(plugin,) = __ase_plugins__
assert plugin.name == "potnet"
print(plugin.implementation.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "PotNetCalculator"


def test_packaged_weights() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = PotNetCalculator()
    assert np.isfinite(atoms.get_potential_energy())
    np.testing.assert_allclose(atoms.get_forces(), 0, atol=1e-6)


def test_a_property_model_is_no_potential() -> None:
    network = load_model("jarvis")
    member = {"model": "equivariant-properties", "options": dataclasses.asdict(network.config)}
    for model in (network, build_model("mean-of-models", {"members": [member]})):
        with pytest.raises(ValueError, match=r"model: .* predicts properties, not energies"):
            evaluate(bulk("Cu"), model)
        with pytest.raises(ValueError, match=r"model: .* predicts properties, not energies"):
            PotNetCalculator(model)


def test_a_loaded_model_stays_as_it_is(network: torch.nn.Module) -> None:
    mine = copy.deepcopy(network).train()
    double, single = evaluate(bulk("Cu"), mine), evaluate(bulk("Cu"), mine, dtype=torch.float32)
    assert next(double).energy == pytest.approx(next(single).energy, rel=1e-4)
    assert mine.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float64 for parameter in mine.parameters())


@pytest.mark.parametrize("distance", [0.0, 0.05, 0.2])
def test_overlapping_atoms_are_refused_in_batches(distance: float) -> None:
    overlap = Atoms("Cu2", [[0, 0, 0], [0, 0, distance]], cell=[4, 4, 4], pbc=True)
    for results in (evaluate([bulk("Cu"), overlap]), predict([bulk("Cu"), overlap])):
        with pytest.raises(ValueError, match=r"structures\[1\].* apart"):
            list(results)


def test_tuples_with_flags() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    (expected,) = evaluate(atoms)
    for numbers in (atoms.numbers, (11, 17)):
        (found,) = evaluate((numbers, atoms.positions, atoms.cell.array, (True, True, True)))
        assert found.energy == pytest.approx(expected.energy, abs=1e-10)


@pytest.mark.parametrize("where", [0.0, 0.5])
def test_large_empty_cells_in_float32(where: float) -> None:
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=0)
    ethanol.set_cell([300.0] * 3)
    ethanol.center(about=[300.0 * where] * 3)  # at a corner of the cell, too
    ethanol.pbc = True
    single, double = (forces_of(PotNetCalculator("default", dtype=dtype), ethanol) for dtype in ("float32", "float64"))
    np.testing.assert_allclose(single, double, atol=2e-5)
