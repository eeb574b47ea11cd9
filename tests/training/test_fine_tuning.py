from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from ase_potnet import evaluate
from ase_potnet.graph import AtomsBatch, batch_structures
from ase_potnet.models import build_model
from ase_potnet.pretrained import load_model, model_info, save_model
from ase_potnet.training.arrays import StructureArrays
from ase_potnet.training.evaluation import known_elements, predict_arrays, predict_energies
from ase_potnet.training.growth import can_grow, grow
from ase_potnet.training.recipe import ReplayConfig, differences, load_recipe
from ase_potnet.training.replay import CRYSTAL_TYPES, with_replay
from ase_potnet.training.run import make_model, train
from ase_potnet.training.sources import load_training_data
from ase_potnet.training.tasks import make_task

from .conftest import SAMPLES

Recipe = dict[str, Any]
OPTIONS = {"width": 8, "message_width": [4, 2, 2], "n_sources": 2, "cutoff": 4.0}


@pytest.fixture
def start(energy_recipe: Recipe, tmp_path: Path) -> str:
    """A small potential with fresh weights that knows all elements."""
    recipe = load_recipe(energy_recipe | {"model": {"name": "equivariant-potnet", "options": OPTIONS}})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = make_model(recipe, make_task(recipe), load_training_data(recipe, progress=False))
    model.elements[1:] = True
    save_model(model, tmp_path / "start", task="energy")
    return str(tmp_path / "start")


def predicted(model: torch.nn.Module, arrays: StructureArrays) -> dict[str, np.ndarray]:
    return predict_arrays(predict_energies, model, arrays, dtype=torch.float64)


def test_the_atoms_of_crystal_types_touch() -> None:
    for name, kind in CRYSTAL_TYPES.items():
        numbers = [38, 22, 8][: max(kind.species) + 1]
        crystal = kind.crystal(numbers)
        i, j, distance = neighbor_list("ijd", crystal, 4.5)
        radii = covalent_radii[crystal.numbers]
        relative = distance / (radii[i] + radii[j])
        assert relative.min() == pytest.approx(1.0), name
    rock_salt = CRYSTAL_TYPES["rock salt"].crystal([11, 17])
    assert rock_salt.get_volume() == pytest.approx(2 * (covalent_radii[11] + covalent_radii[17]) ** 3)


@pytest.mark.parametrize("fresh", [True, False])
def test_energies_of_free_atoms_are_those_of_the_data(
    fresh: bool, energy_recipe: Recipe, start: str, tmp_path: Path
) -> None:
    sample = SAMPLES / "dft_forces_sample.extxyz"
    frames = ase.io.read(sample, ":")
    for symbol, energy, box in (("O", -1.5, 12.0), ("O", -1.9, 7.0), ("Na", -0.1, None), ("At", -0.2, 12.0)):
        atoms = Atoms(symbol) if box is None else Atoms(symbol, cell=[box] * 3, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
        frames.append(atoms)
    ase.io.write(tmp_path / "free.extxyz", frames)
    options = {"name": "equivariant-potnet", "options": OPTIONS}
    if not fresh:
        options = {"start_from": start, "shift_references": True}
    models: list[Any] = []
    for path in (tmp_path / "free.extxyz", sample):
        data = {"path": str(path), "val": str(sample), "split": {"fractions": [1.0, 0.0, 0.0]}}
        recipe = load_recipe(energy_recipe | {"model": options, "data": data})
        training = load_training_data(recipe, progress=False)
        assert len(training.train) == 12
        assert (training.free_atoms is not None) == ("free" in path.name) == bool(training.notes)
        models.append(make_model(recipe, make_task(recipe), training))
    free = models[0](batch_structures([Atoms("O"), Atoms("Na", cell=[9, 9, 9], pbc=True)])).tolist()
    assert free == pytest.approx([-1.9, -0.1], abs=1e-5)
    crystals = [model.references + model.condensation for model in models]
    torch.testing.assert_close(*crystals)  # as they would be without free atoms
    if fresh:
        with pytest.raises(ValueError, match="At"):  # alone in the data
            models[0](batch_structures(Atoms("At")))


def test_free_atoms_are_found_in_every_part(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(SAMPLES / "dft_forces_sample.extxyz", ":")
    symbols = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    for symbol in symbols:
        atoms = Atoms(symbol)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - symbols.index(symbol), forces=np.zeros((1, 3)))
        frames.append(atoms)
    ase.io.write(tmp_path / "free.extxyz", frames)
    data = {"path": str(tmp_path / "free.extxyz"), "split": {"fractions": [0.5, 0.3, 0.2]}}
    found = load_training_data(load_recipe(energy_recipe | {"data": data}), progress=False)
    assert found.test is not None
    assert min(part.n_atoms.min() for part in (found.train, found.val, found.test)) > 1
    assert found.free_atoms is not None
    numbers = np.unique(found.train.numbers)
    assert np.isfinite(found.free_atoms[numbers]).all()
    assert np.isfinite(found.free_atoms).sum() == len(numbers)


WIDER = {"width": 12, "message_width": [6, 2, 3], "n_radial": [10, 7, 4, 4]}


@pytest.mark.parametrize("options", [{}, {"fields": True, "neutral": "mean"}, {"n_sources": 0}])
def test_a_wider_network_starts_as_the_narrower_one(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    narrow: Any = build_model("equivariant-potnet", OPTIONS | options).double()
    wide: Any = build_model("equivariant-potnet", OPTIONS | options | WIDER).double()
    assert can_grow(narrow.config, wide.config)
    assert not can_grow(wide.config, narrow.config)
    grow(narrow, wide)
    crystals = [bulk("MgO", "rocksalt", a=4.2), bulk("Si"), bulk("NaCl", "rocksalt", a=5.6)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=seed)
    found = [np.concatenate([r.forces for r in evaluate(crystals, model)]) for model in (narrow, wide)]
    assert np.abs(found[0] - found[1]).max() < 0.1 * np.abs(found[0]).max()  # what divides the sums has more channels
    atoms = batch_structures(crystals)
    wide(atoms).sum().backward()
    for name, parameter in wide.named_parameters():
        assert name.endswith("strength") or (parameter.grad is not None and parameter.grad.any()), name


def test_a_recipe_grows_a_network(energy_recipe: Recipe, start: str) -> None:
    recipe = load_recipe(energy_recipe | {"model": {"start_from": start, "options": WIDER}})
    data = load_training_data(recipe, progress=False)
    wide: Any = make_model(recipe, make_task(recipe), data)
    narrow: Any = load_model(start)
    assert wide.config.width == 12
    torch.testing.assert_close(wide.embedding.weight[:, :8], narrow.embedding.weight)
    torch.testing.assert_close(wide.references, narrow.references)
    found = [predicted(model, data.train)["energy"] / data.train.n_atoms for model in (wide, narrow)]
    assert np.abs(found[0] - found[1]).max() < 0.1 * float(narrow.energy_scale)


@pytest.mark.parametrize("path", [None, str(SAMPLES / "mp_sample.extxyz")])
def test_replay_frames_have_the_labels_of_the_model(energy_recipe: Recipe, start: str, path: str | None) -> None:
    recipe = load_recipe(energy_recipe | {"model": {"start_from": start}})
    data = load_training_data(recipe, progress=False)
    model = make_model(recipe, make_task(recipe), data)
    config = ReplayConfig(path=path, frames=12)
    joined = with_replay(data, config, model, known_elements(model), torch.float64, seed=3).train
    n = len(data.train)
    assert len(joined) == n + 12
    replayed = joined.take(np.arange(n, n + 12))
    assert [joined.kinds[k] for k in joined.kind] == [""] * n + ["replay"] * 12
    assert len(np.unique(replayed.numbers)) > 5
    for name, values in predicted(model, replayed).items():
        np.testing.assert_allclose(replayed.values[name], values, atol=1e-10)
    assert np.linalg.norm(replayed.values["forces"], axis=1).max() <= 5
    assert np.abs(replayed.values["stress"]).max() <= 0.15
    assert (np.abs(replayed.values["forces"]).max() > 1e-3).all()  # perturbed, not at rest
    again = with_replay(data, config, model, known_elements(model), torch.float64, seed=3).train
    other = with_replay(data, config, model, known_elements(model), torch.float64, seed=4).train
    assert np.array_equal(again.positions, joined.positions)
    assert other.positions.shape != joined.positions.shape or not np.array_equal(other.positions, joined.positions)


def test_frames_that_the_model_refuses_are_drawn_anew(
    energy_recipe: Recipe, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(model: torch.nn.Module, atoms: AtomsBatch) -> dict[str, torch.Tensor]:
        if (atoms.numbers == 8).any():
            raise ValueError("oxygen")
        return predict_energies(model, atoms)

    data = load_training_data(load_recipe(energy_recipe), progress=False)
    n, samples = len(data.train), ReplayConfig(path=str(SAMPLES / "mp_sample.extxyz"), frames=15)
    every = np.ones(119, dtype=bool)
    with_oxygen = with_replay(data, samples, load_model(start), every, torch.float64, 0).train
    monkeypatch.setattr("ase_potnet.training.replay.predict_energies", picky)
    without = with_replay(data, samples, load_model(start), every, torch.float64, 0).train
    assert len(with_oxygen) == len(without) == n + 15
    assert 8 in with_oxygen.numbers[with_oxygen.first[n] :]
    assert 8 not in without.numbers[without.first[n] :]
    assert len(set(without.ids)) == len(without)


def test_replay_crystals_hold_what_the_model_has_learned(
    energy_recipe: Recipe, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = load_model(start)
    source.elements[:] = False
    source.elements[12] = True  # Mg alone, of which there are no binary crystals
    save_model(source, tmp_path / "magnesium", task="energy")
    frames = [bulk(name).repeat((2, 1, 1)) for name in ("Mg", "Cu") * 8]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
        atoms.calc = SinglePointCalculator(atoms, energy=-2.0 * len(atoms), forces=np.zeros((len(atoms), 3)))
    ase.io.write(tmp_path / "metals.extxyz", frames)
    split = {"fractions": [0.7, 0.3, 0.0]}
    energy_recipe["data"] = {"path": str(tmp_path / "metals.extxyz"), "split": split, "replay": {"frames": 5}}
    joined = []

    def keep(*arguments: Any) -> Any:
        joined.append(with_replay(*arguments))
        return joined[0]

    monkeypatch.setattr("ase_potnet.training.run.with_replay", keep)
    train(energy_recipe | {"model": {"start_from": str(tmp_path / "magnesium")}, "epochs": 1}, progress=False)
    (data,) = joined
    is_replay = np.array([data.train.kinds[k] == "replay" for k in data.train.kind])
    assert is_replay.sum() == 5
    assert set(data.train.take(np.flatnonzero(is_replay)).numbers.tolist()) == {12}
    assert set(data.train.numbers.tolist()) == {12, 29}


def test_fine_tuning_takes_the_architecture_and_keeps_what_is_frozen(energy_recipe: Recipe, start: str) -> None:
    n_train = len(load_training_data(load_recipe(energy_recipe), progress=False).train)
    energy_recipe["data"]["replay"] = {"frames": 6}
    model = {"start_from": start, "shift_references": True, "freeze": ["layers.0.*", "embedding.*"]}
    result = train(energy_recipe | {"model": model, "epochs": 2}, progress=False)
    assert result.model is not None
    info, source = model_info(result.model), model_info(start)
    assert (info.model, info.config) == (source.model, source.config)
    assert info.metadata["n_train"] == n_train + 6
    before, after = load_model(start).state_dict(), load_model(result.model).state_dict()
    assert torch.equal(before["layers.0.mixing.0"], after["layers.0.mixing.0"].to(before["layers.0.mixing.0"]))
    assert not torch.allclose(before["layers.1.mixing.0"], after["layers.1.mixing.0"].to(before["layers.1.mixing.0"]))


def test_references_are_shifted_to_the_level_of_the_data(energy_recipe: Recipe, start: str) -> None:
    def network(shift: bool) -> tuple[Any, StructureArrays]:
        recipe = load_recipe(energy_recipe | {"model": {"start_from": start, "shift_references": shift}})
        data = load_training_data(recipe, progress=False)
        data.train.values["energy"] += data.train.composition() @ np.linspace(0, 5, 119)
        return make_model(recipe, make_task(recipe), data), data.train

    errors = {}
    for shift in (False, True):
        model, arrays = network(shift)
        errors[shift] = (predicted(model, arrays)["energy"] - arrays.values["energy"]) / arrays.n_atoms
        unknown = np.setdiff1d(np.arange(1, 95), arrays.numbers)
        torch.testing.assert_close(model.references[unknown], load_model(start).references[unknown])
    assert np.sqrt((errors[True] ** 2).mean()) < 0.5 * np.sqrt((errors[False] ** 2).mean())
    assert abs(errors[True].mean()) < 1e-3


def test_energies_without_a_shifted_reference_are_not_compared(
    energy_recipe: Recipe, start: str, tmp_path: Path
) -> None:
    frames = ase.io.read(SAMPLES / "dft_forces_sample.extxyz", ":")
    rare = next(a for a in frames if not any(set(a.numbers) <= set(b.numbers) for b in frames if b is not a))
    ase.io.write(tmp_path / "rest.extxyz", [a for a in frames if a is not rare])
    ase.io.write(tmp_path / "val.extxyz", [rare, *(a for a in frames if a is not rare)])
    data = {
        "path": str(tmp_path / "rest.extxyz"), "val": str(tmp_path / "val.extxyz"), "split": {"fractions": [1, 0, 0]},
    }  # fmt: skip
    metrics = {}
    for shift in (False, True):
        model = {"start_from": start, "shift_references": shift}
        run = energy_recipe | {"data": data, "model": model, "epochs": 1, "output": str(tmp_path / f"run{shift}")}
        metrics[shift] = train(run, progress=False).metrics["val"]
    assert metrics[False]["energy_per_atom"]["count"] == len(frames)
    assert metrics[True]["energy_per_atom"]["count"] < len(frames)
    assert metrics[True]["forces"]["count"] == metrics[False]["forces"]["count"]


def test_forces_alone_leave_the_references(energy_recipe: Recipe, start: str) -> None:
    recipe = load_recipe(energy_recipe | {"model": {"start_from": start, "shift_references": True}})
    data = load_training_data(recipe, progress=False)
    data.train.values["energy"][:] = np.nan
    model: Any = make_model(recipe, make_task(recipe), data)
    torch.testing.assert_close(model.references, load_model(start).references, rtol=0, atol=0)


def test_options_of_the_start_may_be_changed(energy_recipe: Recipe, start: str) -> None:
    recipe = load_recipe(energy_recipe | {"model": {"start_from": start, "options": {"n_layers": 3}}})
    model: Any = make_model(recipe, make_task(recipe), load_training_data(recipe, progress=False))
    assert (model.config.width, model.config.n_layers) == (8, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {}}, "model: a name or start_from is missing"),
        ({"model": {"name": "potnet", "shift_references": True}}, "shift_references needs start_from"),
        ({"data": {"path": "a", "replay": {}}}, "data.replay needs model.start_from"),
        ({"data": {"path": "a", "replay": {"frames": 0}}}, "data.replay.frames"),
        ({"data": {"path": "a", "replay": {"share": 1}}}, "unknown key 'data.replay.share'"),
    ],
)
def test_what_does_not_fit_is_named(energy_recipe: Recipe, changes: Recipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(energy_recipe | changes)


def test_replay_is_for_potentials(property_recipe: Recipe) -> None:
    property_recipe["data"]["replay"] = {"frames": 5}
    property_recipe["model"]["start_from"] = "default"
    with pytest.raises(ValueError, match="for task energy"):
        load_recipe(property_recipe)


def test_structures_for_replay_must_be_known(energy_recipe: Recipe, start: str) -> None:
    model: Any = load_model(start)
    model.elements[:] = False
    data = load_training_data(load_recipe(energy_recipe), progress=False)
    samples = ReplayConfig(path=str(SAMPLES / "mp_sample.extxyz"))
    with pytest.raises(ValueError, match=r"data\.replay\.path: .* has no crystal of elements"):
        with_replay(data, samples, model, known_elements(model), torch.float64, 0)


def test_a_recipe_from_before_a_key_existed_is_the_same(energy_recipe: Recipe) -> None:
    recipe = load_recipe(energy_recipe)
    earlier = recipe.model_dump(mode="json")
    del earlier["optimiser"]["clock"], earlier["data"]["replay"]
    assert differences(recipe, earlier) == []
    earlier["optimiser"]["lr"] = 0.5
    assert differences(recipe, earlier) == ["optimiser.lr"]
