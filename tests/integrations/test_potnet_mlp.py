from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from phonopy import Phonopy

from ase_potnet.integrations import PotNetMLP
from ase_potnet.integrations.potnet_mlp import to_atoms, to_phonopy

from . import lennard_jones


def rattled(n: int, seed: int = 0) -> list[Atoms]:
    """Cells of four atoms, each displaced and strained in its own way."""
    rng = np.random.default_rng(seed)
    cells = []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=4.7, cubic=True)
        atoms.symbols[0] = "Kr"
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        cells.append(atoms)
    return cells


def test_values_are_those_of_ase_in_the_order_of_phonopy() -> None:
    cells = rattled(3)
    energies, forces, stresses = PotNetMLP(lennard_jones.model()).evaluate([to_phonopy(atoms) for atoms in cells])
    assert (energies.shape, forces.shape, stresses.shape) == ((3,), (3, 4, 3), (3, 6))
    for k, atoms in enumerate(cells):
        atoms.calc = lennard_jones.ase_calculator()
        assert energies[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(forces[k], atoms.get_forces(), atol=1e-10)
        s = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(stresses[k], [s[0, 0], s[1, 1], s[2, 2], s[0, 1], s[1, 2], s[2, 0]], atol=1e-10)


def test_pairs_that_phono3py_leaves_out() -> None:
    first, second = (to_phonopy(atoms) for atoms in rattled(2))
    mlp = PotNetMLP(lennard_jones.model())
    energies, forces, stresses = mlp.evaluate([None, first, None, second])
    whole = mlp.evaluate([first, second])
    for values, expected in zip((energies, forces, stresses), whole, strict=True):
        np.testing.assert_array_equal(values[[1, 3]], expected)
    assert np.isnan(energies[[0, 2]]).all()
    assert not forces[[0, 2]].any()


def test_batches_and_progress() -> None:
    cells = [to_phonopy(atoms) for atoms in rattled(5)]
    seen: list[tuple[int, int, int]] = []
    calls: list[int] = []
    model = lennard_jones.model()
    model.register_forward_hook(lambda *_: calls.append(1))
    one = PotNetMLP(model, batch_size=1, progress=lambda done, total: seen.append((done, total, len(calls))))
    for a, b in zip(one.evaluate(cells), PotNetMLP(lennard_jones.model()).evaluate(cells), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert seen == [(k, 5, k) for k in range(1, 6)]  # told as they are done


def test_the_given_model_stays_as_it_is() -> None:
    model = lennard_jones.model().float()
    PotNetMLP(model)
    assert model.scale.dtype == torch.float32
    assert model.scale.requires_grad


def test_copies_give_the_same() -> None:
    cell = to_phonopy(rattled(1)[0])
    mlp = PotNetMLP(lennard_jones.model())
    expected = mlp.evaluate([cell])[1]
    for other in (copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))):
        np.testing.assert_array_equal(other.evaluate([cell])[1], expected)


def test_bad_supercells_are_named() -> None:
    mlp = PotNetMLP(lennard_jones.model())
    cell = to_phonopy(rattled(1)[0])
    with pytest.raises(ValueError, match="same number of atoms"):
        mlp.evaluate([cell, to_phonopy(bulk("Ar", "fcc", a=4.7))])
    broken = cell.copy()
    broken.scaled_positions = np.full((4, 3), np.nan)
    with pytest.raises(ValueError, match=r"structures\[1\].*finite"):
        mlp.evaluate([cell, broken])
    with pytest.raises(ValueError, match="dtype"):
        PotNetMLP(lennard_jones.model(), dtype="half")


def test_stands_in_phonopys_slot() -> None:
    """Random displacements, fitted by symfc, against finite displacements."""
    atoms = bulk("Ar", "fcc", a=4.6)
    ph = Phonopy(to_phonopy(atoms), supercell_matrix=2 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]))
    ph.mlp = PotNetMLP(lennard_jones.model())
    frequencies = []
    for options in ({"distance": 0.005}, {"distance": 0.001, "number_of_snapshots": 4, "random_seed": 1}):
        ph.generate_displacements(**options)
        ph.evaluate_mlp()
        assert np.isfinite(ph.supercell_energies).all()
        ph.produce_force_constants(fc_calculator="symfc")
        frequencies.append(ph.run_qpoints([[0.5, 0.5, 0], [0.1, 0.2, 0.3]]).frequencies)
    np.testing.assert_allclose(frequencies[0], frequencies[1], atol=1e-2)
    assert frequencies[0].max() > 1


def test_sscha_runs() -> None:
    from phonopy.sscha.core import MLPSSCHA

    ph = Phonopy(to_phonopy(bulk("Ar", "fcc", a=4.6)), supercell_matrix=(2, 2, 2))
    ph.nac_params = None
    run = MLPSSCHA(
        ph, PotNetMLP(lennard_jones.model()), number_of_snapshots=20, max_iterations=1, temperature=20, random_seed=1
    )
    for _ in run:
        pass
    assert np.isfinite(run.free_energy)
    assert run.force_constants.shape[-2:] == (3, 3)


def test_structures_of_other_packages() -> None:
    from pymatgen.core import Structure

    atoms = rattled(1)[0]
    structure = Structure(atoms.cell.array, list(atoms.symbols), atoms.get_scaled_positions())
    for other in (structure, to_phonopy(atoms), atoms):
        got = to_atoms(other)
        assert list(got.symbols) == list(atoms.symbols)
        np.testing.assert_allclose(got.cell.array, atoms.cell.array, atol=1e-12)
        got.positions -= atoms.positions
        turns = got.get_scaled_positions(wrap=False)
        np.testing.assert_allclose(turns, np.rint(turns), atol=1e-10)


def test_masses_are_kept() -> None:
    atoms = bulk("Ar", "fcc", a=4.7)
    atoms.set_masses([36.0])
    assert to_phonopy(atoms).masses == pytest.approx([36.0])
    assert to_atoms(to_phonopy(atoms)).get_masses() == pytest.approx([36.0])


def test_slabs_have_no_phonons_here() -> None:
    atoms = bulk("Ar", "fcc", a=4.7)
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match=r"structure.*three periodic"):
        to_atoms(atoms)
    with pytest.raises(ValueError, match=r"structure must have at least one atom"):
        to_atoms(Atoms(pbc=True, cell=[1, 1, 1]))
