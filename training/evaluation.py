"""Predictions of a model for all structures of the arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch
from ase_potnet.prediction import MOST_ATOMS, MOST_PAIRS, MOST_STRUCTURES

from .arrays import Floats, StructureArrays
from .batches import Budget, share, sorted_batches

Predict = Callable[[nn.Module, AtomsBatch], dict[str, Tensor]]
EVALUATION_BUDGET = Budget(MOST_STRUCTURES, MOST_ATOMS, MOST_PAIRS)


def known_elements(model: nn.Module) -> NDArray[np.bool_]:
    """Whether the model knows the element of an atomic number. (119,)

    A model, or a member of it, says so in a boolean buffer `elements` by atomic number; without such a buffer it
    knows all.
    """
    known = np.ones(len(chemical_symbols), dtype=bool)
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] == "elements" and buffer.dtype == torch.bool:
            known[: len(buffer)] &= buffer.cpu().numpy()
            known[len(buffer) :] = False
    return known


def known_structures(arrays: StructureArrays, model: nn.Module) -> tuple[StructureArrays | None, tuple[str, ...]]:
    """The structures of elements that the model knows, None where there are none, and the elements that it does not."""
    known = known_elements(model)
    unknown = np.unique(arrays.numbers[~known[arrays.numbers]])
    if not len(unknown):
        return arrays, ()
    rows = np.flatnonzero(~arrays.holds(unknown))
    return arrays.take(rows) if len(rows) else None, tuple(chemical_symbols[number] for number in unknown)


def predict_properties(model: nn.Module, atoms: AtomsBatch) -> dict[str, Tensor]:
    """Properties of a batch, "targets" (B, n_targets)."""
    with torch.no_grad():
        return {"targets": model(atoms)}


def predict_energies(model: nn.Module, atoms: AtomsBatch) -> dict[str, Tensor]:
    """ "energy" (B,) eV, "forces" (T, 3) eV/Å and "stress" (B, 3, 3) eV/Å^3 of a batch."""
    from ase_potnet.models.derivatives import differentiate

    found = differentiate(model, atoms)
    assert found.forces is not None
    assert found.stress is not None
    return {"energy": found.energy, "forces": found.forces, "stress": found.stress}


def predict_energies_alone(model: nn.Module, atoms: AtomsBatch) -> dict[str, Tensor]:
    """ "energy" (B,) eV of a batch, in a third of the time."""
    from ase_potnet.models.derivatives import differentiate

    return {"energy": differentiate(model, atoms, forces=False, stress=False).energy}


def predict_arrays(
    predict: Predict,
    model: nn.Module,
    arrays: StructureArrays,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Floats]:
    """Predictions in the order of the arrays, shaped as `StructureArrays.values`.

    Of several processes every one predicts its share; the other rows are NaN.

    Args:
        predict: model and batch to predictions by name; "forces" has a row an atom, everything else one a structure.
        dtype: of positions and cells.
        advance: called with the number of structures after every batch.
    """
    results: dict[str, Floats] = {}
    was_training = model.training
    model.eval()
    for batch in sorted_batches(arrays, EVALUATION_BUDGET):
        rows = share(batch, arrays, rank, world)
        if not len(rows):
            continue
        found = predict(model, arrays.atoms_batch(rows, dtype).to(device))
        for name, tensor in found.items():
            values = tensor.detach().cpu().double().numpy()
            per_atom = name == "forces"
            if name not in results:
                results[name] = np.full((int(arrays.first[-1]) if per_atom else len(arrays), *values.shape[1:]), np.nan)
            results[name][arrays.atom_rows(rows) if per_atom else rows] = values
        advance(len(rows))
    model.train(was_training)
    return results


def model_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def merge_predictions(parts: list[dict[str, Floats]]) -> dict[str, Floats]:
    """The predictions of several processes, each of which left the rows of the others NaN."""
    merged: dict[str, Floats] = {}
    for part in parts:
        for name, values in part.items():
            merged[name] = np.where(np.isnan(merged[name]), values, merged[name]) if name in merged else values
    return merged
