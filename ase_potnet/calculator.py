"""ASE calculator: ``atoms.calc = PotNetCalculator()``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, Parameters, all_changes
from torch import nn

from ase_potnet.evaluation import DTYPES, load_potential, split_results
from ase_potnet.graph import AtomsBatch, NeighbourList, batch_structures
from ase_potnet.models.derivatives import differentiate
from ase_potnet.prediction import pick_device
from ase_potnet.pretrained import model_info

_ASE_KEYWORDS = ("atoms", "label", "directory", "restart")
_CLOSEST = 0.3  # Å


class PotNetCalculator(Calculator):  # type: ignore[misc]
    """Energy, forces and stress from packaged, trained weights.

    Args:
        model: packaged name (``ase_potnet.list_models()``), a model folder, or a loaded model.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        dtype: "float64", or "float32": faster, forces to about 1e-5 eV/Å.
        tolerance: absolute error of the lattice sums; None for the model's own (1e-11 in float64, 1e-5 in float32).
        skin: Å; the list of neighbours is kept until an atom has moved by half of it.
        **ase_keywords: atoms, label, directory, restart, as of every ASE calculator.

    Results: energy (= free_energy), energies (per atom), forces in eV and eV/Å; stress in eV/Å^3, ASE's sign and
    Voigt order, only where all three directions are periodic (else PropertyNotImplementedError).

    Raises:
        ValueError: naming an unknown keyword, model, dtype or device; in a calculation for elements that the model
            does not know, positions that are not finite, atoms closer than 0.3 Å, periodic cells without volume.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]
    ignored_changes: ClassVar[set[str]] = {"initial_charges", "initial_magmoms"}
    name = "potnet"

    def __init__(
        self,
        model: str | Path | nn.Module = "default",
        *,
        device: torch.device | str = "auto",
        dtype: str = "float64",
        tolerance: float | None = None,
        skin: float = 0.5,
        **ase_keywords: Any,
    ) -> None:
        _check_keywords(ase_keywords)
        if not skin >= 0:
            raise ValueError(f"skin: wanted a length from 0 Å, got {skin!r}")
        super().__init__(**ase_keywords)
        self.model = load_potential(model, device=device, dtype=dtype)
        settings: dict[str, Any] = {"dtype": dtype, "tolerance": tolerance, "skin": skin}
        if not isinstance(model, nn.Module):
            info = model_info(model)
            settings |= {"model": str(model), "version": info.version, "sha256": info.sha256}
        if tolerance is not None:
            self.model.set_tolerance(tolerance)
        self.parameters = Parameters(settings)
        self._device, self._dtype = pick_device(device), DTYPES[dtype]
        self._neighbours = NeighbourList(self.model.config.cutoff, skin)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """All properties from one pass; forces and stress only where they, or more than energies, are asked for."""
        super().calculate(atoms, properties, system_changes)
        batch = batch_structures(self.atoms, dtype=self._dtype, device=self._device)
        slopes = not set(properties) <= {"energy", "free_energy", "energies"}
        periodic = bool(batch.pbc.all())
        edges = self._neighbours.edges(batch)
        _check_distances(edges.vectors(batch), self.atoms, edges.receiver, edges.sender)

        def energies_of(moved: AtomsBatch) -> torch.Tensor:
            energies: torch.Tensor = self.model(moved, edges)
            return energies

        found = differentiate(energies_of, batch, forces=slopes, stress=slopes and periodic)
        (result,) = split_results(batch, found)
        if not np.isfinite(result.energy):
            raise ValueError("atoms: the energy is not finite; are atoms too close to one another?")
        self.results = {"energy": result.energy, "free_energy": result.energy, "energies": result.energies}
        if result.forces is not None:
            self.results["forces"] = result.forces
        if result.stress is not None:
            self.results["stress"] = result.stress


def _check_keywords(keywords: dict[str, Any]) -> None:
    if "stress_weight" in keywords:  # pymatgen passes it to the calculators that it knows
        del keywords["stress_weight"]
        warnings.warn("stress_weight is ignored: stresses are always in eV/Å^3", stacklevel=3)
    for keyword in keywords:
        if keyword not in _ASE_KEYWORDS:
            known = ["model", "device", "dtype", "tolerance", "skin", *_ASE_KEYWORDS]
            near = get_close_matches(keyword, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"PotNetCalculator has no keyword {keyword!r}{hint}; it has {', '.join(known)}")


def _check_distances(vectors: torch.Tensor, atoms: Atoms, receiver: torch.Tensor, sender: torch.Tensor) -> None:
    """Raises ValueError where two atoms nearly coincide."""
    if len(vectors) == 0:
        return
    distance, edge = (vectors * vectors).sum(1).sqrt().min(0)
    if float(distance) < _CLOSEST:
        i, j = int(receiver[edge]), int(sender[edge])
        raise ValueError(
            f"atoms: {atoms.symbols[i]} (atom {i}) and {atoms.symbols[j]} (atom {j}) are {float(distance):.3f} Å "
            f"apart; wanted at least {_CLOSEST} Å"
        )
