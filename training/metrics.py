"""Errors of predictions: MAE, RMSE, R² and more, by quantity, kind of frame and element."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from ase.data import chemical_symbols

from ase_potnet.pretrained import Target

from .arrays import Floats, StructureArrays

Metrics = dict[str, dict[str, float]]  # quantity, then measure
UNITS = {"energy_per_atom": "eV/atom", "forces": "eV/Å", "stress": "eV/Å^3"}  # of an interatomic potential
_USUAL_SPREAD = 5.0  # eV, of references of elements where only valence electrons count


def error_measures(predicted: Floats, wanted: Floats) -> dict[str, float]:
    """MAE, RMSE, largest error, R² and number of the values that are known. NaN among `wanted` is left out.

    R² is left out where all values are the same, everything but the number where no value is known. Predictions that
    are not finite are left out, too, and counted as "not_finite".
    """
    known = np.isfinite(wanted)
    lost = known & ~np.isfinite(predicted)
    known = known & ~lost
    measures = {"count": float(known.sum())}
    if lost.any():
        measures["not_finite"] = float(lost.sum())
    if not known.any():
        return measures
    error = predicted[known] - wanted[known]
    spread = float(((wanted[known] - wanted[known].mean()) ** 2).sum())
    measures |= {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "max": float(np.abs(error).max()),
    }
    if spread > 0:
        measures["r2"] = 1 - float((error**2).sum()) / spread
    return measures


def property_metrics(targets: Sequence[Target], predicted: Floats, wanted: Floats) -> Metrics:
    """Measures of every target, from predictions and values (S, n_targets)."""
    return {target.name: error_measures(predicted[:, i], wanted[:, i]) for i, target in enumerate(targets)}


def energy_metrics(predicted: dict[str, Floats], arrays: StructureArrays) -> Metrics:
    """Measures of energy per atom (eV), forces (eV/Å) and stress (eV/Å^3), all and by kind of frame."""
    labels = arrays.values
    n_atoms = arrays.n_atoms
    atom_kind = np.repeat(arrays.kind, n_atoms)
    energy, wanted = predicted["energy"] / n_atoms, labels["energy"] / n_atoms
    metrics = {
        "energy_per_atom": error_measures(energy, wanted),
        "forces": error_measures(predicted["forces"], labels["forces"]),
        "stress": error_measures(predicted["stress"], labels["stress"]),
    }
    for index, kind in enumerate(arrays.kinds if len(arrays.kinds) > 1 else ()):
        frames, atoms = arrays.kind == index, atom_kind == index
        name = kind or "other"
        metrics[f"energy_per_atom/{name}"] = error_measures(energy[frames], wanted[frames])
        metrics[f"forces/{name}"] = error_measures(predicted["forces"][atoms], labels["forces"][atoms])
        metrics[f"stress/{name}"] = error_measures(predicted["stress"][frames], labels["stress"][frames])
    return metrics


def errors_by_element(predicted: dict[str, Floats], arrays: StructureArrays) -> Metrics:
    """By chemical symbol: measures of the forces on its atoms, and of the energy per atom of structures with it."""
    structure = np.repeat(np.arange(len(arrays)), arrays.n_atoms)
    energy, wanted = predicted["energy"] / arrays.n_atoms, arrays.values["energy"] / arrays.n_atoms
    metrics: Metrics = {}
    for number in np.unique(arrays.numbers):
        atoms = arrays.numbers == number
        frames = np.unique(structure[atoms])
        forces = error_measures(predicted["forces"][atoms], arrays.values["forces"][atoms])
        energies = error_measures(energy[frames], wanted[frames])
        metrics[chemical_symbols[number]] = {
            **{f"forces_{name}": value for name, value in forces.items() if name in ("mae", "rmse", "count")},
            **{f"energy_{name}": value for name, value in energies.items() if name in ("mae", "rmse", "count")},
        }
    return metrics


def fit_element_shifts(
    predicted_energy: Floats, arrays: StructureArrays, elements: Collection[int] | None = None, ridge: float = 1e-6
) -> Floats:
    """Energy (eV) to add to an atom of each element so that the energies of the cells agree best. (119,)

    For comparing energies of two levels of theory, whose references differ.

    Args:
        elements: atomic numbers of those to shift, zero for the others; None for all.
    """
    known = np.isfinite(arrays.values["energy"])
    composition, rest = arrays.composition()[known], (arrays.values["energy"] - predicted_energy)[known]
    if elements is None:
        return element_references(composition, rest, ridge)
    shifts, columns = np.zeros(composition.shape[1]), sorted(elements)
    n_atoms = composition.sum(axis=1)
    shifts[columns] = np.linalg.lstsq(composition[:, columns] / n_atoms[:, None], rest / n_atoms, rcond=1e-6)[0]
    return shifts


def element_references(composition: Floats, energies: Floats, ridge: float = 1e-3) -> Floats:
    """Energies of the elements whose sums come nearest to the energies of the structures, per atom. (119,)

    Args:
        composition: (S, 119) atoms of each element in every structure.
        energies: (S,)
        ridge: pulls rare elements to the mean energy per atom; relative to the weight of one structure. Less where the
            references differ by more than some eV, as those of codes that count core electrons do.
    """
    if not len(energies):
        return np.zeros(composition.shape[1])
    n_atoms = composition.sum(axis=1)
    fractions, per_atom = composition / n_atoms[:, None], energies / n_atoms
    mean, present = per_atom.mean(), composition.any(axis=0)
    rest = np.zeros(composition.shape[1])
    for _ in range(3):  # the ridge that suits the spread of the references, found with the one before
        weight = ridge * min(1.0, (_USUAL_SPREAD / max(float(rest[present].std()), 1e-9)) ** 2)
        normal = fractions.T @ fractions + weight * np.eye(fractions.shape[1])
        rest = np.linalg.solve(normal, fractions.T @ (per_atom - mean))
    return np.asarray(mean + rest)
