"""The cell must not matter: the same crystal written in any way has one prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

from ase_potnet.graph import batch_structures
from ase_potnet.lattice import Coulomb, InversePower, London, Pauli, pair_sums
from ase_potnet.models import build_model
from ase_potnet.models.complete_channel import CompleteChannel, needs_neutral_sources

from .crystals import CRYSTALS, predict, ready, rewritten, supercells
from .test_property_models import SMALL


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return ready(build_model("invariant-potnet", SMALL["invariant-potnet"]))


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_way_to_write_a_crystal(model, name):
    atoms = CRYSTALS[name]
    wanted = predict(model, atoms)
    for change, same in (rewritten(atoms) | supercells(atoms)).items():
        torch.testing.assert_close(
            predict(model, same), wanted, rtol=1e-9, atol=1e-9, msg=lambda m, c=change: f"{c}: {m}"
        )


def test_a_large_supercell_without_matrix_of_pairs(model):
    atoms = CRYSTALS["rocksalt"]
    large = atoms * (5, 4, 4)
    assert len(large) > 128
    torch.testing.assert_close(predict(model, large), predict(model, atoms), rtol=1e-8, atol=1e-9)


@pytest.mark.slow
def test_default_network():
    torch.manual_seed(0)
    default = ready(build_model("invariant-potnet"))
    for atoms in CRYSTALS.values():
        for same in (rewritten(atoms) | supercells(atoms)).values():
            torch.testing.assert_close(predict(default, same), predict(default, atoms), rtol=1e-9, atol=1e-9)


def test_the_published_form_moves_with_the_cell(model):
    """More than crystals differ from one another; ours does not move."""
    torch.manual_seed(1)
    published = ready(build_model("potnet", SMALL["potnet"]))
    atoms = CRYSTALS["rocksalt"]
    cells = [atoms, rewritten(atoms)["another basis"], *supercells(atoms).values()]
    crystals = [
        bulk(name, "rocksalt", a=a) for name, a in (("MgO", 4.21), ("KCl", 6.29), ("LiF", 4.03), ("NaCl", 5.64))
    ]
    moved = np.ptp(predict(published, *cells).numpy())
    assert moved > 0.1 * np.ptp(predict(published, *crystals).numpy())
    assert np.ptp(predict(model, *cells).numpy()) < 1e-9
    assert np.ptp(predict(model, *crystals).numpy()) > 1e-3


def test_smooth_through_the_cutoff(model):
    """No step in value or slope as a neighbour crosses the cut-off."""
    atoms = bulk("NaCl", "cesiumchloride", a=4.0)
    step = 1e-3
    lengths = 5.0 + step * np.arange(-6, 7)
    values = []
    for length in lengths:
        atoms.set_cell(np.diag([length, 4.0, 4.0]))
        atoms.positions[1] = [1.9, 2.0, 2.0]
        values.append(predict(model, atoms).item())
    second = np.diff(values, 2) / step**2
    assert np.abs(np.diff(second)).max() < 0.1 * (np.abs(second).max() + 1e-3)


def test_complete_channel_is_pair_sums_times_sources():
    potentials = (Coulomb(), London(), Pauli(3.0))
    structures = [*CRYSTALS.values(), bulk("Si") * (3, 3, 2), bulk("NaCl", "rocksalt", a=5.64) * (5, 4, 4)]
    batch = batch_structures(structures)
    sources = torch.randn(len(batch.numbers), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = CompleteChannel(batch, potentials, 1e-8).potentials(sources)
    assert found.shape == (len(batch.numbers), 2, 3)
    first = 0
    for atoms in structures:
        rows = slice(first, first + len(atoms))
        first += len(atoms)
        sums = pair_sums(torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array), potentials)
        charges = torch.stack((sources[rows] - sources[rows].mean(0), sources[rows], sources[rows]))
        wanted = torch.einsum("ijk,kjc->ick", sums, charges)
        torch.testing.assert_close(found[rows], wanted, rtol=0, atol=2e-6)


def test_which_potentials_need_neutral_sources():
    assert needs_neutral_sources(Coulomb())
    assert needs_neutral_sources(InversePower(3))
    assert not any(needs_neutral_sources(potential) for potential in (London(), Pauli(3.0), InversePower(4)))


def test_channel_with_derivatives():
    batch = batch_structures([CRYSTALS["perovskite"], bulk("Si")])
    channel = CompleteChannel(batch, (Coulomb(), London()), 1e-9)
    sources = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(channel.potentials, sources)


def test_derivatives_with_respect_to_positions(model):
    batch = batch_structures([CRYSTALS["perovskite"]])

    def value(positions):
        return model(batch.moved(positions, batch.cell))

    assert torch.autograd.gradcheck(value, batch.positions.clone().requires_grad_(), atol=1e-6, rtol=1e-4)
