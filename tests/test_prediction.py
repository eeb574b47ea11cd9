from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_potnet import predict
from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model
from ase_potnet.prediction import StructureError
from ase_potnet.pretrained import load_model, packaged, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = build_model("potnet", {"width": 8, "n_layers": 1, "n_targets": 2}).double()
    return save_model(model, tmp_path / "weights" / "mine", targets=["formation_energy_per_atom", "band_gap"])


@pytest.fixture
def crystals() -> list[Atoms]:
    cells = [bulk("Si"), bulk("NaCl", "rocksalt", a=5.6), bulk("Fe"), bulk("MgO", "rocksalt", a=4.2, cubic=True)]
    return [cell.copy() for cell in cells * 3]


@pytest.mark.parametrize("batch_size", ["auto", 1, 5])
def test_batches_do_not_change_order_or_values(folder: Path, crystals: list[Atoms], batch_size: int | str) -> None:
    values = list(predict(crystals, "band_gap", folder, batch_size=batch_size))  # type: ignore[arg-type]
    model = load_model(folder)
    expected = [model(batch_structures(atoms))[0, 1].item() for atoms in crystals]
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert len(set(np.round(values, 9))) == 4


def test_structures_are_read_as_values_are_taken(folder: Path) -> None:
    taken = 0

    def endless() -> Iterator[Atoms]:
        nonlocal taken
        for _ in itertools.count():
            taken += 1
            yield bulk("Si")

    values = predict(endless(), model=folder, batch_size=4)
    assert taken == 0
    first = [next(values) for _ in range(5)]
    assert taken <= 9
    assert len(set(first)) == 1


def test_one_structure_is_a_batch_of_one(folder: Path) -> None:
    silicon = bulk("Si")
    arrays = (silicon.numbers, silicon.positions, silicon.cell.array, True)
    (value,) = predict(silicon, model=folder)
    assert list(predict([silicon], model=folder)) == [value]
    assert list(predict(arrays, model=folder)) == pytest.approx([value])
    assert list(predict([], model=folder)) == []


def test_a_property_finds_its_packaged_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "weights_folder", lambda: folder.parent)
    assert list(predict(bulk("Si"), "band_gap")) == list(predict(bulk("Si"), "band_gap", folder))
    with pytest.raises(ValueError, match=r"no packaged model for 'bandgap', did you mean 'band_gap'\?"):
        predict(bulk("Si"), "bandgap")


def test_arguments_are_checked_at_once(folder: Path) -> None:
    with pytest.raises(ValueError, match="the model mine predicts formation_energy_per_atom, band_gap, got 'colour'"):
        predict([], "colour", folder)
    with pytest.raises(ValueError, match="batch_size: wanted a positive integer or 'auto', got 0"):
        predict([], model=folder, batch_size=0)
    for device in ("meta", "mps"):
        with pytest.raises(ValueError, match="device: the models run on 'cpu' and 'cuda'"):
            predict([], model=folder, device=device)
    with pytest.raises(ValueError, match="device: wanted 'auto' or a device of torch"):
        predict([], model=folder, device="quantum")
    with pytest.raises(ValueError, match="no packaged model and no folder"):
        predict([], model="nowhere")


def test_a_broken_structure_is_named_after_the_values_before_it(folder: Path, crystals: list[Atoms]) -> None:
    crystals[7].positions[0] = np.nan
    values = predict(crystals, model=folder, batch_size=3)
    assert len(list(itertools.islice(values, 6))) == 6
    with pytest.raises(StructureError, match=r"structures\[7\]: must have finite positions") as caught:
        next(values)
    assert caught.value.index == 7
    with pytest.raises(ValueError, match=r"structures\[1\]: must be ASE Atoms.*got int"):
        list(predict([crystals[0], 42], model=folder))  # type: ignore[list-item]


def test_potentials_are_for_evaluate(folder: Path, tmp_path: Path) -> None:
    energy = save_model(build_model("equivariant-potnet", {"width": 8}), tmp_path / "e", task="energy")
    with pytest.raises(ValueError, match="is an interatomic potential"):
        predict([], model=energy)


def test_a_model_that_was_trained_again_is_read_again(folder: Path) -> None:
    (before,) = predict(bulk("Si"), model=folder)
    model = load_model(folder)
    with torch.no_grad():
        model.scaling.mean += 1.0  # type: ignore[operator, union-attr]
    save_model(model, folder, targets=["formation_energy_per_atom", "band_gap"])
    (after,) = predict(bulk("Si"), model=folder)
    assert after == pytest.approx(before + 1.0)


def test_errors_pass_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StructureError(3, "no atoms")))
    assert (error.index, error.reason, str(error)) == (3, "no atoms", "structures[3]: no atoms")


@pytest.mark.parametrize("name", ["invariant-potnet", "equivariant-properties"])
def test_unknown_elements_are_an_error(name: str, tmp_path: Path) -> None:
    model: Any = build_model(name, {"width": 8, "n_layers": 1, "n_targets": 1})
    model.elements[:] = False
    model.elements[[14, 29]] = True
    folder = save_model(model, tmp_path / "model", targets=["x"])
    assert len(list(predict([bulk("Si"), bulk("Cu")], model=folder, property="x"))) == 2
    for element in ("Al", "Og"):
        wrong = Atoms(element, cell=[4, 4, 4], pbc=True)
        with pytest.raises(ValueError, match=rf"structures\[1\]: .*it had no {element}"):
            list(predict([bulk("Si"), wrong], model=folder, property="x"))


def test_weights_that_do_not_say_their_elements_know_all(tmp_path: Path) -> None:
    model = build_model("invariant-potnet", {"width": 8, "n_layers": 1})
    state = model.state_dict()
    del state["elements"]
    model.load_state_dict(state)
    assert model.elements[1:].all()  # type: ignore[index, union-attr]
