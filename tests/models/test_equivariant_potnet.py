"""The physics that any weights of EquivariantPotNet must obey, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model
from ase_potnet.models.derivatives import Predictions, differentiate
from ase_potnet.models.equivariant_potnet import EquivariantPotNet

SMALL = {"width": 16, "message_width": (8, 4, 2), "n_sources": 2}
VARIANTS = {
    "default": {},
    "local": {"n_sources": 0},
    "fields": {"fields": True},
    "mean": {"neutral": "mean", "fields": True},
    "one cut-off": {"cutoff_per_radius": 0.0},
    "three layers": {"n_layers": 3, "n_radial": (6, 4, 4)},
}


def make_model(options: dict[str, object], seed: int = 0) -> EquivariantPotNet:
    """Random weights, the explicit terms and references included, none of them zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model("equivariant-potnet", SMALL | options).double()
        assert isinstance(model, EquivariantPotNet)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not parameter.any() or name == "site_potentials.strength":
                    parameter.normal_()
        model.set_references(torch.linspace(-5, 5, 95, dtype=torch.float64), 1.3)
        model.set_free_atoms(torch.linspace(3, -2, 95, dtype=torch.float64))
    return model


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> EquivariantPotNet:
    return make_model(VARIANTS[request.param])


def crystals() -> list[Atoms]:
    """Rattled crystals without symmetry, one atom a cell, a slab and a molecule."""
    rng = np.random.default_rng(0)
    salt = bulk("NaCl", "rocksalt", a=5.64)
    wurtzite = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    perovskite = Atoms(
        "SrTiO3",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=[3.9] * 3,
        pbc=True,
    )
    result = [salt, wurtzite, perovskite, bulk("Cu", "fcc", a=3.6)]
    for atoms in result:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    slab.rattle(0.1, rng=rng)
    water = molecule("H2O")
    water.rattle(0.05, rng=rng)
    return [*result, slab, water]


def predict(model: EquivariantPotNet, *structures: Atoms) -> Predictions:
    return differentiate(model, batch_structures(list(structures)))


def energy(model: EquivariantPotNet, atoms: Atoms) -> float:
    with torch.no_grad():
        return float(model(batch_structures(atoms)).sum())


def assert_close(got: torch.Tensor | float, wanted: torch.Tensor | float, tolerance: float = 1e-9) -> None:
    got, wanted = torch.as_tensor(got), torch.as_tensor(wanted)
    scale = max(1.0, float(wanted.abs().max()))
    assert float((got - wanted).abs().max()) <= tolerance * scale, (got, wanted)


def test_forces_are_minus_the_gradient(model: EquivariantPotNet) -> None:
    rng = np.random.default_rng(1)
    for atoms in crystals():
        direction = rng.normal(size=atoms.positions.shape)
        step = 1e-4
        ends = []
        for shift in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions += shift * step * direction
            ends.append(energy(model, moved))
        slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
        forces = predict(model, atoms).forces
        assert forces is not None
        assert slope == pytest.approx(-float((forces.numpy() * direction).sum()), rel=1e-6, abs=1e-8)


def test_stress_is_the_derivative_by_strain(model: EquivariantPotNet) -> None:
    rng = np.random.default_rng(2)
    for atoms in crystals()[:4]:
        direction = rng.normal(size=(3, 3))
        direction = direction + direction.T
        step = 3e-5
        ends = []
        for shift in (-2, -1, 1, 2):
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + shift * step * direction), scale_atoms=True)
            ends.append(energy(model, strained))
        slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
        stress = predict(model, atoms).stress
        assert stress is not None
        wanted = float((stress[0].numpy() * direction).sum()) * atoms.get_volume()
        assert slope == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_stress_needs_three_periodic_directions(model: EquivariantPotNet) -> None:
    stress = predict(model, *crystals()).stress
    assert stress is not None
    assert torch.isfinite(stress[:4]).all()
    assert torch.isnan(stress[4:]).all()


def test_rotation(model: EquivariantPotNet) -> None:
    rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    structures = crystals()
    rotated = []
    for atoms in structures:
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array @ rotation.T)
        copy.positions = atoms.positions @ rotation.T
        rotated.append(copy)
    before, after = predict(model, *structures), predict(model, *rotated)
    turn = torch.from_numpy(rotation)
    assert_close(after.energy, before.energy)
    assert before.forces is not None
    assert after.forces is not None
    assert_close(after.forces, before.forces @ turn.T)
    assert before.stress is not None
    assert after.stress is not None
    assert_close(after.stress[:4], turn @ before.stress[:4] @ turn.T)


def test_order_of_atoms_and_wrapping(model: EquivariantPotNet) -> None:
    rng = np.random.default_rng(3)
    for atoms in crystals():
        order = rng.permutation(len(atoms))
        other = atoms[order]
        other.positions += rng.integers(-3, 4, (len(atoms), 3)) * atoms.pbc @ atoms.cell.array + rng.normal(size=3)
        before, after = predict(model, atoms), predict(model, other)
        assert_close(after.energy, before.energy)
        assert before.forces is not None
        assert after.forces is not None
        assert_close(after.forces, before.forces[torch.from_numpy(order)])


@pytest.mark.parametrize("matrix", [[[1, 1, 0], [0, 1, 0], [0, 2, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]])
def test_basis_change(model: EquivariantPotNet, matrix: list[list[int]]) -> None:
    for atoms in crystals()[:4]:
        other = atoms.copy()
        other.set_cell(np.array(matrix) @ atoms.cell.array)
        assert_close(predict(model, other).energy, predict(model, atoms).energy)


@pytest.mark.parametrize("matrix", [np.diag([2, 1, 1]), np.diag([3, 2, 1]), [[1, 1, 0], [-1, 1, 0], [1, 0, 2]]])
def test_supercells(model: EquivariantPotNet, matrix: object) -> None:
    for atoms in crystals()[:4]:
        cell = make_supercell(atoms, np.array(matrix))
        one, many = predict(model, atoms), predict(model, cell)
        assert_close(many.energy / len(cell), one.energy / len(atoms))
        assert one.stress is not None
        assert many.stress is not None
        assert_close(many.stress, one.stress)


def test_a_batch_does_not_leak(model: EquivariantPotNet) -> None:
    structures = crystals()
    together = predict(model, *structures)
    for index, atoms in enumerate(structures):
        alone = predict(model, atoms)
        assert_close(alone.energy[0], together.energy[index])
        assert alone.forces is not None
        assert together.forces is not None
        rows = batch_structures(structures).batch == index
        assert_close(alone.forces, together.forces[rows])


def test_isolated_atom_has_its_reference_energy(model: EquivariantPotNet) -> None:
    for number in (1, 8, 26, 94):
        alone = Atoms(numbers=[number], positions=[[1.0, 2.0, 3.0]])
        result = predict(model, alone)
        assert_close(result.energy, model.references[number])
        assert result.forces is not None
        assert not result.forces.any()


def test_far_fragments_add_up() -> None:
    """Coulomb sources that flow along bonds leave each fragment neutral; its dipole is felt as 1/r^3."""
    model = make_model({"fields": True})
    water, carbon = molecule("H2O"), molecule("CO2")
    parts = energy(model, water) + energy(model, carbon)
    rest = []
    for distance in (100.0, 200.0):
        moved = carbon.copy()
        moved.positions += [distance, 0, 0]
        rest.append(abs(energy(model, water + moved) - parts))
    assert rest[0] < 1e-3
    assert rest[1] < 0.3 * rest[0]


@pytest.mark.parametrize("absolute", [False, True])
def test_far_molecule_does_not_feel_the_potential_of_a_polar_slab(absolute: bool) -> None:
    """A layer with a net dipole shifts the potential beyond itself at any distance."""
    model = make_model({"absolute": absolute})
    slab = fcc111("Cu", (2, 2, 2), a=3.6)
    slab += Atoms("O", positions=[slab.positions[-1] + [0, 0, 1.2]])
    slab.cell[2] = 0
    slab.pbc = (True, True, False)
    water = Atoms("OH2", molecule("H2O").positions, cell=slab.cell, pbc=slab.pbc)
    far = water.copy()
    far.positions[:, 2] += 300.0
    rest = energy(model, slab + far) - energy(model, slab) - energy(model, water)
    assert (abs(rest) > 1e-6) == absolute


def test_no_step_when_an_atom_crosses_the_cutoff(model: EquivariantPotNet) -> None:
    """Energy, force and curvature have no step, sampled every 1e-4 Å: a step in the n-th derivative would show as
    h^n times itself in every higher difference."""
    steps = np.arange(-40, 41) * 1e-4
    end = float(model.cutoffs.between(torch.tensor(55), torch.tensor(55)))
    paths = [Atoms("CsOCs", positions=[[0, 0, 0], [1.6, 0.3, 0], [end + step, 0, 0]]) for step in steps]
    result = predict(model, *paths)
    assert result.forces is not None
    energies, forces = result.energy.numpy(), result.forces.numpy()[2::3, 0]
    third, second = np.diff(energies, 3), np.diff(energies, 2)
    assert np.abs(third).max() <= 0.03 * np.abs(second).max() + 1e-12
    assert np.abs(np.diff(forces, 2)).max() <= 0.03 * np.ptp(np.diff(forces)) + 1e-12  # a step would be all of it
    slope = np.gradient(energies, 1e-4)
    assert np.abs(slope + forces)[1:-1].max() < 1e-7


def test_large_atoms_are_neighbours_farther_out() -> None:
    model = make_model({"n_sources": 0})
    radii = covalent_radii[[8, 55]]

    def is_seen(symbols: str, distance: float) -> bool:
        atoms = Atoms(symbols, positions=[[0, 0, 0], [0, 0, distance]])
        return abs(energy(model, atoms) - model.references[atoms.numbers].sum().item()) > 1e-9

    assert [is_seen("O2", d) for d in (4.8, 5.01)] == [True, False]
    assert [is_seen("CsO", 1.7 * radii.sum() + d) for d in (-0.2, 0.01)] == [True, False]
    assert [is_seen("Cs2", 1.7 * 2 * radii[1] + d) for d in (-0.2, 0.01)] == [True, False]


def test_atoms_pulled_apart_end_as_free_ones() -> None:
    model = make_model({"n_sources": 0})
    with torch.no_grad():
        for readout in model.readouts:
            readout.layers[2].weight.zero_()  # nothing but the elements
    in_crystals, free = (model.references + model.condensation)[[8, 8]].sum(), model.references[[8, 8]].sum()
    energies = [energy(model, Atoms("O2", positions=[[0, 0, 0], [0, 0, d]])) for d in np.linspace(1.4, 5.0, 50)]
    assert energies[0] == pytest.approx(float(in_crystals), abs=2e-3)
    assert energies[-1] == pytest.approx(float(free), abs=1e-9)
    assert (np.diff(energies) * float(free - in_crystals) >= 0).all()


def test_older_weights_know_no_free_atoms() -> None:
    model = make_model({})
    weights = model.state_dict()
    del weights["condensation"]
    other = build_model("equivariant-potnet", SMALL).double()
    other.load_state_dict(weights)
    assert not other.condensation.any()


def test_close_atoms_repel() -> None:
    model = make_model({"n_sources": 0})
    energies = [energy(model, Atoms("FeO", positions=[[0, 0, 0], [r, 0, 0]])) for r in (0.3, 0.5, 0.8)]
    assert energies[0] > energies[1] + 50 > energies[2] + 100


@pytest.mark.parametrize("unbounded", [False, True])
def test_signs_of_the_complete_terms(unbounded: bool) -> None:
    site = make_model({"unbounded": unbounded}, seed=2).site_potentials
    with torch.no_grad():
        site.strength.copy_(torch.tensor([[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]))
        atoms = batch_structures(bulk("Al", "fcc", a=4.0))
        energies = []
        for potential in range(3):
            sources = torch.zeros(1, 2, 3, dtype=torch.float64)
            sources[:, :, potential] = torch.tensor([1.0, 0.5])
            energies.append(float(site(sources, atoms).energies))
    coulomb, london, pauli = energies
    assert coulomb != 0
    assert (london < 0) == (not unbounded)
    assert pauli < 0 if unbounded else pauli > 0


def test_complete_potentials_are_bounded_and_linear_where_weak() -> None:
    site = make_model({}, seed=2).site_potentials
    sources = torch.full((1, 2, 3), 3.0, dtype=torch.float64)
    squeezed, normal, wide = (site(sources, batch_structures(bulk("Al", "fcc", a=a))) for a in (1.5, 4.0, 12.0))
    twice = site(2 * sources, batch_structures(bulk("Al", "fcc", a=12.0)))
    assert squeezed.potentials.abs().max() < 10
    assert squeezed.energies > normal.energies  # Pauli's repulsion outgrows London's attraction
    assert_close(2 * wide.potentials[:, 1], twice.potentials[:, 1], 1e-6)


def test_hessian_vector_products(model: EquivariantPotNet) -> None:
    atoms = batch_structures(crystals()[0])
    direction = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 3)))
    positions = atoms.positions.clone().requires_grad_()
    first = torch.autograd.grad(model(atoms.moved(positions, atoms.cell)).sum(), positions, create_graph=True)[0]
    product = torch.autograd.grad((first * direction).sum(), positions)[0]
    step = 1e-4
    ends = [differentiate(model, atoms.moved(atoms.positions + s * step * direction, atoms.cell)) for s in (-1, 1)]
    assert ends[0].forces is not None
    assert ends[1].forces is not None
    assert_close(product, (ends[0].forces - ends[1].forces) / (2 * step), 1e-5)


def test_every_parameter_of_the_elements_learns(model: EquivariantPotNet) -> None:
    atoms = batch_structures(crystals())
    result = differentiate(model, atoms, create_graph=True)
    assert result.forces is not None
    loss = result.energy.square().sum() + result.forces.square().sum()
    parameters = dict(model.named_parameters())
    slopes = torch.autograd.grad(loss, list(parameters.values()))
    for name, slope in zip(parameters, slopes, strict=True):
        assert torch.isfinite(slope).all(), name
        assert slope.any(), name


def test_single_precision_follows(model: EquivariantPotNet) -> None:
    atoms = batch_structures(crystals())
    double = differentiate(model, atoms)
    single = differentiate(model.to(torch.float32), atoms.to(dtype=torch.float32))
    model.to(torch.float64)
    assert single.energy.dtype == torch.float64  # with the references of the elements, which may be large
    assert_close(single.energy, double.energy, 1e-4)
    assert single.forces is not None
    assert single.forces.dtype == torch.float32
    assert double.forces is not None
    assert_close(single.forces.double(), double.forces, 1e-3)


def test_large_references_cost_no_accuracy(model: EquivariantPotNet) -> None:
    """Energies of all-electron codes, 1e4 to 1e6 eV an atom, in single precision."""
    atoms = batch_structures(crystals())
    single = atoms.to(dtype=torch.float32)
    before = differentiate(model.to(torch.float32), single).energy
    model.references += 123456.7891
    shifted = differentiate(model.to(torch.float64).to(torch.float32), single).energy
    torch.testing.assert_close(shifted - before, 123456.7891 * atoms.n_atoms.double(), rtol=0, atol=1e-7)


def test_unknown_elements_are_named() -> None:
    model = make_model({})
    with pytest.raises(ValueError, match=r"atoms.*no Lr"):
        model(batch_structures(Atoms("Lr")))


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="neutral"):
        build_model("equivariant-potnet", {"neutral": "no"})
    with pytest.raises(ValueError, match="n_radial"):
        build_model("equivariant-potnet", {"n_radial": (4, 6)})
    with pytest.raises(ValueError, match="message_width"):
        build_model("equivariant-potnet", {"message_width": (4, 6)})
