from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from ase_potnet.file_safety import exclusive_lock
from ase_potnet.models import build_model
from ase_potnet.models.scaling import NO_MINIMUM
from ase_potnet.pretrained import load_model, model_info, save_model
from ase_potnet.training.arrays import StructureArrays
from ase_potnet.training.data import Split, open_dataset
from ase_potnet.training.evaluation import predict_arrays, predict_energies
from ase_potnet.training.losses import combine
from ase_potnet.training.metrics import (
    element_references,
    energy_metrics,
    error_measures,
    errors_by_element,
    fit_element_shifts,
)
from ase_potnet.training.recipe import LossConfig, load_recipe
from ase_potnet.training.run import make_model, train
from ase_potnet.training.sources import load_training_data
from ase_potnet.training.tasks import EnergyTask, PropertyTask, make_task

from .conftest import SAMPLES
from .tiny_models import ENERGY, PROPERTY, TinyEnergy

Recipe = dict[str, Any]


def test_results_of_a_property_training(property_recipe: Recipe, pictures: None) -> None:
    result = train(property_recipe, progress=False)
    folder = result.folder
    assert result.finished
    names = {file.name for file in folder.iterdir()}
    assert {"last.pt", "log.csv", "recipe.json", "metrics.json", "model", "learning_curve.png"} <= names
    assert (folder / "parity_val.png").read_bytes().startswith(b"\x89PNG")
    info = model_info(folder / "model")
    assert [target.name for target in info.targets] == ["formation_energy_per_atom", "optb88vdw_bandgap"]
    assert info.metadata["metrics"] == result.metrics
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    # the exported model makes the predictions that are written, and these have the errors that are reported
    model = load_model(folder / "model")
    data = load_training_data(load_recipe(property_recipe), progress=False)
    predicted = model(data.val.atoms_batch(np.arange(len(data.val)), torch.float32)).numpy()
    text = (folder / "predictions_val_formation_energy_per_atom.csv").read_text()
    table = list(csv.DictReader(text.splitlines()))
    assert [row["id"] for row in table] == list(data.val.ids)
    np.testing.assert_allclose([float(row["prediction"]) for row in table], predicted[:, 0], rtol=1e-5)
    mae = np.abs(predicted - data.val.values["targets"])[:, 0].mean()
    assert result.metrics["val"]["formation_energy_per_atom"]["mae"] == pytest.approx(mae, rel=1e-5)
    # they are those of the best epoch
    scores = [float(row["score"]) for row in rows]
    assert json.loads((folder / "metrics.json").read_text())["best_epoch"] == int(np.argmin(scores))


def test_labels_under_other_names(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(energy_recipe["data"]["path"], ":")
    plain = load_training_data(load_recipe(energy_recipe), progress=False)
    for atoms in frames:
        results, atoms.calc = atoms.calc.results, None
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = results["energy"], results["forces"]
        atoms.info["REF_stress"] = voigt_6_to_full_3x3_stress(results["stress"])
    ase.io.write(tmp_path / "dft_forces_sample.extxyz", frames)
    data = energy_recipe["data"] | {"path": str(tmp_path / "dft_forces_sample.extxyz")}
    with pytest.raises(ValueError, match=r"no structure with a label .* other fields: REF_energy, REF_forces"):
        load_training_data(load_recipe(energy_recipe | {"data": data}), progress=False)
    names = {name: f"REF_{name}" for name in ("energy", "forces", "stress")}
    renamed = load_training_data(load_recipe(energy_recipe | {"data": data | {"labels": names}}), progress=False)
    assert renamed.train.ids == plain.train.ids
    for name in names:
        np.testing.assert_allclose(renamed.train.values[name], plain.train.values[name], atol=1e-7)
    wrong = data | {"labels": {"energy": "DFT_energy"}}
    with pytest.raises(ValueError, match=r"data\.labels\.energy: no structure has a field 'DFT_energy'.*REF_energy"):
        load_training_data(load_recipe(energy_recipe | {"data": wrong}), progress=False)


def test_targets_that_are_no_numbers(property_recipe: Recipe, tmp_path: Path) -> None:
    frames = [bulk("Cu", a=3.6 + 0.01 * k) for k in range(20)]
    for atoms in frames:
        atoms.info["colour"] = "red"
    ase.io.write(tmp_path / "copper.extxyz", frames)
    property_recipe["data"] = {"path": str(tmp_path / "copper.extxyz"), "targets": ["colour"]}
    with pytest.raises(ValueError, match=r"data\.targets: no structure has a number as colour"):
        load_training_data(load_recipe(property_recipe), progress=False)


def test_names_of_targets_may_hold_a_slash(property_recipe: Recipe, pictures: None) -> None:
    targets = [{"name": "eV/atom", "field": "formation_energy_peratom"}, "optb88vdw_bandgap"]
    result = train(load_recipe(property_recipe, {"data.targets": targets, "epochs": 1}), progress=False)
    assert (result.folder / "predictions_val_eV-atom.csv").is_file()
    assert set(result.metrics["val"]) == {"eV/atom", "optb88vdw_bandgap"}


def test_training_learns(property_recipe: Recipe) -> None:
    property_recipe["model"] = {"name": PROPERTY, "options": {"dropout": 0.0, "width": 16}}
    result = train(property_recipe | {"epochs": 40, "ema": 0.0}, progress=False)
    rows = list(csv.DictReader((result.folder / "log.csv").read_text().splitlines()))
    name = "train_formation_energy_per_atom"
    assert float(rows[-1][name]) < 0.2 * float(rows[0][name])


def test_no_prediction_lies_below_the_minimum_of_a_target(property_recipe: Recipe) -> None:
    gap = {"name": "band_gap", "field": "optb88vdw_bandgap", "minimum": 0}
    recipe = load_recipe(property_recipe, {"data.targets": ["formation_energy_peratom", gap], "epochs": 1})
    result = train(recipe, progress=False)
    rows = (result.folder / "predictions_val_band_gap.csv").read_text().splitlines()[1:]
    energies = (result.folder / "predictions_val_formation_energy_peratom.csv").read_text().splitlines()[1:]
    assert min(float(row.split(",")[2]) for row in rows) >= 0
    assert min(float(row.split(",")[2]) for row in energies) < 0
    model = load_model(result.folder / "model")
    assert model.scaling.minimum.tolist() == [NO_MINIMUM, 0]


def test_scale_and_limits_follow_the_targets_not_the_weights_to_start_from(
    property_recipe: Recipe, tmp_path: Path
) -> None:
    gap = {"name": "band_gap", "field": "optb88vdw_bandgap", "minimum": 0}
    first = train(load_recipe(property_recipe, {"data.targets": [gap], "epochs": 1}), progress=False)
    start = {"model": {"start_from": str(first.model)}, "output": str(tmp_path / "second"), "epochs": 1}
    other = load_recipe(property_recipe, {"data.targets": ["formation_energy_peratom"], **start})
    same = load_recipe(property_recipe, {"data.targets": [gap | {"minimum": -1}], **start})
    kept = load_model(first.model).scaling
    scaling = {}
    for name, recipe in (("other", other), ("same", same)):
        task, data = make_task(recipe), load_training_data(recipe, progress=False)
        scaling[name] = make_model(recipe, task, data).scaling
    assert scaling["other"].minimum.tolist() == [NO_MINIMUM]
    assert scaling["other"].mean != kept.mean
    assert scaling["same"].minimum.tolist() == [-1]
    assert scaling["same"].mean == kept.mean


def test_missing_values_of_a_target_do_not_matter(property_recipe: Recipe) -> None:
    recipe = load_recipe(property_recipe, {"data.targets": ["formation_energy_peratom", "mbj_bandgap"]})
    task = make_task(recipe)
    assert isinstance(task, PropertyTask)
    data = load_training_data(recipe, progress=False)
    known = np.isfinite(data.train.values["targets"])
    assert known[:, 0].all()
    assert 0 < known[:, 1].sum() < len(known)
    model = make_model(recipe, task, data).eval()
    batch = task.collate(data.train, np.arange(len(data.train)))
    terms = task.loss_terms(model, batch, 0.0)
    assert [int(term.count) for term in terms] == known.sum(axis=0).tolist()
    predicted = model(batch.atoms).detach().numpy()
    spread = np.nanstd(data.train.values["targets"], axis=0)
    error = np.abs(predicted - data.train.values["targets"]) / spread
    huber = np.where(error < 1, error**2 / 2, error - 0.5)
    expected = np.nansum(huber, axis=0)
    np.testing.assert_allclose([term.total.item() for term in terms], expected, rtol=1e-4)


def test_kinds_that_no_frame_has_are_named(energy_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"loss\.kind_weights: no frame is of the kind harmonci; the data have"):
        load_training_data(load_recipe(energy_recipe, {"loss.kind_weights": {"harmonci": 2.0}}), progress=False)


def test_files_and_seeds_split_as_they_say(property_recipe: Recipe, tmp_path: Path) -> None:
    dataset = open_dataset(property_recipe["data"]["path"], progress=False)
    split = Split(dataset.ids[3:8], dataset.ids[:2], [dataset.ids[9], "not-there"])
    path = split.to_json(tmp_path / "split.json")
    recipe = load_recipe(property_recipe, {"data.split": {"kind": "file", "path": str(path)}})
    data = load_training_data(recipe, progress=False)
    assert data.train.ids == tuple(dataset.ids[3:8])
    assert data.val.ids == tuple(dataset.ids[:2])
    assert data.test is not None
    assert data.test.ids == (dataset.ids[9],)
    assert "1 ids of the split are not in the data" in data.notes
    limited = load_training_data(load_recipe(property_recipe, {"data.max_structures": 3}), progress=False)
    whole = load_training_data(load_recipe(property_recipe), progress=False)
    assert limited.train.ids == whole.train.ids[:3]
    assert limited.val.ids == whole.val.ids
    other = load_training_data(load_recipe(property_recipe, {"data.split.seed": 4}), progress=False)
    assert other.train.ids != whole.train.ids


def test_validation_may_be_a_source_of_its_own(energy_recipe: Recipe) -> None:
    path = energy_recipe["data"]["path"]
    recipe = load_recipe(energy_recipe, {"data.val": path, "data.split.fractions": [0.8, 0.2, 0.0]})
    data = load_training_data(recipe, progress=False)
    assert (len(data.train), len(data.val), data.test) == (12, 12, None)


def test_early_stopping(property_recipe: Recipe) -> None:
    recipe = property_recipe | {"early_stopping": {"patience": 2, "min_delta": 1e3}, "epochs": 50}
    result = train(recipe, progress=False)
    assert result.finished
    assert result.reason == "no better for 2 epochs"
    assert len((result.folder / "log.csv").read_text().splitlines()) == 1 + 3


def test_waiting_for_a_larger_gain_still_exports_the_best_epoch(
    property_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([3.0, 2.9, 2.7, 2.8])
    monkeypatch.setattr(PropertyTask, "score", lambda *args: next(scores))
    result = train(property_recipe | {"early_stopping": {"patience": 3, "min_delta": 1.0}}, progress=False)
    assert result.reason == "no better for 3 epochs"
    assert json.loads((result.folder / "metrics.json").read_text())["best_epoch"] == 2
    rows = list(csv.DictReader((result.folder / "log.csv").read_text().splitlines()))
    mae = result.metrics["val"]["formation_energy_per_atom"]["mae"]
    assert mae == pytest.approx(float(rows[2]["val_formation_energy_per_atom_mae"]))


@pytest.mark.parametrize(("recipe", "lr"), [("property_recipe", 1e30), ("energy_recipe", 1e300)])
def test_an_infinite_loss_is_said_and_nothing_overwritten(
    recipe: str, lr: float, request: pytest.FixtureRequest
) -> None:
    options: Recipe = request.getfixturevalue(recipe)
    wild = {"lr": lr, "schedule": "constant", "warmup": 0.0}
    with pytest.raises(ValueError, match=r"not finite in epoch \d+: lower optimiser.lr"):
        train(options | {"optimiser": wild, "clip": None, "checkpoint_seconds": 0}, progress=False)
    last = Path(options["output"]) / "last.pt"
    if last.exists():
        model = torch.load(last, weights_only=True)["model"]
        assert all(tensor.isfinite().all() for tensor in model.values() if tensor.is_floating_point())


def test_frozen_parameters_stay(property_recipe: Recipe, tmp_path: Path) -> None:
    model = {"name": PROPERTY, "freeze": ["embedding.*"]}
    recipe = load_recipe(property_recipe | {"model": model, "epochs": 2})
    start = make_model(recipe, make_task(recipe), load_training_data(recipe, progress=False))
    assert [name for name, p in start.named_parameters() if not p.requires_grad] == ["embedding.weight"]
    save_model(start, tmp_path / "start", task="property", targets=make_task(recipe).targets)
    again = train(property_recipe | {"model": model | {"start_from": str(tmp_path / "start")}}, progress=False)
    before, after = start.state_dict(), load_model(again.folder / "model").state_dict()
    assert torch.equal(before["embedding.weight"], after["embedding.weight"])
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match=r"model\.freeze: no parameter is named like 'nothing'"):
        train(property_recipe | {"model": model | {"freeze": ["nothing"]}}, restart=True, progress=False)


def test_training_starts_from_other_weights(property_recipe: Recipe, tmp_path: Path) -> None:
    first = train(property_recipe, progress=False)
    assert first.model is not None
    recipe = load_recipe(
        property_recipe | {"output": str(tmp_path / "b"), "model": {"name": PROPERTY, "start_from": str(first.model)}}
    )
    model = make_model(recipe, make_task(recipe), load_training_data(recipe, progress=False))
    before = load_model(first.model).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_results_of_an_energy_training(energy_recipe: Recipe, pictures: None) -> None:
    result = train(energy_recipe, progress=False)
    assert result.finished
    assert model_info(result.folder / "model").task == "energy"
    assert result.metrics["val"]["forces"]["mae"] > 0
    assert (result.folder / "parity_val.png").is_file()


def test_mixed_precision_trains_what_it_suits(property_recipe: Recipe, energy_recipe: Recipe) -> None:
    options = {"width": 16, "n_layers": 1, "n_heads": 2}
    property_recipe |= {"precision": "bf16", "epochs": 20, "model": {"name": "potnet", "options": options}}
    result = train(property_recipe, progress=False)
    rows = list(csv.DictReader((result.folder / "log.csv").read_text().splitlines()))
    name = "train_formation_energy_per_atom"
    assert float(rows[-1][name]) < 0.5 * float(rows[0][name])
    energy_recipe |= {"precision": "bf16", "model": {"name": "equivariant-potnet"}}
    with pytest.raises(ValueError, match="precision: the lattice sums of equivariant-potnet need 'full', got 'bf16'"):
        train(energy_recipe, restart=True, progress=False)


def energy_parts(recipe: Recipe, **loss: Any) -> tuple[EnergyTask, TinyEnergy, StructureArrays]:
    checked = load_recipe(recipe | {"loss": loss})
    task = make_task(checked)
    assert isinstance(task, EnergyTask)
    data = load_training_data(checked, progress=False)
    model = make_model(checked, task, data)
    assert isinstance(model, TinyEnergy)
    return task, model, data.train


def test_energy_losses_are_the_hand_computed_ones(energy_recipe: Recipe) -> None:
    task, model, arrays = energy_parts(
        energy_recipe,
        energy={"kind": "l1", "weight": 2.0},
        forces={"kind": "norm", "weight": [1.0, 3.0]},
        stress={"kind": "mse", "weight": 5.0},
    )
    rows = np.array([4, 0, 2])
    arrays.values["energy"][2] = np.nan
    batch = task.collate(arrays, rows)
    terms = {term.name: term for term in task.loss_terms(model, batch, 0.5)}
    found = task.predict(model, batch.atoms)
    n = arrays.n_atoms[rows]
    energy = np.abs(found["energy"].detach().numpy() - arrays.values["energy"][rows]) / n
    assert terms["energy"].total.item() == pytest.approx(energy[:2].sum(), rel=1e-10)
    assert int(terms["energy"].count) == 2
    forces = found["forces"].numpy() - arrays.values["forces"][arrays.atom_rows(rows)]
    assert terms["forces"].total.item() == pytest.approx(np.linalg.norm(forces, axis=1).sum(), rel=1e-10)
    assert int(terms["forces"].count) == n.sum()
    stress = found["stress"].numpy() - arrays.values["stress"][rows]
    assert terms["stress"].total.item() == pytest.approx((stress**2).sum(), rel=1e-10)
    assert int(terms["stress"].count) == 27
    assert [terms[name].weight for name in ("energy", "forces", "stress")] == [2.0, 2.0, 5.0]


def test_kinds_of_frames_are_weighted(energy_recipe: Recipe) -> None:
    task, model, arrays = energy_parts(energy_recipe)
    rows = np.array([0, 1])
    plain = task.loss_terms(model, task.collate(arrays, rows), 0.0)
    weighted_task = EnergyTask(task.dtype, LossConfig(kind_weights={"": 3.0}))
    weighted = weighted_task.loss_terms(model, weighted_task.collate(arrays, rows), 0.0)
    for one, other in zip(plain, weighted, strict=True):
        assert other.total.item() == pytest.approx(3 * one.total.item())
        assert int(other.count) == int(one.count)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_force_errors_relative_to_the_forces_of_a_frame(energy_recipe: Recipe, power: float) -> None:
    task, model, arrays = energy_parts(energy_recipe, forces={"kind": "l1"})
    relative = EnergyTask(task.dtype, task.loss.model_copy(update={"force_scale": 0.2, "force_power": power}))
    for row in (0, 3):
        batch = task.collate(arrays, np.array([row]))
        forces = arrays.values["forces"][arrays.atom_rows(np.array([row]))]
        rms = np.sqrt((forces**2).sum(1).mean())
        plain, scaled = (some.loss_terms(model, batch, 0.0)[1] for some in (task, relative))
        assert scaled.total.item() == pytest.approx(plain.total.item() / (0.2 + rms) ** power, rel=1e-6)
        assert int(scaled.count) == int(plain.count)


def test_differences_of_the_forces_on_two_frames_of_a_cell(energy_recipe: Recipe) -> None:
    task, model, arrays = energy_parts(energy_recipe, differences={"weight": 3.0, "scale": 0.1}, forces={"weight": 0.0})
    arrays = arrays.take(np.array([0, 2, 2, 1]))
    arrays.positions[arrays.atom_rows(np.array([2]))] += 0.03
    one, other = (arrays.atom_rows(np.array([row])) for row in (1, 2))
    arrays.values["forces"][other] *= 1.5
    batch = task.collate(arrays, np.array([3, 1, 2, 0]))
    term = next(term for term in task.loss_terms(model, batch, 0.0) if term.name == "differences")
    found = task.predict(model, task.collate(arrays, np.arange(4)).atoms)["forces"].numpy()
    wanted = arrays.values["forces"][other] - arrays.values["forces"][one]
    errors = np.linalg.norm(found[other] - found[one] - wanted, axis=1)
    assert term.total.item() == pytest.approx(
        errors.sum() / np.sqrt(0.1 + np.sqrt((wanted**2).sum(1).mean())), rel=1e-6
    )
    assert (int(term.count), term.weight) == (len(one), 3.0)
    assert term.total.requires_grad
    alone = task.loss_terms(model, task.collate(arrays, np.array([0, 3])), 0.0)
    assert (alone[-1].total.item(), int(alone[-1].count)) == (0.0, 0)


def test_compressed_frames_count_less(energy_recipe: Recipe) -> None:
    task, model, arrays = energy_parts(energy_recipe, energy={"kind": "l1"}, stress={"kind": "l1"})
    relative = EnergyTask(task.dtype, task.loss.model_copy(update={"stress_scale": 0.01}))
    batch = task.collate(arrays, np.array([3]))
    rms = np.sqrt((arrays.values["stress"][3] ** 2).mean())
    plain, scaled = (some.loss_terms(model, batch, 0.0) for some in (task, relative))
    for one, other, divisor in zip(plain, scaled, (1 + rms / 0.01, 1, 1 + rms / 0.01), strict=True):
        assert other.total.item() == pytest.approx(one.total.item() / divisor, rel=1e-6)
    assert rms > 0.001


def test_forces_that_weigh_nothing_are_not_computed(energy_recipe: Recipe) -> None:
    task, model, arrays = energy_parts(energy_recipe, forces={"weight": 0}, stress={"weight": 0})
    terms = task.loss_terms(model, task.collate(arrays, np.array([0, 1])), 0.0)
    assert [float(term.count) for term in terms] == [2, 0, 0]
    assert not terms[1].total.requires_grad


def test_a_molecule_among_crystals_leaves_finite_gradients(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(energy_recipe["data"]["path"], ":")
    molecules = [Atoms("HO", positions=[[0, 0, 0], [0, 0, 1.1]]) for _ in range(4)]
    for molecule in molecules:
        molecule.calc = SinglePointCalculator(molecule, energy=-3.0, forces=np.ones((2, 3)))
    ase.io.write(tmp_path / "mixed.extxyz", [*molecules, *frames])
    energy_recipe["data"] = {"path": str(tmp_path / "mixed.extxyz"), "split": {"fractions": [0.8, 0.2, 0.0]}}
    task, model, arrays = energy_parts(energy_recipe)
    rows = np.arange(len(arrays))
    assert not arrays.pbc.all()
    terms = task.loss_terms(model, task.collate(arrays, rows), 0.0)
    combine(terms).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert float(model.embedding.weight.grad.abs().max()) > 0  # type: ignore[union-attr]


def test_the_model_gets_the_statistics_of_energies(energy_recipe: Recipe) -> None:
    _, model, arrays = energy_parts(energy_recipe)
    assert model.energy_scale == pytest.approx(float(np.sqrt((arrays.values["forces"] ** 2).mean())))
    wanted = element_references(arrays.composition(), arrays.values["energy"])
    known = np.unique(arrays.numbers)
    np.testing.assert_allclose(model.references.detach().numpy()[known], wanted[known], rtol=1e-6)


def test_elements_of_frames_with_forces_alone_are_learned(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(energy_recipe["data"]["path"], ":")
    for seed in range(4):
        alone = bulk("Al").repeat((2, 1, 1))
        alone.rattle(0.1, seed=seed)
        alone.calc = SinglePointCalculator(alone, forces=np.ones((2, 3)))
        frames.append(alone)
    ase.io.write(tmp_path / "some.extxyz", frames)
    energy_recipe["data"] = {"path": str(tmp_path / "some.extxyz"), "split": {"fractions": [0.8, 0.2, 0.0]}}
    recipe = load_recipe(energy_recipe | {"model": {"name": "equivariant-potnet", "options": {"width": 8}}})
    data = load_training_data(recipe, progress=False)
    assert 13 in data.train.numbers
    network: Any = make_model(recipe, make_task(recipe), data)
    assert network.elements[13]
    assert torch.isfinite(network.references).all()


def test_two_trainings_do_not_share_an_output(energy_recipe: Recipe) -> None:
    folder = Path(energy_recipe["output"])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_lock(folder / "lock"),
        pytest.raises(ValueError, match=r"output: another run is writing to .*process"),
    ):
        train(energy_recipe, progress=False)


def test_a_finished_training_is_reported_by_one_process(energy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(energy_recipe | {"epochs": 1}, progress=False).finished
    monkeypatch.setenv("RANK", "1")
    again = train(energy_recipe | {"epochs": 1}, progress=False)
    assert (again.model, again.reason) == (None, "another process reports")


def test_properties_start_from_a_potential(property_recipe: Recipe, energy_recipe: Recipe, tmp_path: Path) -> None:
    options = {"width": 8, "message_width": [4, 2, 2], "n_sources": 2}
    potential = load_recipe(energy_recipe | {"model": {"name": "equivariant-potnet", "options": options}})
    source = make_model(potential, make_task(potential), load_training_data(potential, progress=False))
    save_model(source, tmp_path / "potential", task="energy")
    start = {"name": "equivariant-properties", "options": options, "start_from": str(tmp_path / "potential")}
    recipe = load_recipe(property_recipe | {"model": start})
    task, data = make_task(recipe), load_training_data(recipe, progress=False)
    network = make_model(recipe, task, data)
    copied = source.state_dict()["layers.0.mixing.0"].float()
    torch.testing.assert_close(network.state_dict()["layers.0.mixing.0"].float(), copied)
    assert set(np.flatnonzero(network.elements.numpy())) == {int(z) for z in data.train.numbers}  # type: ignore[union-attr, operator]
    wanted = np.nanmean(data.train.values["targets"], axis=0)
    predicted = task.predict(network, data.train.atoms_batch(np.arange(len(data.train)), torch.float32))["targets"]
    np.testing.assert_allclose(predicted.detach().numpy().mean(axis=0), wanted, atol=2 * np.nanstd(wanted) + 1.0)


def test_references_of_the_equivariant_model_are_set(energy_recipe: Recipe) -> None:
    model = {"name": "equivariant-potnet", "options": {"width": 8}}
    recipe = load_recipe(energy_recipe | {"model": model})
    data = load_training_data(recipe, progress=False)
    network = make_model(recipe, make_task(recipe), data)
    references, composition = network.references.numpy(), data.train.composition()[:, :95]  # type: ignore[union-attr, operator]
    known = network.elements.numpy()  # type: ignore[union-attr, operator]
    assert set(np.flatnonzero(known)) == {int(z) for z in data.train.numbers}
    error = (composition @ references - data.train.values["energy"]) / data.train.n_atoms
    assert np.abs(error).max() < 0.1 * np.std(data.train.values["energy"] / data.train.n_atoms)


def test_element_references_solve_a_linear_energy() -> None:
    composition = np.zeros((4, 119))
    composition[0, 1], composition[1, 8], composition[2, [1, 8]], composition[3, [1, 8]] = 2, 2, [2, 1], [1, 3]
    energies = composition[:, 1] * -3.0 + composition[:, 8] * -5.0
    references = element_references(composition, energies, ridge=1e-9)
    np.testing.assert_allclose(references[[1, 8]], [-3.0, -5.0], rtol=1e-6)


@pytest.mark.parametrize("energies", [(-8.3, -4.9), (-4480.0, -560.0), (-45000.0, -2040.0)])
def test_references_of_codes_that_count_core_electrons(energies: tuple[float, float]) -> None:
    """Fe2O3, Fe3O4, FeO: what is linear in the composition is explained, however large it is."""
    composition = np.zeros((30, 119))
    composition[:10, [26, 8]], composition[10:20, [26, 8]], composition[20:, [26, 8]] = (2, 3), (3, 4), (1, 1)
    total = composition[:, [26, 8]] @ np.array(energies)
    error = (composition @ element_references(composition, total) - total) / composition.sum(1)
    assert np.abs(error).max() < 0.01


def test_elements_that_only_validation_or_test_have_are_left_out(tmp_path: Path) -> None:
    frames = [Atoms("Cu4", np.random.default_rng(k).random((4, 3)) * 3.6, cell=[3.6] * 3, pbc=True) for k in range(10)]
    for number, frame in enumerate(frames):
        if number in (4, 9):
            frame.numbers[0] = 13
        frame.calc = EMT()
        frame.get_potential_energy()
        frame.info["id"] = f"f{number}"
    ase.io.write(tmp_path / "frames.extxyz", frames)
    split = {"train": [f"f{k}" for k in range(4)], "val": ["f4", "f5", "f6"], "test": ["f7", "f8", "f9"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    options = {"width": 8, "message_width": [4, 2, 2], "n_radial": [3, 2, 2], "n_sources": 0}
    recipe = {
        "output": str(tmp_path / "run"),
        "task": "energy",
        "data": {
            "path": str(tmp_path / "frames.extxyz"),
            "split": {"kind": "file", "path": str(tmp_path / "split.json")},
        },
        "model": {"name": "equivariant-potnet", "options": options},
        "epochs": 1,
    }
    result = train(recipe, progress=False)
    assert result.metrics["val"]["energy_per_atom"]["count"] == 2
    assert result.metrics["test"]["energy_per_atom"]["count"] == 2
    # trained on from there, an element that is new gets a reference energy
    split = {"train": split["val"] + split["test"], "val": split["train"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    again = load_recipe(recipe | {"model": {"start_from": str(result.model)}})
    data = load_training_data(again, progress=False)
    model: Any = make_model(again, make_task(again), data)
    assert set(np.flatnonzero(model.elements)) == {13, 29}
    error = predict_arrays(predict_energies, model, data.train, dtype=torch.float32)["energy"]
    error -= data.train.values["energy"]
    with_new = data.train.composition()[:, 13] > 0
    assert with_new.sum() == 2
    assert np.abs(error[with_new].mean()) < 1e-3
    before = load_model(str(result.model)).references
    assert model.references[29] == before[29]


def test_a_mean_of_models_is_nothing_to_start_from(property_recipe: Recipe, tmp_path: Path) -> None:
    member = {"model": "equivariant-properties", "options": {"width": 8, "message_width": (4, 2, 2), "n_targets": 2}}
    mean = build_model("mean-of-models", {"members": [member, member]})
    targets = ["formation_energy_per_atom", "optb88vdw_bandgap"]
    start = str(save_model(mean, tmp_path / "mean", targets=targets))
    with pytest.raises(ValueError, match=r"model\.start_from: .* is the mean of several networks"):
        train(property_recipe | {"model": {"start_from": start}}, progress=False)


def test_what_a_file_lacks_is_said(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(energy_recipe["data"]["path"], ":")
    assert isinstance(frames, list)
    for frame in frames:
        frame.arrays["force"] = frame.get_forces()
        frame.calc = SinglePointCalculator(frame, energy=frame.get_potential_energy())
    ase.io.write(tmp_path / "frames.extxyz", frames)
    energy_recipe["data"]["path"] = str(tmp_path / "frames.extxyz")
    notes = " ".join(load_training_data(load_recipe(energy_recipe), progress=False).notes)
    assert "energy of 8, forces of 0, stress of 0 structures" in notes
    assert "force" in notes.partition("other fields:")[2]


def test_what_does_nothing_is_said(energy_recipe: Recipe) -> None:
    def notes(**changes: Any) -> str:
        return " ".join(load_training_data(load_recipe(energy_recipe | changes), progress=False).notes)

    assert "1 structures are in no part of the split" in notes()  # 0.7, 0.2 and 0.1 of 12 are 8, 2 and 1
    assert "loss.differences does nothing" in notes(loss={"differences": {}})
    frames = str(SAMPLES / "dft_forces_sample.extxyz")
    whole = {"path": [frames, frames], "split": {"fractions": [0.5, 0.5, 0.0]}}
    assert "loss.differences" not in notes(loss={"differences": {}}, data=whole)


def test_elements_beyond_the_table_are_named(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(energy_recipe["data"]["path"], ":")
    assert isinstance(frames, list)
    for frame in frames:
        frame.numbers[0] = 95
    ase.io.write(tmp_path / "frames.extxyz", frames)
    energy_recipe["data"]["path"] = str(tmp_path / "frames.extxyz")
    with pytest.raises(ValueError, match=r"equivariant-potnet has elements up to Pu; .* with Am, such as 'frames-"):
        train(energy_recipe | {"model": {"name": "equivariant-potnet", "options": {"width": 8}}}, progress=False)


def test_a_network_that_runs_away_is_told_from_wrong_structures(
    energy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = EnergyTask.loss_terms, []

    def wild(self: EnergyTask, *args: Any) -> Any:
        calls.append(self)
        if len(calls) > 2:
            raise ValueError("sources must be finite, got NaN or infinity")
        return usual(self, *args)

    monkeypatch.setattr(EnergyTask, "loss_terms", wild)
    with pytest.raises(ValueError, match=r"not finite in epoch 0: lower optimiser.lr"):
        train(energy_recipe, progress=False)


def test_no_gpu_and_a_full_disk_are_errors_of_one_line(energy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="accelerator: PyTorch sees no GPU"):
            train(energy_recipe | {"accelerator": "cuda"}, progress=False)

    def full(*args: Any) -> None:
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"output: .*last.pt cannot be written"):
        train(energy_recipe | {"accelerator": "cpu"}, progress=False)
    assert not list(Path(energy_recipe["output"]).glob("*last.pt*"))


def test_groups_that_a_split_tears_apart_are_counted(energy_recipe: Recipe, tmp_path: Path) -> None:
    frames = ase.io.read(energy_recipe["data"]["path"], ":")
    assert isinstance(frames, list)
    for number, frame in enumerate(frames):
        frame.info["group"] = f"g{number % 6}"
    ase.io.write(tmp_path / "frames.extxyz", frames)
    energy_recipe["data"]["path"] = str(tmp_path / "frames.extxyz")
    notes = " ".join(load_training_data(load_recipe(energy_recipe), progress=False).notes)
    assert "groups of structures of one origin are in several parts" in notes
    energy_recipe["data"]["split"] = {"kind": "group", "fractions": [0.5, 0.5, 0.0]}
    assert "groups" not in " ".join(load_training_data(load_recipe(energy_recipe), progress=False).notes)


def test_error_measures() -> None:
    measures = error_measures(np.array([1.0, 2.0, 5.0, 9.0]), np.array([1.0, 3.0, 2.0, np.nan]))
    assert measures["count"] == 3
    assert measures["mae"] == pytest.approx(4 / 3)
    assert measures["rmse"] == pytest.approx(np.sqrt(10 / 3))
    assert measures["r2"] == pytest.approx(1 - 10 / 2)
    assert measures["max"] == 3
    assert error_measures(np.array([1.0]), np.array([np.nan])) == {"count": 0.0}
    assert error_measures(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))["not_finite"] == 1


def test_errors_by_kind_and_element(energy_recipe: Recipe) -> None:
    _, _, arrays = energy_parts(energy_recipe)
    wrong = {name: arrays.values[name].copy() for name in ("energy", "forces", "stress")}
    number = int(np.bincount(arrays.numbers).argmax())
    wrong["forces"][arrays.numbers == number] += 0.5
    wrong["energy"] += 0.25 * arrays.n_atoms
    by_element = errors_by_element(wrong, arrays)
    most = chemical_symbols[number]
    assert by_element[most]["forces_mae"] == pytest.approx(0.5)
    assert all(m["forces_mae"] == pytest.approx(0.0) for symbol, m in by_element.items() if symbol != most)
    assert all(m["energy_mae"] == pytest.approx(0.25) for m in by_element.values())
    metrics = energy_metrics(wrong, arrays)
    assert metrics["energy_per_atom"]["mae"] == pytest.approx(0.25)
    shifts = fit_element_shifts(wrong["energy"], arrays)
    np.testing.assert_allclose(wrong["energy"] + arrays.composition() @ shifts, arrays.values["energy"], atol=1e-3)


def test_data_without_labels_is_named(energy_recipe: Recipe) -> None:
    energy_recipe["data"] = energy_recipe["data"] | {"path": str(SAMPLES / "mp_sample.extxyz")}
    with pytest.raises(ValueError, match="the training part has no structure with a label"):
        train(energy_recipe, progress=False)
    assert energy_recipe["model"]["name"] == ENERGY
