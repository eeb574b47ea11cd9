from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii

from ase_potnet.graph import PairCutoffs, batch_structures, local_edges
from ase_potnet.models import build_model
from ase_potnet.training.arrays import StructureArrays, join_arrays, structure_arrays, with_labels, with_targets
from ase_potnet.training.batches import Budget, TrainingBatches, pairs_in, shuffled_batches, sorted_batches
from ase_potnet.training.data import Dataset, Record, labels, open_dataset
from ase_potnet.training.evaluation import known_structures

SAMPLES = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset(SAMPLES / "mp_sample.extxyz", progress=False)


@pytest.fixture(scope="module")
def arrays(dataset: Dataset) -> StructureArrays:
    return structure_arrays(dataset)


@dataclass
class Place:
    epoch: int = 0
    batch: int = 0


def test_batch_of_rows_is_the_batch_of_structures(dataset: Dataset, arrays: StructureArrays) -> None:
    rows = np.array([5, 0, 63, 17])
    ours = arrays.atoms_batch(rows, torch.float64)
    theirs = batch_structures([dataset[int(row)].atoms for row in rows])
    for name in ("numbers", "positions", "cell", "pbc", "batch"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_single_precision_keeps_distances_of_atoms_far_away(arrays: StructureArrays) -> None:
    """Trajectories that are not wrapped wander off."""
    cells = np.repeat(arrays.cell, arrays.n_atoms, axis=0)
    steps = np.random.default_rng(0).integers(-100, 100, size=(len(cells), 3))
    far = replace(arrays, positions=arrays.positions + np.einsum("ni,nij->nj", steps, cells))
    rows = np.arange(len(arrays))
    near, single = arrays.atoms_batch(rows, torch.float64).near_origin(), far.atoms_batch(rows, torch.float32)
    assert single.positions.dtype == torch.float32
    offsets = torch.linalg.solve(near.cell[near.batch].mT, (single.positions.double() - near.positions)[..., None])
    # the same places but for lattice vectors and a shift of the whole crystal
    offsets = offsets[..., 0] - offsets[..., 0][torch.searchsorted(near.batch, near.batch)]
    assert (offsets - offsets.round()).abs().max() < 3e-6


def test_take_and_join_keep_everything(arrays: StructureArrays) -> None:
    frames = open_dataset(SAMPLES / "dft_forces_sample.extxyz", progress=False)
    whole = with_labels(structure_arrays(frames), frames)
    joined = join_arrays([whole.take(np.array([3, 1])), whole.take(np.array([7]))])
    for row, source in enumerate((3, 1, 7)):
        label = labels(frames[source])
        assert label.forces is not None
        assert joined.ids[row] == frames[source].id
        rows = slice(joined.first[row], joined.first[row + 1])
        np.testing.assert_array_equal(joined.values["forces"][rows], label.forces)
        np.testing.assert_array_equal(joined.positions[rows], frames[source].atoms.positions)
        assert joined.values["energy"][row] == label.energy


def test_structures_of_known_elements(arrays: StructureArrays) -> None:
    one = {"model": "equivariant-properties", "options": {"width": 8}}
    whole, mean = build_model("invariant-potnet", {"width": 8}), build_model("mean-of-models", {"members": [one, one]})
    for model in (whole, mean):
        same, unknown = known_structures(arrays, model)
        assert same is arrays
        assert unknown == ()
    mean.members[0].elements[8] = False
    mean.members[1].elements[1] = False
    some, unknown = known_structures(arrays, mean)
    assert unknown == ("H", "O")
    assert some is not None
    kept = [name for name, count in zip(arrays.ids, arrays.composition(), strict=True) if not count[[1, 8]].any()]
    assert list(some.ids) == kept
    assert 0 < len(kept) < len(arrays)
    mean.members[0].elements[:] = False
    none, unknown = known_structures(arrays, mean)
    assert none is None
    assert "O" in unknown


def test_stress_is_a_symmetric_matrix_in_ases_order() -> None:
    frames = open_dataset(SAMPLES / "dft_forces_sample.extxyz", progress=False)
    whole = with_labels(structure_arrays(frames), frames)
    for row, record in enumerate(frames):
        np.testing.assert_array_equal(whole.values["stress"][row], record.atoms.get_stress(voigt=False))


def test_stress_of_slabs_is_no_label() -> None:
    atoms = [bulk("Cu"), bulk("Cu")]
    atoms[1].pbc = (True, True, False)
    for some in atoms:
        some.calc = SinglePointCalculator(some, energy=1.0, stress=np.arange(6.0))
    records = [Record(str(n), some, {}) for n, some in enumerate(atoms)]
    stress = with_labels(structure_arrays(records), records).values["stress"]
    assert np.isfinite(stress[0]).all()
    assert np.isnan(stress[1]).all()


def test_missing_targets_are_nan() -> None:
    data = open_dataset(SAMPLES / "jarvis_sample.json", progress=False)
    names = ["formation_energy_peratom", "mbj_bandgap"]
    table = with_targets(structure_arrays(data), data, names).values["targets"]
    for row, record in enumerate(data):
        for column, name in enumerate(names):
            value = table[row, column]
            assert value == record.targets[name] if name in record.targets else np.isnan(value)
    assert np.isnan(table).any()


@pytest.mark.parametrize(
    "budget", [Budget(structures=7), Budget(atoms=100), Budget(pairs=4000), Budget(structures=9, edges=3000)]
)
def test_every_structure_once_and_limits_kept(arrays: StructureArrays, budget: Budget) -> None:
    batches = shuffled_batches(arrays, budget, seed=1, epoch=3)
    assert sorted(np.concatenate(batches)) == list(range(len(arrays)))
    for cost in budget.costs(arrays):
        for batch in batches:
            assert len(batch) == 1 or cost[batch].sum() <= 1 + 1e-6
    # and filled: two consecutive batches never fit into one
    costs = budget.costs(arrays)
    for first, second in itertools.pairwise(batches):
        together = np.concatenate([first, second[:1]])
        assert max(cost[together].sum() for cost in costs) > 1


@pytest.mark.parametrize("per_radius", [0.0, 1.7, 3.0])
def test_estimated_edges_are_near_the_number(arrays: StructureArrays, per_radius: float) -> None:
    cutoffs = PairCutoffs(5.0, per_radius * torch.from_numpy(covalent_radii))
    (cost,) = Budget(edges=1, cutoff=cutoffs).costs(arrays)
    edges = len(local_edges(arrays.atoms_batch(np.arange(len(arrays)), torch.float64), cutoffs))
    assert cost.sum() == pytest.approx(edges, rel=0.1)


def test_order_depends_on_seed_and_epoch_alone(arrays: StructureArrays) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(shuffled_batches(arrays, Budget(structures=8), seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def displaced(arrays: StructureArrays, counts: list[int]) -> StructureArrays:
    """The first structures, each with so many displacements."""
    rows = np.repeat(np.arange(len(counts)), counts)
    several = arrays.take(rows)
    shifts = np.random.default_rng(0).normal(scale=0.02, size=several.positions.shape)
    return replace(several, positions=several.positions + shifts)


def test_frames_of_one_cell_are_a_family(arrays: StructureArrays) -> None:
    several = displaced(arrays, [1, 3, 2])
    assert several.family.tolist() == [0, 1, 1, 1, 2, 2]
    other_cell = replace(several, cell=several.cell * np.linspace(1, 1.01, 6)[:, None, None])
    assert other_cell.family.tolist() == list(range(6))


@pytest.mark.parametrize("world", [1, 3])
def test_frames_of_one_cell_come_in_twos(arrays: StructureArrays, world: int) -> None:
    several = displaced(arrays, [1, 3, 2, 1, 4, 5, 2, 2, 1, 6])
    budget = Budget(structures=7)
    loaders = [
        TrainingBatches(several, lambda _, rows: rows, budget, Place(), seed=5, rank=rank, world=world, paired=True)
        for rank in range(world)
    ]
    shares = [rows for loader in loaders for rows in loader]
    assert sorted(np.concatenate(shares)) == list(range(len(several)))
    pairs = [tuple(rows[pair]) for rows in shares for pair in pairs_in(rows, several.family)]
    whole = [tuple(rows[pair]) for rows in loaders[0].plan() for pair in pairs_in(rows, several.family)]
    assert sorted(pairs) == sorted(whole)
    assert len(pairs) == 11  # whole halves of the counts
    assert all(several.family[one] == several.family[other] for one, other in pairs)
    if world == 1:  # several processes want a share each, even of the last batch
        assert max(len(rows) for rows in loaders[0].plan()) <= 7


def test_iteration_starts_where_the_training_is(arrays: StructureArrays) -> None:
    place = Place(epoch=2, batch=0)
    loader = TrainingBatches(arrays, lambda _, rows: rows.tolist(), Budget(structures=10), place, seed=0)
    whole = list(loader)
    place.batch = 3
    assert list(loader) == whole[3:]
    place.epoch, place.batch = 3, 0
    assert list(loader) != whole


def test_processes_share_every_batch(arrays: StructureArrays) -> None:
    loaders = [
        TrainingBatches(arrays, lambda _, rows: rows.tolist(), Budget(atoms=60), Place(), seed=0, rank=rank, world=3)
        for rank in range(3)
    ]
    parts = [list(loader) for loader in loaders]
    plan = loaders[0].plan()
    assert len({len(part) for part in parts}) == 1
    for number, batch in enumerate(plan):
        shares = [part[number] for part in parts]
        assert all(shares)
        assert sorted(row for rows in shares for row in rows) == sorted(batch.tolist())


def test_evaluation_puts_like_sizes_together(arrays: StructureArrays) -> None:
    batches = sorted_batches(arrays, Budget(structures=16))
    sizes = arrays.n_atoms
    assert all(sizes[a].max() <= sizes[b].min() for a, b in itertools.pairwise(batches))


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(ValueError, match="budget: wanted a positive limit"):
        Budget()
    with pytest.raises(ValueError, match="budget: wanted a positive limit"):
        Budget(atoms=0)
