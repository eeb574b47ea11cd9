"""ASE calculator: ``atoms.calc = PotNetCalculator()``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, Parameters, all_changes
from torch import nn

from ase_potnet.checks import is_finite
from ase_potnet.evaluation import load_potential, neighbour_cutoff, split_results
from ase_potnet.graph import AtomsBatch, Edges, NeighbourList, batch_structures
from ase_potnet.graph.distances import CLOSEST, refuse_overlaps
from ase_potnet.models.compiled import CompiledStep
from ase_potnet.models.derivatives import differentiate
from ase_potnet.models.equivariant_potnet import EquivariantPotNet
from ase_potnet.models.local_environment import Places, padded_places
from ase_potnet.pretrained import model_info
from ase_potnet.pretrained.format import pick_device, read_dtype

_DRIFT = 10.0  # Å: where float32 is still fine
_ASE_KEYWORDS = ("atoms", "label", "directory")


class PotNetCalculator(Calculator):
    """Energy, forces and stress from packaged, trained weights.

    Args:
        model: packaged name (``ase_potnet.list_models()``), a model folder, or a loaded model (which is copied).
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        dtype: "float64", or "float32": faster, forces to about 1e-5 eV/Å (slabs 5e-5).
        compile: whether crystals of 2 to 64 atoms go through one compiled function, three to four times as fast; other
            systems do not. Compiling takes minutes once, the result is kept in ``$XDG_CACHE_HOME/ase_potnet``. Needs
            a C++ compiler and the CPU; warns and goes on without where that fails.
        tolerance: absolute error of the lattice sums; None for the model's own (1e-11 in float64, 1e-5 in float32).
        skin: Å; the list of neighbours is kept until an atom has moved by half of it.
        **ase_keywords: atoms, label, directory, as of every ASE calculator.

    Results, all from one pass: energy (= free_energy), energies (per atom), forces in eV and eV/Å; stress in eV/Å^3,
    ASE's sign and Voigt order, only where all three directions are periodic (else PropertyNotImplementedError).
    Charges and magnetic moments of the atoms play no part. ``evaluate`` is faster for many structures, or where
    energies alone are wanted.

    Raises:
        ValueError: naming an unknown keyword, model, dtype or device; in a calculation for elements that the model
            does not know, positions that are not finite, atoms closer than 0.3 Å, periodic cells without volume.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012
    name = "potnet"

    def __init__(
        self,
        model: str | Path | nn.Module = "default",
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "float64",
        compile: bool = False,  # noqa: A002
        tolerance: float | None = None,
        skin: float = 0.5,
        **ase_keywords: Any,
    ) -> None:
        _check_keywords(ase_keywords)
        if not (is_finite(skin) and skin >= 0):
            raise ValueError(f"skin: wanted a length from 0 Å, got {skin!r}")
        if tolerance is not None and not (is_finite(tolerance) and 0 < tolerance < 1):
            raise ValueError(f"tolerance: wanted a number between 0 and 1, got {tolerance!r}")
        network: Any = load_potential(model, device=device, dtype=dtype)
        if not hasattr(network, "set_tolerance"):
            raise ValueError(f"model: wanted an interatomic potential, got {type(model).__name__}")
        if tolerance is not None:
            network.set_tolerance(tolerance)
        super().__init__(**ase_keywords)  # last: it hands the calculator to the atoms
        self._device, self._dtype = pick_device(device), read_dtype(dtype)
        name = str(self._dtype).removeprefix("torch.")
        settings = {"device": str(device), "dtype": name, "compile": compile, "tolerance": tolerance, "skin": skin}
        self.model: Any = network
        self._compiled = CompiledStep(network) if compile else None
        self.parameters = Parameters(_identity(model) | settings)
        self._neighbours = NeighbourList(neighbour_cutoff(network), skin)
        # with what was taken off the positions, and how far from the origin they may then be
        self._last: tuple[Any, AtomsBatch, Any, float] | None = None
        self._places: tuple[Edges, Places] | None = None

    @torch.inference_mode(mode=False)
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """All properties from one pass, whichever are asked for."""
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise ValueError("atoms: wanted ASE Atoms, got none")
        self.results = {}
        batch = self._batch(self.atoms)
        periodic = bool(batch.pbc.all())
        neighbours = self._find_neighbours(batch)
        found = None
        if self._compiled is not None and isinstance(neighbours, Places):
            found = self._compiled(batch, neighbours)
        if found is None:
            found = differentiate(lambda moved: self.model(moved, neighbours), batch, stress=periodic)
        (result,) = split_results(batch, found)
        if not np.isfinite(result.energy):
            raise ValueError("atoms: the energy is not finite; are atoms too close to one another?")
        self.results = {"energy": result.energy, "free_energy": result.energy, "energies": result.energies}
        if result.forces is not None:
            self.results["forces"] = result.forces
        if result.stress is not None:
            self.results["stress"] = result.stress

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; quick in dynamics, where at most the positions have."""
        old = self.atoms
        if old is None or _all_but_positions(old) != _all_but_positions(atoms):
            changes: list[str] = super().check_state(atoms, tol)
            return changes
        return [] if np.array_equal(old.positions, atoms.positions) else ["positions"]

    def _batch(self, atoms: Atoms) -> AtomsBatch:
        """The atoms as tensors; only the positions are read anew where nothing else has changed."""
        key = _all_but_positions(atoms)
        if self._last is not None and self._last[0] == key and np.isfinite(atoms.positions).all():
            _, last, origins, far = self._last
            moved = atoms.positions - origins
            if np.abs(moved).max() < far:
                positions = torch.from_numpy(moved).to(device=self._device, dtype=self._dtype)
                return last.moved(positions, last.cell)
        try:
            batch = batch_structures(atoms, device=self._device)
        except ValueError as error:
            raise ValueError(str(error).replace("structures[0]", "atoms")) from error
        near, far = batch, np.inf
        if self._dtype == torch.float32:
            near = batch.near_origin()
            far = 2 * float(near.positions.abs().max()) + _DRIFT
        origins = (batch.positions - near.positions).cpu().numpy()
        near = near.to(dtype=self._dtype)
        self._last = (key, near, origins, far)
        return near

    def _find_neighbours(self, batch: AtomsBatch) -> Edges | Places:
        """All neighbours up to the cut-off. Raises ValueError where two atoms nearly coincide."""
        wide = self._neighbours.wide_edges(batch)
        if self._neighbours.may_hold_closer(CLOSEST):
            refuse_overlaps(wide.vectors(batch), batch.numbers, wide)
        if not isinstance(self.model, EquivariantPotNet):
            return self._neighbours.edges(batch)
        if self._places is None or self._places[0] is not wide:
            self._places = (wide, padded_places(wide, batch, self.model.cutoffs).sorted(batch))
        return self._places[1].within(batch)

    def set(self, **keywords: Any) -> dict[str, Any]:
        """A calculator stays as it was made. Raises ValueError for any keyword."""
        if keywords:
            raise ValueError(f"PotNetCalculator cannot be changed ({', '.join(keywords)}): make a new one")
        return {}


def register() -> None:
    """Make the calculator known to ASE by its name: ``ase.calculators.calculator.get_calculator_class("potnet")``."""
    from ase.calculators.calculator import external_calculators, register_calculator_class

    if PotNetCalculator.name not in external_calculators:
        register_calculator_class(PotNetCalculator.name, PotNetCalculator)


def _identity(model: str | Path | nn.Module) -> dict[str, Any]:
    """Name, version and hash of a model, as JSON; a loaded model has no hash."""
    if isinstance(model, nn.Module):
        return {"model": type(model).__name__, "version": version("ase-potnet"), "sha256": None}
    info = model_info(model)
    return {"model": str(model), "version": info.version, "sha256": info.sha256}


def _all_but_positions(atoms: Atoms) -> tuple[bytes, ...]:
    """Of what the energy depends on."""
    return atoms.numbers.tobytes(), atoms.cell.array.tobytes(), atoms.pbc.tobytes()


def _check_keywords(keywords: dict[str, Any]) -> None:
    if "stress_weight" in keywords:  # pymatgen passes it to the calculators that it knows
        del keywords["stress_weight"]
        warnings.warn("stress_weight is ignored: stresses are always in eV/Å^3", stacklevel=3)
    for keyword in keywords:
        if keyword not in _ASE_KEYWORDS:
            known = ["model", "device", "dtype", "compile", "tolerance", "skin", *_ASE_KEYWORDS]
            near = get_close_matches(keyword, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"PotNetCalculator has no keyword {keyword!r}{hint}; it has {', '.join(known)}")
